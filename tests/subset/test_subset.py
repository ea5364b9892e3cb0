"""The data regime: nested, seeded, rounded up; overlapping pairs and their turns are removed from training."""

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, output_folder
from stages.records import Dialogue, Pair, References, read_records, write_records
from stages.subset.__main__ import main
from stages.subset.regime import choose_dialogues, choose_pairs, remaining_turns
from tests.tiny import shipped_params, tiny_dialogues, write_yaml

REGIMES = (10, 20, 30, 50, 70, 100)
Corpus = dict[str, Sequence[Sequence[str]]]


def dialogues(count: int) -> list[str]:
    return [f"d{number:03}" for number in range(count)]


@pytest.mark.parametrize(
    ("whole", "regime", "size"),
    [
        (11_118, 10.0, 1_112),
        (500, 32.2, 161),  # in floating point, 500 * 32.2 / 100 is above 161
        (7, 0.001, 1),  # never empty
    ],
)
def test_a_regime_is_a_percentage_rounded_up_exactly(whole: int, regime: float, size: int) -> None:
    assert len(choose_dialogues(dialogues(whole), None, regime, seed=0)[0]) == size


@pytest.mark.parametrize("whole", [None, 37])
def test_regimes_are_nested(whole: int | None) -> None:
    chosen = [choose_dialogues(dialogues(50), whole, float(regime), seed=3) for regime in REGIMES]
    for (smaller, _), (larger, _) in pairwise(chosen):
        assert set(smaller) < set(larger)
    assert len(chosen[-1][0]) == chosen[0][1] == (whole or 50)


def test_a_regime_depends_on_the_seed_and_on_no_other_dialogue() -> None:
    names = dialogues(50)
    chosen, _ = choose_dialogues(names, None, 50.0, seed=0)
    assert choose_dialogues(names[::-1], None, 50.0, seed=0)[0] == chosen
    assert choose_dialogues(names, None, 50.0, seed=1)[0] != chosen
    more, _ = choose_dialogues(dialogues(60), None, 100.0 * 25 / 60, seed=0)
    assert {*more} - {*dialogues(60)[50:]} <= {*chosen}  # a new one can take the place of an old one, and no more


def test_a_part_of_the_pairs_is_seeded_nested_and_in_the_order_of_the_dialogues() -> None:
    pairs = [Pair(name, 2 * at, f"q{at}", f"r{at}") for name in dialogues(20) for at in range(3)]
    five, ten = choose_pairs(pairs, 5, seed=0), choose_pairs(pairs[::-1], 10, seed=0)
    assert len(five) == 5
    assert set(five) < set(ten)
    assert ten == sorted(ten, key=lambda pair: (pair.dialogue, pair.position))
    assert choose_pairs(pairs, None, seed=0) == pairs
    assert choose_pairs(pairs, 5, seed=1) != five


@pytest.mark.parametrize(
    ("history", "stride", "turns", "dropped", "expected"),
    [
        (2, 1, "abcdef", [0], "abcdef"),  # (ab, c) trains on both
        (2, 2, "abcdef", [2], "abdef"),  # (bc, d) goes: (a, b) has b, (de, f) has d
        (2, 2, "abcde", [2], "abe"),  # e is in no pair
        (9, 2, "abcd", [0], "abcd"),
        (1, 1, "abcd", [0], "bcd"),
        (2, 1, "a bcd", [3], "abc"),  # behind a hole: (b, c) stays, (bc, d) goes
        (3, 1, "a bcd", [2], "bcd"),  # across a hole: (ab, c) goes, (bc, d) stays
        (2, 2, "abcdec", [2], "abcdec"),  # (de, c) has c
    ],
)
def test_with_any_history_and_stride_the_turns_that_only_dropped_pairs_have_go(
    history: int, stride: int, turns: str, dropped: list[int], expected: str
) -> None:
    settings = Pairs.model_validate({"stride": stride, "history": history, "joined_by": " "})
    whole = Dialogue("x", [turn.strip() for turn in turns])
    pairs, _ = pairs_of(whole, settings)
    flagged = [(pair, pair.position in dropped) for pair in pairs]
    (found,) = remaining_turns([whole], flagged, history, Counter())
    assert found == Dialogue("x", list(expected))


def prepare(folder: Path, corpus: Corpus, references: Sequence[References] = (), history: int = 1) -> None:
    """Make a `pairs/` folder with the parts of the pair-extract stage."""
    settings = Pairs(stride=2, history=history, joined_by=" ")
    with output_folder(folder / "pairs") as made:
        for split, turns in corpus.items():
            own = [Dialogue(f"{split}{number:03}", list(each)) for number, each in enumerate(turns)]
            write_records(made / f"{split}.jsonl", [pair for each in own for pair in pairs_of(each, settings)[0]])
            if split == "train":
                write_records(made / "turns.jsonl", own)
        if references:
            write_records(made / "references.jsonl", references)


def choose(folder: Path, data: dict[str, Any] | None = None, **switches: Any) -> dict[str, Any]:
    """Run the stage; return its report, which its manifest has too."""
    params = shipped_params()
    whole = {"train_dialogues": None, "validation_pairs": None, "test_pairs": None}
    params["protocols"]["quick"]["data"] = whole | (data or {})
    write_yaml(folder / "params.yaml", params | switches)
    with contextlib.chdir(folder):
        main(argparse.Namespace(pairs=Path("pairs"), subset=Path("subset"), report=Path("metrics/subset.json")))
    report: dict[str, Any] = json.loads((folder / "metrics/subset.json").read_bytes())
    manifest = check_folder(folder / "subset")
    assert manifest == {**report, "files": manifest["files"]}, "the stage score reads it in the manifest"
    return report


TINY: Corpus = {"train": tiny_dialogues(40), "validation": tiny_dialogues(9, 1), "test": tiny_dialogues(9, 2)}


def test_the_regime_leaves_validation_and_test_alone_and_the_whole_is_everything(tmp_path: Path) -> None:
    prepare(tmp_path, TINY)
    outputs = []
    for regime in (100, 30):
        report = choose(tmp_path, regime=regime)
        outputs.append({path.name: path.read_bytes() for path in (tmp_path / "subset").glob("*.jsonl")})
    whole, part = outputs
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "pairs").glob("*.jsonl")}
    for name in whole:
        if name in ("validation.jsonl", "test.jsonl"):
            assert part[name] == whole[name]
        else:
            assert set(part[name].splitlines()) < set(whole[name].splitlines())
    assert (report["train"]["dialogues"], report["train"]["dialogues_of_corpus"]) == (12, 40)


def test_turns_and_references_are_those_of_the_chosen_pairs_and_all_are_counted(tmp_path: Path) -> None:
    references = [References(f"test{number:03}", 0, [f"answer {number}"]) for number in range(9)]
    prepare(tmp_path, TINY, references=references)
    report = choose(tmp_path, {"train_dialogues": 20, "validation_pairs": 3, "test_pairs": 4}, regime=50)
    train, test = (read_records(tmp_path / f"subset/{split}.jsonl", Pair) for split in ("train", "test"))
    turns = read_records(tmp_path / "subset/turns.jsonl", Dialogue)
    assert len(turns) == 10
    assert {pair.dialogue for pair in train} == {each.dialogue for each in turns}
    chosen = {(pair.dialogue, pair.position) for pair in test}
    found = read_records(tmp_path / "subset/references.jsonl", References)
    assert found == [each for each in references if (each.dialogue, each.position) in chosen] != []
    assert (report["regime"], report["train"]["dialogues_of_100_percent"]) == (50.0, 20)
    counted = {split: report[split]["pairs"] for split in ("train", "validation", "test")}
    assert counted == {"train": len(train), "validation": 3, "test": 4}
    assert report["test"]["pairs_of_corpus"] > 4 == len(test)


def test_overlap_leaves_training_with_its_turns_and_is_counted(tmp_path: Path) -> None:
    leaked, own = ["shall we go to the harbour tonight", "yes let us take the late ferry"], ["one", "two"]
    train = [[*leaked, *own], leaked, ["three", "four"]]
    prepare(tmp_path, {"train": train, "validation": [["x", "y"]], "test": [leaked, ["z", "w"]]})
    # With one test pair the leaked one is not chosen, but it counts all the same: overlap is with the whole test set.
    for test_pairs in (None, 1):
        report = choose(tmp_path, {"test_pairs": test_pairs}, drop_overlap=True)
        pairs = read_records(tmp_path / "subset/train.jsonl", Pair)
        assert [(pair.dialogue, pair.query) for pair in pairs] == [("train000", "one"), ("train002", "three")]
        turns = read_records(tmp_path / "subset/turns.jsonl", Dialogue)
        assert turns == [Dialogue("train000", own), Dialogue("train002", ["three", "four"])]
        assert report["train"]["pairs_dropped_for_overlap"] == 2
        assert report["train"]["dialogues_dropped_for_overlap"] == 1
        assert report["drop_overlap"] is True
    assert choose(tmp_path, drop_overlap=False)["train"]["pairs"] == 4


def test_of_a_dropped_pair_with_a_history_the_turns_that_no_other_has_go(tmp_path: Path) -> None:
    turns = ["shall we go to the harbour", "yes", "then take the late ferry home", "I will"]
    prepare(tmp_path, {"train": [turns], "validation": [["x", "y"]], "test": [["a", *turns[1:]]]}, history=2)
    choose(tmp_path, drop_overlap=True, pairs={"stride": 2, "history": 2, "joined_by": " "})
    assert read_records(tmp_path / "subset/turns.jsonl", Dialogue) == [Dialogue("train000", turns[:2])]


def test_a_regime_that_keeps_no_pair_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, {split: [["the same here", "and the same there"]] for split in TINY})
    with pytest.raises(StageError, match=r"params\.yaml: drop_overlap: all 1 training pairs of regime 100\.0 overlap"):
        choose(tmp_path, drop_overlap=True)
    assert not (tmp_path / "subset").exists()
