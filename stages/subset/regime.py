"""Choose the dialogues and pairs of a regime: a seeded, nested part of the training dialogues (Sec. 4)."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
from datasets import Dataset

from stages.overlap import overlapping
from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.records import SPLITS, Dialogue, Pair, load_records, read_records, read_references, records_of

Chosen = dict[str, Iterable[Any]]  # name of a file to write -> its records


def rank(seed: int, name: str) -> bytes:
    """Place of a name in the seeded permutation: the sha256 of seed and name, so other names do not change it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def regime_size(whole: int, regime: float) -> int:
    """`regime` percent of `whole`, rounded up, so that a regime is never empty (10 % of 11,118 is 1,112)."""
    return math.ceil(whole * Fraction(str(regime)) / 100)  # exact arithmetic: as a float, 0.1 is not a tenth


def choose_dialogues(names: Iterable[str], whole: int | None, regime: float, seed: int) -> tuple[list[str], int]:
    """The dialogues of a regime, and the number of the 100 %.

    The 100 % are the first `whole` (None: all) in the order of the seeded permutation. A regime is the first part of
    those, so it contains all smaller regimes of the same seed.
    """
    ranked = sorted(names, key=lambda name: rank(seed, name))[:whole]
    return ranked[: regime_size(len(ranked), regime)], len(ranked)


def choose_pairs(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """The first `count` (None: all) pairs of the seeded permutation, sorted by dialogue and position."""
    chosen = sorted(pairs, key=lambda pair: rank(seed, f"{pair.dialogue}:{pair.position}"))[:count]
    return sorted(chosen, key=lambda pair: (pair.dialogue, pair.position))


def remaining_turns(
    dialogues: Iterable[Dialogue], kept: Iterable[Pair], dropped: Iterable[Pair], history: int = 1
) -> Iterator[Dialogue]:
    """The dialogues that keep a pair, without their empty turns and without the turns that are only in dropped pairs.

    A turn that a kept pair of its dialogue has too stays wherever it is said. Turns that are in no pair stay. All three
    are in the same order, so that one dialogue is in memory at a time.

    Args:
        dialogues: those of turns.jsonl; with a history of more than one, their turns are at their positions.
        kept: the pairs to train on.
        dropped: those left out.
        history: how many turns a query can have.
    """
    sides = [groupby(pairs, key=lambda pair: pair.dialogue) for pairs in (kept, dropped)]
    following = [next(side, None) for side in sides]
    for each in dialogues:
        own: list[set[str]] = [set(), set()]
        for number, group in enumerate(following):
            if group is not None and group[0] == each.dialogue:
                own[number] = {turn for pair in group[1] for turn in _turns_of(pair, each, history)}
                following[number] = next(sides[number], None)
        trained, gone = own
        if trained:
            yield Dialogue(each.dialogue, [turn for turn in each.turns if turn and turn not in gone - trained])


def _turns_of(pair: Pair, dialogue: Dialogue, history: int) -> Sequence[str]:
    """The turns that make a pair; with a history of more than one, its query can be several."""
    if history == 1:
        return (pair.query, pair.response)
    return dialogue.turns[max(0, pair.position + 1 - history) : pair.position + 2]


def _without_overlap(chosen: Dataset, held_out: Sequence[Pair], regime: float) -> tuple[Dataset, Dataset]:
    """The pairs that overlap no held-out pair, and the others."""
    overlap = np.fromiter(overlapping(records_of(chosen, Pair), held_out), bool, count=len(chosen))
    if overlap.all():
        found = f"all {len(chosen)} training pairs of regime {regime} overlap validation or test"
        raise StageError("params.yaml: drop_overlap", found, "raise regime or set drop_overlap to false")
    return chosen.select(np.flatnonzero(~overlap)), chosen.select(np.flatnonzero(overlap))


def choose(folder: Path, params: Params, history: int, scratch: Path) -> tuple[Chosen, dict[str, Any]]:
    """The records of each file to write, and the report, which is complete when they have been written.

    Args:
        folder: of the stage pair-extract.
        params: the parameters.
        history: how many turns a query can have.
        scratch: a folder for what is too large for memory.

    Raises:
        StageError: all training pairs overlap the held-out ones.
    """
    data, seed = params.chosen_protocol.data, params.seed
    train = load_records(folder / "train.jsonl", Pair, scratch)
    held_out = {split: read_records(folder / f"{split}.jsonl", Pair) for split in SPLITS if split != "train"}
    with_pair = train.unique("dialogue")
    regime, whole = choose_dialogues(with_pair, data.train_dialogues, params.regime, seed)
    names = train.with_format("arrow")[:]["dialogue"]
    kept = chosen = train.select(np.flatnonzero(pyarrow.compute.is_in(names, pyarrow.array(regime))))
    dropped = chosen.select([])
    if params.drop_overlap:  # with all validation and test pairs, even if the protocol uses only some of them
        kept, dropped = _without_overlap(chosen, [*held_out["validation"], *held_out["test"]], params.regime)
    counts = {
        "pairs": len(kept),
        "pairs_of_corpus": len(train),
        "dialogues": 0,
        "turns": 0,
        "dialogues_of_100_percent": whole,
        "dialogues_of_corpus": len(with_pair),
        "pairs_dropped_for_overlap": len(dropped),
        "dialogues_dropped_for_overlap": len(regime),
    }

    def turns() -> Iterator[Dialogue]:
        dialogues = records_of(load_records(folder / "turns.jsonl", Dialogue, scratch), Dialogue)
        for each in remaining_turns(dialogues, records_of(kept, Pair), records_of(dropped, Pair), history):
            counts["dialogues"] += 1
            counts["turns"] += len(each.turns)
            counts["dialogues_dropped_for_overlap"] -= 1
            yield each

    written: Chosen = {"train": records_of(kept, Pair), "turns": turns()}
    report: dict[str, Any] = {"regime": params.regime, "drop_overlap": params.drop_overlap, "train": counts}
    for split, limit in (("validation", data.validation_pairs), ("test", data.test_pairs)):
        written[split] = few = choose_pairs(held_out[split], limit, seed)
        report[split] = {"pairs": len(few), "pairs_of_corpus": len(held_out[split])}
    places = {(pair.dialogue, pair.position) for pair in written["test"]}
    if further := [each for each in read_references(folder) if (each.dialogue, each.position) in places]:
        written["references"] = further
    return written, report
