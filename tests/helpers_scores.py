"""DailyDialog as pairs, and folders like those that the score stage reads."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from stages.pair_extract.pairs import each_pair
from stages.params.schema import Pairs
from stages.plumbing.files import output_folder
from stages.records import Dialogue, Fit, Pair, References, Response, single_line, write_records
from stages.similarity.lookup import Lookup

ROOT = Path(__file__).resolve().parents[1]
DAILYDIALOG = ROOT.parent / "shared/dailydialog"
needs_dailydialog = pytest.mark.skipif(not DAILYDIALOG.is_dir(), reason="no folder with DailyDialog's text files")


def pair(query: str, response: str) -> Pair:
    return Pair("d", 0, query, response)


def pairs_in(dialogues: Iterable[Dialogue]) -> list[Pair]:
    return list(each_pair(dialogues, Pairs(stride=2, history=1, joined_by=" "), {}))


def look_up(train: Sequence[Pair], queries: Sequence[str]) -> list[str]:
    known = Dataset.from_list([vars(each) for each in train])
    return [best.response for (best,) in Lookup(known).nearest(queries)]


@functools.cache
def dailydialog(split: str) -> tuple[list[Dialogue], list[Pair]]:
    lines = (DAILYDIALOG / f"dialogues_{split}.txt").read_text(encoding="utf-8").splitlines()
    turns = [[single_line(turn) for turn in line.split("__eou__") if turn.strip()] for line in lines]
    dialogues = [Dialogue(f"{split}-{number}", each) for number, each in enumerate(turns)]
    return dialogues, pairs_in(dialogues)


def write_subset(
    folder: Path,
    train: Iterable[Pair],
    test_pairs: Iterable[Pair],
    turns: Iterable[Dialogue],
    references: Iterable[References] = (),
    **facts: Any,
) -> Path:
    with output_folder(folder, **facts) as temporary:
        write_records(temporary / "train.jsonl", train)
        write_records(temporary / "validation.jsonl", [])
        write_records(temporary / "test.jsonl", test_pairs)
        write_records(temporary / "turns.jsonl", turns)
        if listed := list(references):
            write_records(temporary / "references.jsonl", listed)
    return folder


def write_responses(
    folder: Path,
    test: Sequence[Pair],
    responses: Sequence[str],
    unended: Sequence[bool] | None = None,
    losses: Sequence[tuple[float, int] | tuple[None, None]] | None = None,
    fits: Iterable[Fit] = (),
    **facts: int,
) -> Path:
    flags = unended if unended is not None else [None] * len(responses)
    answers = [
        Response(each.dialogue, each.position, each.query, each.response, response, flag, *loss)
        for each, response, flag, loss in zip(test, responses, flags, losses or [(None, None)] * len(test), strict=True)
    ]
    with output_folder(folder, **facts) as temporary:
        write_records(temporary / "responses.jsonl", answers)
        write_records(temporary / "fits.jsonl", fits)
    return folder
