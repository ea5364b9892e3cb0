"""Pairs: both strides, no pair across an empty turn, and DailyDialog's published numbers."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.download.fetch import fetch_dialogues
from stages.pair_extract.pairs import facts_of, pairs_of, turns_to_write
from stages.params.schema import Pairs, parse_params
from stages.plumbing.files import check_folder, output_folder, sha256_of
from stages.records import Dialogue, Pair, References, read_records
from tests.helpers_data import ROOT, Done, last_line, run_module, shipped, write_params
from tests.tiny import tiny_dialogues, write_jsonl

DAILYDIALOG = ROOT.parent / "shared/dailydialog"
SPLITS = ("train", "validation", "test")
ARGUMENTS = ("--dialogues", "dialogues", "--pairs", "pairs", "--report", "metrics/pairs.json")


@pytest.mark.parametrize(
    ("stride", "turns", "expected", "skipped"),
    [
        (2, "abcde", ["ab", "cd"], 0),
        (1, "abcde", ["ab", "bc", "cd", "de"], 0),
        (2, "ab", ["ab"], 0),
        (1, "ab", ["ab"], 0),
        (2, "a", [], 0),
        (2, "", [], 0),
        (2, "a cdef", ["cd", "ef"], 1),  # turn 1 is empty: (c, d) keeps position 2, and (a, c) is no pair
        (2, "ab def", ["ab", "ef"], 1),
        (1, "ab def", ["ab", "de", "ef"], 2),
        (1, " bc", ["bc"], 1),
    ],
)
def test_pairs_keep_their_positions_and_never_cross_a_hole(
    stride: int, turns: str, expected: list[str], skipped: int
) -> None:
    dialogue = Dialogue("x", [turn.strip() for turn in turns])
    pairs, count = pairs_of(dialogue, Pairs(stride=stride, history=1, joined_by=" "))  # type: ignore[arg-type]
    assert [pair.query + pair.response for pair in pairs] == expected
    assert count == skipped
    for pair in pairs:
        assert pair.dialogue == "x"
        assert pair.position % stride == 0
        assert turns[pair.position : pair.position + 2] == pair.query + pair.response


@pytest.mark.parametrize(
    ("history", "joined_by", "queries"),
    [
        (1, " ", ["a", "c", "e"]),
        (2, " ", ["a", "b c", "d e"]),
        (3, " / ", ["a", "a / b / c", "c / d / e"]),
        (9, " ", ["a", "a b c", "a b c d e"]),
    ],
)
def test_the_query_is_as_many_turns_before_the_response_as_the_history_says(
    history: int, joined_by: str, queries: list[str]
) -> None:
    pairs, _ = pairs_of(Dialogue("x", list("abcdef")), Pairs(stride=2, history=history, joined_by=joined_by))
    assert [pair.query for pair in pairs] == queries
    assert [pair.response for pair in pairs] == ["b", "d", "f"]
    (holed, *_), _ = pairs_of(Dialogue("x", ["a", "", "c", "d"]), Pairs(stride=1, history=3, joined_by=" "))
    assert holed.query == "a c"


@pytest.mark.parametrize(
    ("history", "facts", "turns"), [(1, {}, ["a", "c", "d"]), (2, {"history": 2}, ["a", "", "c", "d"])]
)
def test_with_a_history_empty_turns_keep_their_places_and_the_manifest_says_how_long_it_is(
    history: int, facts: dict[str, int], turns: list[str]
) -> None:
    settings = Pairs(stride=2, history=history, joined_by=" ")
    assert facts_of(settings) == facts
    assert list(turns_to_write([Dialogue("x", ["a", "", "c", "d"])], settings)) == [Dialogue("x", turns)]


def pinned(files: dict[str, Path]) -> dict[str, Any]:
    return {name: {"path": path.name, "sha256": sha256_of(path)} for name, path in files.items()}


def prepare(folder: Path, dataset: dict[str, Any], stride: int = 2) -> None:
    """Make a project with a `dialogues/` folder as the download stage writes it."""
    params = shipped()
    params["datasets"]["x"] = dataset
    write_params(folder, params | {"dataset": "x", "pairs": {"stride": stride, "history": 1, "joined_by": " "}})


def extract(folder: Path, **variables: str) -> Done:
    return run_module("stages.pair_extract", folder, ARGUMENTS, **variables)


def jsonl_project(folder: Path, corpus: list[list[str]], stride: int = 2, references: str | None = None) -> None:
    folder.mkdir(exist_ok=True)
    split = {"validation": 5, "test": 5, "seed": 0}
    dataset: dict[str, Any] = {"format": "jsonl", "source": "file:x", "split": split}
    with output_folder(folder / "dialogues") as dialogues:
        path = write_jsonl(dialogues / "all.jsonl", corpus)
        dataset["files"] = pinned({"all": path})
        if references is not None:
            (dialogues / "references.jsonl").write_text(references, encoding="utf-8")
            dataset["files"]["references"] = pinned({"r": dialogues / "references.jsonl"})["r"]
    prepare(folder, dataset, stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_stage_writes_pairs_the_training_turns_and_a_report(stride: int, tmp_path: Path) -> None:
    corpus = [*tiny_dialogues(30), ["only"], ["a", "", "c", "d"]]
    jsonl_project(tmp_path, corpus, stride)
    done = extract(tmp_path)
    assert done.returncode == 0, done.stderr
    check_folder(tmp_path / "pairs")
    report = json.loads((tmp_path / "metrics/pairs.json").read_bytes())
    assert report["stride"] == stride
    assert report["files"]["all"]["dialogues"] == 32
    assert report["files"]["all"]["unusable_dialogues"] == 1
    neighbours = {pair for turns in corpus for pair in enumerate(pairwise(turns))}
    for split in SPLITS:
        pairs = read_records(tmp_path / f"pairs/{split}.jsonl", Pair)
        assert len(pairs) == report[split]["pairs"]
        assert {(pair.position, (pair.query, pair.response)) for pair in pairs} <= neighbours
    turns = read_records(tmp_path / "pairs/turns.jsonl", Dialogue)
    assert {pair.dialogue for pair in read_records(tmp_path / "pairs/train.jsonl", Pair)} == {t.dialogue for t in turns}
    assert all(turn for each in turns for turn in each.turns)
    assert sum(report[split]["pairs_skipped_for_empty_turn"] for split in SPLITS) == (1 if stride == 2 else 2)


def test_further_references_of_test_pairs_are_written_and_reported(tmp_path: Path) -> None:
    jsonl_project(tmp_path, tiny_dialogues(30))
    assert extract(tmp_path).returncode == 0
    assert not (tmp_path / "pairs/references.jsonl").exists()
    assert "references" not in json.loads((tmp_path / "metrics/pairs.json").read_bytes())
    pair = read_records(tmp_path / "pairs/test.jsonl", Pair)[-1]
    lines = [
        {"dialogue": pair.dialogue, "position": pair.position, "references": ["So it is .", pair.response]},
        {"query": "nobody asked this", "references": ["no"]},
    ]
    jsonl_project(tmp_path, tiny_dialogues(30), references="".join(json.dumps(line) + "\n" for line in lines))
    done = extract(tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_records(tmp_path / "pairs/references.jsonl", References)
    assert found == [References(pair.dialogue, pair.position, ["So it is ."])]
    report = json.loads((tmp_path / "metrics/pairs.json").read_bytes())["references"]
    assert (report["lines"], report["pairs"], report["references"]) == (2, 1, 1)
    assert (report["unmatched"]["first"], report["duplicate"]["references"]) == (["line 2"], 1)
    assert "1 further references for 1 test pairs; not used: 1 unmatched" in done.stdout


def test_a_shuffled_corpus_and_another_hash_seed_give_the_same_bytes(tmp_path: Path) -> None:
    corpus = [*tiny_dialogues(40), *tiny_dialogues(3)]
    outputs = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        jsonl_project(folder, random.Random(seed).sample(corpus, len(corpus)))
        done = extract(folder, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        outputs.append({path.name: path.read_bytes() for path in (folder / "pairs").iterdir()})
        outputs[-1]["report"] = (folder / "metrics/pairs.json").read_bytes()
    assert outputs[0] == outputs[1]


def test_a_split_without_a_pair_is_refused_and_the_earlier_output_stays(tmp_path: Path) -> None:
    jsonl_project(tmp_path, tiny_dialogues(30))
    assert extract(tmp_path).returncode == 0
    before = check_folder(tmp_path / "pairs")
    jsonl_project(tmp_path, [[f"{number}", "", "x"] for number in range(30)])
    done = extract(tmp_path)
    assert done.returncode == 1
    assert last_line(done) == (
        "ERROR pair-extract: dialogues: train: no pair among 20 usable dialogues; a pair needs two neighbouring turns"
    )
    assert check_folder(tmp_path / "pairs") == before


@pytest.mark.skipif(not DAILYDIALOG.is_dir(), reason="no folder with DailyDialog next to this repository")
def test_dailydialog_gives_its_published_numbers_of_pairs_from_a_local_folder(tmp_path: Path) -> None:
    texts = {split: DAILYDIALOG / f"dialogues_{split}.txt" for split in SPLITS}
    params = shipped()
    params["datasets"]["x"] = {"format": "eou", "source": f"file:{DAILYDIALOG}", "files": pinned(texts)}
    params["dataset"] = "x"
    with output_folder(tmp_path / "dialogues") as folder:
        fetch_dialogues(parse_params(params), folder)
    found = {}
    for stride in (2, 1):
        write_params(tmp_path, params | {"pairs": {"stride": stride, "history": 1, "joined_by": " "}})
        assert extract(tmp_path).returncode == 0
        found[stride] = json.loads((tmp_path / "metrics/pairs.json").read_bytes())
    assert [found[2][split]["pairs"] for split in SPLITS] == [41_637, 3_851, 3_700]
    assert [found[1][split]["pairs"] for split in SPLITS] == [76_052, 7_069, 6_740]
    assert found[2]["train"]["dialogues"] == 11_118
    assert found[2]["train"]["turns"] == 87_170
