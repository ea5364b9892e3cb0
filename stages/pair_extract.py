"""Dialogues become pairs of a query and its response: "every two steps in a conversation" (Sec. 4).

Writes {train,validation,test}.jsonl (a Pair a line) and turns.jsonl (all turns of the training dialogues).
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.core.corpora import read_corpus
from stages.core.errors import StageError, run_stage
from stages.core.files import check_folder, output_folder, write_json
from stages.core.params import load_params
from stages.core.records import SPLITS, Dialogue, Pair, write_records


def pairs_of(dialogue: Dialogue, stride: int) -> tuple[list[Pair], int]:
    """The pairs of one dialogue, and how many were skipped because one of their turns is empty.

    Turns t0 t1 t2 t3 t4 give (t0, t1), (t2, t3) with stride 2 and (t0, t1), (t1, t2), (t2, t3), (t3, t4) with
    stride 1. A skipped pair leaves the positions of the others as they are.
    """
    turns = dialogue.turns
    positions = range(0, len(turns) - 1, stride)
    pairs = [Pair(dialogue.dialogue, at, turns[at], turns[at + 1]) for at in positions if turns[at] and turns[at + 1]]
    return pairs, len(positions) - len(pairs)


def extract(dialogues: Iterable[Dialogue], stride: int) -> tuple[list[Pair], dict[str, int]]:
    """The pairs of one split, and its counts for the report."""
    pairs: list[Pair] = []
    counts = {"dialogues": 0, "turns": 0, "pairs": 0, "dialogues_without_pair": 0, "pairs_skipped_for_empty_turn": 0}
    for dialogue in dialogues:
        found, skipped = pairs_of(dialogue, stride)
        pairs += found
        counts["dialogues"] += 1
        counts["turns"] += sum(1 for turn in dialogue.turns if turn)
        counts["pairs"] += len(found)
        counts["dialogues_without_pair"] += not found
        counts["pairs_skipped_for_empty_turn"] += skipped
    return pairs, counts


def main(arguments: argparse.Namespace) -> None:
    """Read the corpus, write its pairs and their report."""
    params = load_params()
    check_folder(arguments.dialogues)
    corpus, read = read_corpus(f"datasets.{params.dataset}", params.chosen_dataset, arguments.dialogues)
    report: dict[str, Any] = {"stride": params.pairs.stride, "files": {name: dict(read[name]) for name in read}}
    with output_folder(arguments.pairs) as folder:
        for split in SPLITS:
            pairs, report[split] = extract(corpus[split], params.pairs.stride)
            if not pairs:
                found = f"no pair among {len(corpus[split])} usable dialogues"
                raise StageError(f"{arguments.dialogues}: {split}", found, "a pair needs two neighbouring turns")
            write_records(folder / f"{split}.jsonl", pairs)
        turns = (Dialogue(each.dialogue, [turn for turn in each.turns if turn]) for each in corpus["train"])
        write_records(folder / "turns.jsonl", turns)
    write_json(arguments.report, report)
    print(", ".join(f"{report[split]['pairs']} {split} pairs" for split in SPLITS))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=Path, required=True, help="folder of the download stage")
    parser.add_argument("--pairs", type=Path, required=True, help="folder to write")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write: what was counted and skipped")
    run_stage("pair-extract", parser, main)
