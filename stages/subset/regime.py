"""Choose the dialogues and pairs of a regime: a seeded, nested part of the training dialogues (Sec. 4)."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from stages.overlap import overlapping
from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, each_record, read_records, read_references


def rank(seed: int, name: str) -> bytes:
    """Place of a name in the seeded permutation: the sha256 of seed and name, so other names do not change it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def choose_dialogues(names: Iterable[str], whole: int | None, regime: float, seed: int) -> tuple[list[str], int]:
    """The dialogues of a regime, and the number of the 100 %.

    The 100 % are the first `whole` (None: all) of the seeded permutation. A regime is the first part of those, rounded
    up, so it is never empty and contains all smaller regimes of the same seed.
    """
    ranked = sorted(names, key=lambda name: rank(seed, name))[:whole]
    size = math.ceil(len(ranked) * Fraction(str(regime)) / 100)  # exact: as a float, 0.1 is not a tenth
    return ranked[:size], len(ranked)


def choose_pairs(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """The first `count` (None: all) pairs of the seeded permutation, sorted by dialogue and position."""
    chosen = sorted(pairs, key=lambda pair: rank(seed, f"{pair.dialogue}:{pair.position}"))[:count]
    return sorted(chosen, key=lambda pair: (pair.dialogue, pair.position))


def remaining_turns(
    dialogues: Iterable[Dialogue], pairs: Iterable[tuple[Pair, bool]], history: int, counts: dict[str, int]
) -> Iterator[Dialogue]:
    """The dialogues that keep a pair, without their empty turns and without the turns that are only in dropped pairs.

    A turn that a kept pair of its dialogue has too stays wherever it is said. Turns that are in no pair stay. One
    dialogue is in memory at a time.

    Args:
        dialogues: those of turns.jsonl, their turns at their positions.
        pairs: those of the regime, in the order of the dialogues, and whether each is dropped.
        history: how many turns a query can have.
        counts: what remains, and how many dialogues do not, is added to it.
    """
    rest = iter(dialogues)
    for name, group in groupby(pairs, key=lambda each: each[0].dialogue):
        own = next(each for each in rest if each.dialogue == name)
        kept, gone = set[str](), set[str]()
        for pair, dropped in group:
            (gone if dropped else kept).update(own.turns[max(0, pair.position + 1 - history) : pair.position + 2])
        if not kept:
            counts["dialogues_dropped_for_overlap"] += 1
            continue
        turns = [turn for turn in own.turns if turn and turn not in gone - kept]
        counts["dialogues"] += 1
        counts["turns"] += len(turns)
        yield Dialogue(name, turns)


def choose(folder: Path, params: Params) -> tuple[dict[str, Iterable[Any]], dict[str, Any]]:
    """Name of each file to write -> its records, and the report, which is complete when they have been written.

    Training pairs are read several times from the folder of the stage pair-extract, and are never all in memory.

    Raises:
        StageError: all training pairs overlap the held-out ones.
    """
    data, seed = params.chosen_protocol.data, params.seed
    train = partial(each_record, folder / "train.jsonl", Pair)
    held_out = {split: read_records(folder / f"{split}.jsonl", Pair) for split in ("validation", "test")}
    of_dialogue = Counter(pair.dialogue for pair in train())
    regime, whole = choose_dialogues(of_dialogue, data.train_dialogues, params.regime, seed)
    names, count = set(regime), sum(of_dialogue[name] for name in regime)

    def chosen() -> Iterator[Pair]:
        return (pair for pair in train() if pair.dialogue in names)

    drop = [False] * count
    if params.drop_overlap:  # with all validation and test pairs, even if the protocol uses only some of them
        drop = list(overlapping(chosen(), [*held_out["validation"], *held_out["test"]]))
    if all(drop):
        found = f"all {count} training pairs of regime {params.regime} overlap validation or test"
        raise StageError("params.yaml: drop_overlap", found, "raise regime or set drop_overlap to false")
    counts = {
        "pairs": count - sum(drop),
        "pairs_of_corpus": of_dialogue.total(),
        "dialogues": 0,
        "turns": 0,
        "dialogues_of_100_percent": whole,
        "dialogues_of_corpus": len(of_dialogue),
        "pairs_dropped_for_overlap": sum(drop),
        "dialogues_dropped_for_overlap": 0,
    }
    kept = (pair for pair, dropped in zip(chosen(), drop, strict=True) if not dropped)
    dialogues = each_record(folder / "turns.jsonl", Dialogue)
    turns = remaining_turns(dialogues, zip(chosen(), drop, strict=True), params.pairs.history, counts)
    written: dict[str, Iterable[Any]] = {"train": kept, "turns": turns}
    report: dict[str, Any] = {"regime": params.regime, "drop_overlap": params.drop_overlap, "train": counts}
    for split, limit in (("validation", data.validation_pairs), ("test", data.test_pairs)):
        written[split] = few = choose_pairs(held_out[split], limit, seed)
        report[split] = {"pairs": len(few), "pairs_of_corpus": len(held_out[split])}
    places = {(pair.dialogue, pair.position) for pair in written["test"]}
    if further := [each for each in read_references(folder) if (each.dialogue, each.position) in places]:
        written["references"] = further
    return written, report
