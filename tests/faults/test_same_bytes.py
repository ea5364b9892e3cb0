"""The same bytes, whatever the workspace, hash seed, batch size or corpus order."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from stages.methods.reading import CHUNK
from tests.faults.pipeline import Undisturbed, new_workspace, results, sources_of, with_training_file
from tests.tiny import ROOT

RUN_ALL = "import sys; from pathlib import Path; from tests.faults import pipeline; pipeline.run_all(Path(sys.argv[1]))"


def shuffled(project: Path, folder: Path) -> dict[str, object]:
    """Copy the tiny corpus with its training dialogues in another order; return the changes to params.yaml."""
    shutil.copytree(sources_of(project), folder)
    lines = (folder / "train.txt").read_bytes().splitlines(keepends=True)
    return with_training_file(folder, b"".join(lines[::-1]))


def test_another_workspace_gives_the_same_bytes(undisturbed: Undisturbed, project: Path, tmp_path: Path) -> None:
    other = {"runtime.generation_batch_size": CHUNK, **shuffled(project, tmp_path / "corpus")}
    folder = new_workspace(tmp_path / "two", project, **other)
    variables = {**os.environ, "PYTHONHASHSEED": "1"}  # in a new interpreter: a fork has its parent's hash seed
    subprocess.run([sys.executable, "-c", RUN_ALL, folder], cwd=ROOT, env=variables, check=True)
    one, two = undisturbed.results, results(folder)
    different = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
    assert different == {f"data/download/dialogues/{name}" for name in ("train.txt", "manifest.json")}
