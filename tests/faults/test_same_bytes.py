"""The same bytes, whatever the workspace, hash seed, batch size or corpus order; the number of threads is recorded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from stages.methods.reading import CHUNK
from tests.faults.pipeline import Undisturbed, new_workspace, results, sources_of, with_training_file
from tests.stage_runs import finish, stopped
from tests.stops import Stop
from tests.tiny import ROOT, change_params

RUN_ALL = "import sys; from pathlib import Path; from tests.faults import pipeline; pipeline.run_all(Path(sys.argv[1]))"


def shuffled(project: Path, folder: Path) -> dict[str, object]:
    """Copy the tiny corpus with its training dialogues in another order; return the changes to params.yaml."""
    shutil.copytree(sources_of(project), folder)
    lines = (folder / "train.txt").read_bytes().splitlines(keepends=True)
    return with_training_file(folder, b"".join(lines[::-1]))


def test_another_workspace_hash_seed_batch_size_and_order_of_the_corpus_give_the_same_bytes(
    undisturbed: Undisturbed, project: Path, tmp_path: Path
) -> None:
    other = {"runtime.generation_batch_size": CHUNK, **shuffled(project, tmp_path / "corpus")}
    folder = new_workspace(tmp_path / "two", project, **other)
    variables = {**os.environ, "PYTHONHASHSEED": "1"}  # in a new interpreter: a fork has its parent's hash seed
    subprocess.run([sys.executable, "-c", RUN_ALL, folder], cwd=ROOT, env=variables, check=True)
    one, two = undisturbed.results, results(folder)
    different = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
    assert different == {f"data/download/dialogues/{name}" for name in ("train.txt", "manifest.json")}


def test_the_number_of_threads_is_recorded_and_a_training_goes_on_with_its_own_alone(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    def recorded(folder: Path) -> list[int]:
        description = json.loads((folder / "data/train/method.json").read_bytes())
        scores = json.loads((folder / "metrics/scores.json").read_bytes())
        return [description["environment"]["threads"], scores["generation"]["threads"]]

    assert recorded(undisturbed.folder) == [1, 1]
    folder = undisturbed.copy(tmp_path / "threads")
    stopped(folder, "train", Stop(1, "-000003-00000000", "os.mkdir"))
    change_params(folder, {"runtime.threads": 2})
    _, printed = stopped(folder, "train", Stop(1, "-000002-00000000", "os.mkdir"))
    assert "epoch 1 " in printed, "it must not go on from a checkpoint made with one thread"
    assert len(list(folder.glob(".state/train/*"))) == 2, "the first trial of each"
    for stage in ("greedy-generate", "score"):
        finish(folder, stage)
    assert recorded(folder) == [1, 2]
