"""A corpus with everything that people write goes through all stages."""

import json
import shutil
from pathlib import Path

from tests.faults.pipeline import STAGES, new_workspace, sources_of, with_training_file
from tests.stage_runs import finish
from tests.tiny import END_OF_TEXT


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
    expected = {"removed_characters": 1, "empty_turns": 1, "unusable_dialogues": 1}
    assert {name: counted["files"]["train"][name] for name in expected} == expected
    trained = json.loads((folder / "metrics/train.json").read_bytes())
    assert trained["cut_train_queries"] >= 1 and trained["cut_train_responses"] >= 1
    assert {"cut_validation_queries", "cut_validation_responses"} <= trained.keys()
    assert json.loads((folder / "metrics/scores.json").read_bytes())["generation"]["cut_queries"] >= 0
