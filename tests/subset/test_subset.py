"""The data regime: nested, seeded, rounded up; overlapping pairs and their turns are removed from training."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.pair_extract.pairs import pairs_of, turns_to_write
from stages.params.schema import Pairs
from stages.plumbing.files import check_folder, output_folder, sha256_of
from stages.records import Dialogue, Pair, References, read_records, write_records
from stages.subset.regime import choose_dialogues, choose_pairs, regime_size, remaining_turns
from tests.helpers_data import Done, last_line, run_module, shipped, write_params
from tests.tiny import tiny_dialogues, write_jsonl

REGIMES = (10, 20, 30, 50, 70, 100)
ARGUMENTS = ("--pairs", "pairs", "--subset", "subset", "--report", "metrics/subset.json")


@pytest.mark.parametrize(
    ("whole", "regime", "expected"),
    [
        (11_118, 10.0, 1_112),
        (11_118, 100.0, 11_118),
        (60, 10.0, 6),
        (500, 32.2, 161),  # in floating point, 500 * 32.2 / 100 is above 161
        (1_000, 16.1, 161),
        (7, 0.001, 1),  # never empty
        (1_000, 33.3, 333),
    ],
)
def test_a_regime_is_a_percentage_rounded_up_exactly(whole: int, regime: float, expected: int) -> None:
    assert regime_size(whole, regime) == expected


def dialogues(count: int) -> list[str]:
    return [f"d{number:03}" for number in range(count)]


@pytest.mark.parametrize("whole", [None, 37])
def test_regimes_are_nested(whole: int | None) -> None:
    chosen = [choose_dialogues(dialogues(50), whole, float(regime), seed=3) for regime in REGIMES]
    for (smaller, _), (larger, _) in pairwise(chosen):
        assert set(smaller) < set(larger)
    assert len(chosen[-1][0]) == chosen[0][1] == (whole or 50)


def test_a_regime_depends_on_the_seed_and_on_no_other_dialogue() -> None:
    names = dialogues(50)
    chosen, whole = choose_dialogues(names, None, 50.0, seed=0)
    assert (len(chosen), whole) == (25, 50)
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
        (2, 2, "abcd", [0], "bcd"),
        (2, 1, "abcd", [2], "abc"),
        (3, 1, "abcdef", [3, 4], "abcd"),
        (3, 2, "abcdef", [4], "abcd"),
        (9, 2, "abcd", [0], "abcd"),
        (1, 1, "abcd", [0], "bcd"),
        (1, 2, "abcd", [2], "ab"),
        (2, 1, "a bcd", [3], "abc"),  # behind a hole: (b, c) stays, (bc, d) goes
        (3, 1, "a bcd", [2], "bcd"),  # across a hole: (ab, c) goes, (bc, d) stays
        (2, 1, "ab cd", [0], "cd"),
        (2, 2, "abcdec", [2], "abcdec"),  # (de, c) has c
    ],
)
def test_with_any_history_and_stride_the_turns_that_only_dropped_pairs_have_go(
    history: int, stride: int, turns: str, dropped: list[int], expected: str
) -> None:
    settings = Pairs.model_validate({"stride": stride, "history": history, "joined_by": " "})
    whole = Dialogue("x", [turn.strip() for turn in turns])
    pairs, _ = pairs_of(whole, settings)
    (dialogue,) = turns_to_write([whole], settings)
    gone = [pair for pair in pairs if pair.position in dropped]
    kept = [pair for pair in pairs if pair not in gone]
    (found,) = remaining_turns([dialogue], kept, gone, history)
    assert found == Dialogue("x", list(expected))


# --- the stage -----------------------------------------------------------------------------------------------------


def prepare(folder: Path, splits: dict[str, Sequence[Sequence[str]]], references: Sequence[References] = ()) -> None:
    """Make a `pairs/` folder as the pair-extract stage writes it, with stride 2."""
    with output_folder(folder / "pairs") as pairs:
        for split, corpus in splits.items():
            found = [
                Pair(f"{split}{number:03}", at, turns[at], turns[at + 1])
                for number, turns in enumerate(corpus)
                for at in range(0, len(turns) - 1, 2)
            ]
            write_records(pairs / f"{split}.jsonl", found)
        turns = [Dialogue(f"train{number:03}", list(turns)) for number, turns in enumerate(splits["train"])]
        write_records(pairs / "turns.jsonl", turns)
        if references:
            write_records(pairs / "references.jsonl", references)


def prepare_by_pair_extract(folder: Path, splits: dict[str, list[list[str]]], history: int) -> None:
    """Make a `pairs/` folder by the stage itself, with stride 1."""
    with output_folder(folder / "dialogues") as dialogues:
        paths = {split: write_jsonl(dialogues / f"{split}.jsonl", corpus) for split, corpus in splits.items()}
        files = {split: {"path": path.name, "sha256": sha256_of(path)} for split, path in paths.items()}
    params, dataset = shipped(), {"format": "jsonl", "source": "file:x", "files": files}
    pairs = {"stride": 1, "history": history, "joined_by": " "}
    write_params(folder, {**params, "datasets": {"x": dataset}, "dataset": "x", "pairs": pairs})
    arguments = ("--dialogues", "dialogues", "--pairs", "pairs", "--report", "metrics/pairs.json")
    done = run_module("stages.pair_extract", folder, arguments)
    assert done.returncode == 0, done.stderr


def choose(folder: Path, data: dict[str, Any] | None = None, **switches: Any) -> Done:
    params = shipped()
    whole = {"train_dialogues": None, "validation_pairs": None, "test_pairs": None}
    params["protocols"]["quick"]["data"] = whole | (data or {})
    write_params(folder, params | switches)
    return run_module("stages.subset", folder, ARGUMENTS)


def report(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "metrics/subset.json").read_bytes())
    return value


@pytest.fixture
def project(tmp_path: Path) -> Path:
    prepare(tmp_path, {"train": tiny_dialogues(40), "validation": tiny_dialogues(9, 1), "test": tiny_dialogues(9, 2)})
    return tmp_path


def test_the_whole_is_everything_and_the_regime_leaves_validation_and_test_alone(project: Path) -> None:
    outputs = {}
    for regime in (100, 30):
        done = choose(project, regime=regime)
        assert done.returncode == 0, done.stderr
        check_folder(project / "subset")
        outputs[regime] = {path.name: path.read_bytes() for path in (project / "subset").glob("*.jsonl")}
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "turns.jsonl"):
        whole = (project / "pairs" / name).read_bytes()
        assert outputs[100][name] == whole
        if name in ("validation.jsonl", "test.jsonl"):
            assert outputs[30][name] == whole
        else:
            assert set(outputs[30][name].splitlines()) < set(whole.splitlines())
    assert report(project)["train"]["dialogues"] == 12
    assert report(project)["train"]["dialogues_of_corpus"] == 40


def test_the_references_are_those_of_the_chosen_test_pairs(tmp_path: Path) -> None:
    splits: dict[str, Sequence[Sequence[str]]] = {
        "train": tiny_dialogues(10),
        "validation": tiny_dialogues(3, 1),
        "test": tiny_dialogues(9, 2),
    }
    references = [References(f"test{number:03}", 0, [f"answer {number}"]) for number in range(9)]
    prepare(tmp_path, splits, references)
    for count in (4, None):
        assert choose(tmp_path, {"test_pairs": count}).returncode == 0
        chosen = {(pair.dialogue, pair.position) for pair in read_records(tmp_path / "subset/test.jsonl", Pair)}
        found = read_records(tmp_path / "subset/references.jsonl", References)
        assert found == [each for each in references if (each.dialogue, each.position) in chosen]
        assert 0 < len(found) < 9 if count else found == references


def test_pairs_and_turns_are_of_the_same_dialogues(project: Path) -> None:
    assert choose(project, {"train_dialogues": 20, "validation_pairs": 3, "test_pairs": 4}, regime=50).returncode == 0
    pairs = read_records(project / "subset/train.jsonl", Pair)
    turns = read_records(project / "subset/turns.jsonl", Dialogue)
    assert len(turns) == 10
    assert {pair.dialogue for pair in pairs} == {each.dialogue for each in turns}
    sizes = {
        split: len((project / f"subset/{split}.jsonl").read_text().splitlines()) for split in ("validation", "test")
    }
    assert sizes == {"validation": 3, "test": 4}
    numbers = report(project)
    assert (numbers["regime"], numbers["train"]["dialogues_of_100_percent"]) == (50.0, 20)
    assert numbers["train"]["pairs"] == len(pairs)
    assert numbers["validation"]["pairs"] == 3
    assert numbers["test"]["pairs"] == 4 < numbers["test"]["pairs_of_corpus"]
    manifest = check_folder(project / "subset")
    assert manifest == {**numbers, "files": manifest["files"]}, "the stage score reads it in the manifest"


def test_overlap_leaves_training_with_its_turns_and_is_counted(tmp_path: Path) -> None:
    leaked, own = ["shall we go to the harbour tonight", "yes let us take the late ferry"], ["one", "two"]
    train = [[*leaked, *own], leaked, ["three", "four"]]
    prepare(tmp_path, {"train": train, "validation": [["x", "y"]], "test": [leaked, ["z", "w"]]})
    # With one test pair the leaked one is not chosen, but it counts all the same: overlap is with the whole test set.
    for test_pairs in (None, 1):
        done = choose(tmp_path, {"test_pairs": test_pairs}, drop_overlap=True)
        assert done.returncode == 0, done.stderr
        pairs = read_records(tmp_path / "subset/train.jsonl", Pair)
        assert [(pair.dialogue, pair.query) for pair in pairs] == [("train000", "one"), ("train002", "three")]
        turns = read_records(tmp_path / "subset/turns.jsonl", Dialogue)
        assert turns == [Dialogue("train000", own), Dialogue("train002", ["three", "four"])]
        assert report(tmp_path)["train"]["pairs_dropped_for_overlap"] == 2
        assert report(tmp_path)["train"]["dialogues_dropped_for_overlap"] == 1
        assert report(tmp_path)["drop_overlap"] is True
    assert choose(tmp_path, drop_overlap=False).returncode == 0
    assert len(read_records(tmp_path / "subset/train.jsonl", Pair)) == 4


def test_with_a_history_the_turns_of_kept_pairs_stay_and_empty_ones_go(tmp_path: Path) -> None:
    """The stages themselves: pair-extract tells subset of the history, and where empty turns are."""
    leaked = ["shall we go to the harbour tonight", "yes let us take the late ferry"]
    train = [[*leaked, "is it far", "", "no", "good"], ["one", "two"]]
    prepare_by_pair_extract(tmp_path, {"train": train, "validation": [["x", "y"]], "test": [leaked]}, history=2)
    assert choose(tmp_path, drop_overlap=True).returncode == 0
    queries = {pair.query for pair in read_records(tmp_path / "subset/train.jsonl", Pair)}
    assert queries == {" ".join(leaked), "no", "one"}  # the first pair overlaps and is dropped
    turns = {tuple(each.turns) for each in read_records(tmp_path / "subset/turns.jsonl", Dialogue)}
    assert turns == {(*leaked, "is it far", "no", "good"), ("one", "two")}


def test_a_regime_that_keeps_no_pair_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, {split: [["the same here", "and the same there"]] for split in ("train", "validation", "test")})
    done = choose(tmp_path, drop_overlap=True)
    assert done.returncode == 1
    assert "params.yaml: drop_overlap: all 1 training pairs of regime 100.0 overlap" in last_line(done)
    assert not (tmp_path / "subset").exists()
