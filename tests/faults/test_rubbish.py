"""Bad input to the real commands: broken or unusual corpora, and parameters that contradict each other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pipeline import STAGES, Undisturbed, results, sources_of, with_training_file
from tests.stage_runs import fails, finish
from tests.tiny import END_OF_TEXT, change_params

Corpus = Callable[[bytes], Path]


@pytest.fixture
def corpus(undisturbed: Undisturbed, project: Path, tmp_path: Path) -> Corpus:
    """A function that makes a workspace with all results, but with another training file as its source."""

    def make(content: bytes) -> Path:
        sources = Path(shutil.copytree(sources_of(project), tmp_path / "sources"))
        folder = undisturbed.copy(tmp_path / "workspace")
        change_params(folder, with_training_file(sources, content))
        return folder

    return make


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"only __eou__\n", "train.txt: none of 1 dialogues has two turns with text; "),
        (b"one __eou__ two __eou__\na\xff __eou__ b __eou__\n", "train.txt:2: not UTF-8 (byte 0xff at column 2"),
    ],
)
def test_a_corpus_that_is_none_is_named_with_its_line_and_nothing_is_touched(
    content: bytes, found: str, corpus: Corpus
) -> None:
    folder = corpus(content)
    finish(folder, "download")
    before = results(folder)
    last = fails(folder, "pair-extract")
    assert last.startswith("ERROR pair-extract: data/download/dialogues")
    assert found in last
    assert results(folder) == before


def test_whatever_people_write_comes_through_and_what_is_cut_or_skipped_is_counted(
    corpus: Corpus, project: Path
) -> None:
    plain = (sources_of(project) / "train.txt").read_bytes()
    strange = [
        "\ufeffa\0b __eou__ c\u2028d\x85e __eou__ 😀 שלום \u202e __eou__ yes __eou__\r",
        "alone __eou__",
        "one __eou__  \u00a0 __eou__ three __eou__ four __eou__",
        "",
        f"{'word ' * 2_000}__eou__ {'x' * 1_000_000} __eou__",
        f"{END_OF_TEXT} hello __eou__ {END_OF_TEXT} __eou__",
    ]
    folder = corpus("".join(f"{line}\n" for line in strange).encode() + plain)
    for stage in STAGES:
        finish(folder, stage)
    counted = json.loads((folder / "metrics/pairs.json").read_bytes())
    assert counted["train"]["pairs_skipped_for_empty_turn"] == 1
    expected = {"removed_characters": 1, "empty_turns": 1, "unusable_dialogues": 1}
    assert {name: counted["files"]["train"][name] for name in expected} == expected
    trained = json.loads((folder / "metrics/train.json").read_bytes())
    assert trained["cut_train_queries"] >= 1
    assert trained["cut_train_responses"] >= 1
    assert {"cut_validation_queries", "cut_validation_responses"} <= trained.keys()
    assert json.loads((folder / "metrics/scores.json").read_bytes())["generation"]["cut_queries"] >= 0


@pytest.mark.parametrize(
    ("stage", "changes", "found"),
    [
        ("train", {"protocols.tiny.lengths.max_query_tokens": 300}, "tokens, the model takes 512; "),
        (
            "train",
            {"methods.dynamic.init": "first-layers", "methods.dynamic.layers": 3},
            "methods.dynamic.layers: 3 first layers of a model that has 2; ",
        ),
        (
            "greedy-generate",
            {"protocols.tiny.lengths.max_query_tokens": 25},
            "protocols.tiny.lengths.max_query_tokens: 25, but data/train was trained with 24; ",
        ),
        (
            "subset",
            {"method": "soft", "methods.soft.prompt_tokens": 23},
            "methods.soft.prompt_tokens: 23, below the 24 of protocols.tiny.lengths.max_query_tokens; ",
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_and_nothing_is_touched(
    stage: str, changes: dict[str, Any], found: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path / "contradiction")
    change_params(folder, changes)
    last = fails(folder, stage)
    assert last.startswith(f"ERROR {stage}: params.yaml: ")
    assert found in last
    assert results(folder) == undisturbed.results
