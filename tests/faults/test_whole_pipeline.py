"""All stages: on whatever people write, and with the same bytes whatever the workspace."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from stages.methods.reading import CHUNK
from tests.faults.pipeline import STAGES, Undisturbed, new_workspace, results, sources_of, with_training_file
from tests.stage_runs import finish
from tests.tiny import END_OF_TEXT, ROOT

RUN_ALL = "import sys; from pathlib import Path; from tests.faults import pipeline; pipeline.run_all(Path(sys.argv[1]))"


def test_whatever_people_write_goes_through_all_stages(project: Path, tmp_path: Path) -> None:
    strange = [
        "\ufeffa\0b __eou__ c\u2028d\x85e __eou__ 😀 שלום \u202e __eou__ yes __eou__\r",
        "alone __eou__",
        "one __eou__  \u00a0 __eou__ three __eou__ four __eou__",
        "",
        f"{'word ' * 2_000}__eou__ {'x' * 1_000_000} __eou__",
        f"{END_OF_TEXT} hello __eou__ {END_OF_TEXT} __eou__",
    ]
    sources = Path(shutil.copytree(sources_of(project), tmp_path / "sources"))
    content = "".join(f"{line}\n" for line in strange).encode() + (sources / "train.txt").read_bytes()
    folder = new_workspace(tmp_path / "workspace", project, **with_training_file(sources, content))
    for stage in STAGES:
        finish(folder, stage)
    counted = json.loads((folder / "metrics/pairs.json").read_bytes())
    assert counted["train"]["pairs_skipped_for_empty_turn"] == 1
    expected = {"removed_characters": 2, "empty_turns": 1, "unusable_dialogues": 1}
    assert {name: counted["files"]["train"][name] for name in expected} == expected
    trained = json.loads((folder / "metrics/train.json").read_bytes())
    assert trained["cut_train_queries"] >= 1 and trained["cut_train_responses"] >= 1
    assert {"cut_validation_queries", "cut_validation_responses"} <= trained.keys()
    assert json.loads((folder / "metrics/scores.json").read_bytes())["generation"]["cut_queries"] >= 0


def test_another_workspace_gives_the_same_bytes(undisturbed: Undisturbed, project: Path, tmp_path: Path) -> None:
    sources = Path(shutil.copytree(sources_of(project), tmp_path / "corpus"))
    shuffled = b"".join((sources / "train.txt").read_bytes().splitlines(keepends=True)[::-1])
    other = {"runtime.generation_batch_size": CHUNK, **with_training_file(sources, shuffled)}
    folder = new_workspace(tmp_path / "two", project, **other)
    variables = {**os.environ, "PYTHONHASHSEED": "1"}  # in a new interpreter: a fork has its parent's hash seed
    subprocess.run([sys.executable, "-c", RUN_ALL, folder], cwd=ROOT, env=variables, check=True)
    one, two = undisturbed.results, results(folder)
    different = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
    assert different == {f"data/download/dialogues/{name}" for name in ("train.txt", "manifest.json")}
