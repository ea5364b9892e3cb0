"""Pairs: both strides, and no pair across an empty turn."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.pair_extract.__main__ import main
from stages.pair_extract.corpora import content_id
from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, output_folder
from stages.records import SPLITS, Dialogue, Pair, References, read_records
from tests.pair_extract.corpus import entry
from tests.tiny import shipped_params, tiny_dialogues, write_jsonl, write_yaml


@pytest.mark.parametrize(
    ("stride", "turns", "expected", "skipped"),
    [
        (2, "abcde", ["ab", "cd"], 0),
        (1, "abcde", ["ab", "bc", "cd", "de"], 0),
        (2, "a", [], 0),
        (2, "a cdef", ["cd", "ef"], 1),  # turn 1 is empty: (c, d) keeps position 2, and (a, c) is no pair
        (1, "ab def", ["ab", "de", "ef"], 2),
    ],
)
def test_pairs_never_cross_a_hole(stride: int, turns: str, expected: list[str], skipped: int) -> None:
    dialogue = Dialogue("x", [turn.strip() for turn in turns])
    pairs, count = pairs_of(dialogue, Pairs(stride=stride, history=1, joined_by=" "))  # type: ignore[arg-type]
    assert [pair.query + pair.response for pair in pairs] == expected
    assert count == skipped
    for pair in pairs:
        assert pair.dialogue == "x"
        assert turns[pair.position : pair.position + 2] == pair.query + pair.response


@pytest.mark.parametrize(
    ("history", "joined_by", "queries"),
    [(1, " ", ["a", "c", "e"]), (3, " / ", ["a", "a / b / c", "c / d / e"]), (9, " ", ["a", "a b c", "a b c d e"])],
)
def test_the_query_has_as_many_turns_as_the_history_says(history: int, joined_by: str, queries: list[str]) -> None:
    pairs, _ = pairs_of(Dialogue("x", list("abcdef")), Pairs(stride=2, history=history, joined_by=joined_by))
    assert [pair.query for pair in pairs] == queries
    assert [pair.response for pair in pairs] == ["b", "d", "f"]
    (holed, *_), _ = pairs_of(Dialogue("x", ["a", "", "c", "d"]), Pairs(stride=1, history=3, joined_by=" "))
    assert holed.query == "a c"


def of_jsonl(folder: Path, corpus: Sequence[Any], stride: int = 2, references: str | None = None) -> dict[str, Any]:
    """Run the stage on a corpus as the download stage leaves it; return its report."""
    params = shipped_params()
    params["datasets"]["x"] = entry("jsonl", ["all"] if references is None else ["all", "references"]).model_dump()
    with output_folder(folder / "dialogues") as dialogues:
        write_jsonl(dialogues / "all.jsonl", corpus)
        if references is not None:
            (dialogues / "references.jsonl").write_text(references, encoding="utf-8")
    write_yaml(
        folder / "params.yaml", params | {"dataset": "x", "pairs": {"stride": stride, "history": 1, "joined_by": " "}}
    )
    with contextlib.chdir(folder):
        main(argparse.Namespace(dialogues=Path("dialogues"), pairs=Path("pairs"), report=Path("metrics/pairs.json")))
    check_folder(folder / "pairs")
    report: dict[str, Any] = json.loads((folder / "metrics/pairs.json").read_bytes())
    return report


@pytest.mark.parametrize("stride", [1, 2])
def test_the_stage_writes_pairs_and_a_report(stride: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = ["x", {"role": "system", "content": "Be kind."}, "y", "z\nz"]
    corpus = [*tiny_dialogues(30), ["only"], ["a", "", "c", "d"]]
    report = of_jsonl(tmp_path, [*corpus, chat], stride)
    assert report["stride"] == stride
    counted = {name: report["files"]["all"][name] for name in ("dialogues", "unusable_dialogues", "system_turns")}
    assert counted == {"dialogues": 33, "unusable_dialogues": 1, "system_turns": 1}
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == ["1 system turns left out", "1 turns of several lines are one line now"]
    neighbours = {pair for turns in [*corpus, ["x", "y", "z z"]] for pair in enumerate(pairwise(turns))}
    for split in SPLITS:
        pairs = read_records(tmp_path / f"pairs/{split}.jsonl", Pair)
        assert len(pairs) == report[split]["pairs"]
        assert {(pair.position, (pair.query, pair.response)) for pair in pairs} <= neighbours
    turns = read_records(tmp_path / "pairs/turns.jsonl", Dialogue)
    assert {pair.dialogue for pair in read_records(tmp_path / "pairs/train.jsonl", Pair)} == {t.dialogue for t in turns}
    assert any("" in each.turns for each in turns), "turns keep their positions"
    assert sum(report[split]["pairs_skipped_for_empty_turn"] for split in SPLITS) == (1 if stride == 2 else 2)


def test_further_references_are_written_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "references" not in of_jsonl(tmp_path, tiny_dialogues(30))
    assert not (tmp_path / "pairs/references.jsonl").exists()
    pair = read_records(tmp_path / "pairs/test.jsonl", Pair)[-1]
    (turns,) = (each for each in tiny_dialogues(30) if content_id(each) == pair.dialogue)
    said = [{"text": turn, "responses": ["So it is ."] if at == pair.position else []} for at, turn in enumerate(turns)]
    lines = [{"dialogue": said}, {"dialogue": [{"text": "nobody asked this", "responses": ["no"]}]}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    report = of_jsonl(tmp_path, tiny_dialogues(30), references=text)["references"]
    found = read_records(tmp_path / "pairs/references.jsonl", References)
    assert found == [References(pair.dialogue, pair.position, ["So it is ."])]
    assert report == {"references": 1, "pairs": 1, "unmatched": 1, "first_unmatched_lines": [2]}
    assert "1 further references for 1 test pairs; 1 dialogues unmatched" in capsys.readouterr().out


def test_a_split_without_a_pair_is_refused_and_the_earlier_output_stays(tmp_path: Path) -> None:
    of_jsonl(tmp_path, tiny_dialogues(30))
    before = check_folder(tmp_path / "pairs")
    with pytest.raises(StageError, match=r"^dialogues: train: no pair among 28 usable "):
        of_jsonl(tmp_path, [[f"{number}", "", "x"] for number in range(30)])
    assert check_folder(tmp_path / "pairs") == before
