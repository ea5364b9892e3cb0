"""Choose the dialogues and pairs of a regime: a seeded, nested part of the training dialogues (Sec. 4)."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import compress, groupby
from operator import gt
from typing import Any

import numpy as np

from stages.overlap import overlapping
from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, References

Chosen = dict[str, Iterable[Pair] | Iterable[Dialogue] | Iterable[References]]  # name of a file to write -> its records


def rank(seed: int, name: str) -> str:
    """Place of a name in the seeded permutation: the sha256 of seed and name, so other names do not change it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def regime_size(whole: int, regime: float) -> int:
    """`regime` percent of `whole`, rounded up, so that a regime is never empty (10 % of 11,118 is 1,112)."""
    return math.ceil(whole * Fraction(str(regime)) / 100)  # exact arithmetic: as a float, 0.1 is not a tenth


class Regime:
    """The training dialogues of a regime, as a limit on their places in the seeded permutation: 32 bytes for each.

    The 100 % are the first `whole` (None: all) dialogues with a pair, in the order of the seeded permutation. A regime
    is the first part of those, so it contains all smaller regimes of the same seed.
    """

    def __init__(self, pairs: Iterable[Pair], whole: int | None, regime: float, seed: int) -> None:
        self.seed = seed
        names = (name for name, _ in groupby(pairs, key=lambda pair: pair.dialogue))  # one that returns counts once
        ranks = np.unique(np.fromiter((bytes.fromhex(rank(seed, name)) for name in names), dtype="V32").view("S32"))
        self.of_corpus = len(ranks)
        self.of_100_percent = min(len(ranks), whole if whole is not None else len(ranks))
        self.size = regime_size(self.of_100_percent, regime)
        self.last = bytes(ranks[self.size - 1]).ljust(32, b"\0") if self.size else b""  # NumPy cuts zeros at the end

    def __contains__(self, name: object) -> bool:
        return bytes.fromhex(rank(self.seed, str(name))) <= self.last


def choose_pairs(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """The first `count` (None: all) pairs of the seeded permutation, sorted by dialogue and position."""
    chosen = sorted(pairs, key=lambda pair: rank(seed, f"{pair.dialogue}:{pair.position}"))[:count]
    return sorted(chosen, key=lambda pair: (pair.dialogue, pair.position))


def history_of(manifest: Mapping[str, Any]) -> int:
    """How many turns a query can have, as pair-extract says it in its manifest; it says nothing if that is one."""
    return int(manifest.get("history", 1))


def remaining_turns(
    dialogues: Iterable[Dialogue], kept: Iterable[Pair], dropped: Iterable[Pair], history: int = 1
) -> Iterator[Dialogue]:
    """The dialogues that keep a pair, without their empty turns and without the turns that are only in dropped pairs.

    A turn that a kept pair of its dialogue has too stays wherever it is said. Turns that are in no pair stay. Both
    lists of pairs are in the order of the dialogues, so that one dialogue is in memory at a time.

    Args:
        dialogues: those of turns.jsonl; with a history of more than one, their turns are at their positions.
        kept: the pairs to train on.
        dropped: those left out.
        history: how many turns a query can have.

    Raises:
        StageError: the pairs are in another order.
    """
    trained, gone = _BySide(kept, history), _BySide(dropped, history)
    for each in dialogues:
        turns, dropped_turns = trained.turns_of(each), gone.turns_of(each)
        if turns:
            without = dropped_turns - turns
            yield Dialogue(each.dialogue, [turn for turn in each.turns if turn and turn not in without])
    for side in (trained, gone):
        if side.name is not None:
            remedy = "remove its folder and run `dvc repro` again"
            raise StageError("turns.jsonl", f"no dialogue {side.name} where its pairs have it", remedy)


class _BySide:
    """The turns of pairs, dialogue by dialogue."""

    def __init__(self, pairs: Iterable[Pair], history: int) -> None:
        self.history = history
        self.groups = groupby(pairs, key=lambda pair: pair.dialogue)
        self.name: str | None
        self.pairs: Iterable[Pair]
        self._next()

    def _next(self) -> None:
        self.name, self.pairs = next(self.groups, (None, iter(())))

    def turns_of(self, dialogue: Dialogue) -> set[str]:
        """The turns of the pairs of this dialogue if it is the next one with pairs; otherwise none."""
        if self.name != dialogue.dialogue:
            return set()
        found = {turn for pair in self.pairs for turn in _turns_of(pair, dialogue, self.history)}
        self._next()
        return found


def _turns_of(pair: Pair, dialogue: Dialogue, history: int) -> Sequence[str]:
    """The turns that make a pair; with a history of more than one, its query can be several."""
    if history == 1:
        return (pair.query, pair.response)
    return dialogue.turns[max(0, pair.position + 1 - history) : pair.position + 2]


class Training:
    """The training pairs of the corpus, and for each of them what becomes of it: two bits of a byte."""

    def __init__(self, pairs: Iterable[Pair], regime: Regime) -> None:
        self.pairs = pairs
        groups = groupby(pairs, key=lambda pair: pair.dialogue)
        self.chosen = bytearray(name in regime for name, own in groups for _ in own)
        self.overlaps = bytearray(len(self.chosen))

    def drop_overlap(self, held_out: Sequence[Pair], regime: float) -> None:
        """Leave out the pairs that overlap the held-out pairs.

        Raises:
            StageError: all of them overlap.
        """
        found = overlapping(compress(self.pairs, self.chosen), held_out)
        self.overlaps = bytearray(chosen and next(found) for chosen in self.chosen)
        if not any(self.kept()):
            found_ = f"all {sum(self.chosen)} training pairs of regime {regime} overlap validation or test"
            raise StageError("params.yaml: drop_overlap", found_, "raise regime or set drop_overlap to false")

    def kept(self) -> Iterator[Pair]:
        """The pairs of the regime."""
        return compress(self.pairs, map(gt, self.chosen, self.overlaps))

    def dropped(self) -> Iterator[Pair]:
        """The pairs that overlap."""
        return compress(self.pairs, self.overlaps)


def references_of(pairs: list[Pair], references: list[References]) -> list[References]:
    """The further references of some pairs."""
    places = {(pair.dialogue, pair.position) for pair in pairs}
    return [each for each in references if (each.dialogue, each.position) in places]


def choose(
    pairs: Mapping[str, Sequence[Pair]],
    dialogues: Iterable[Dialogue],
    references: list[References],
    params: Params,
    history: int,
) -> tuple[Chosen, dict[str, Any]]:
    """The records of each file to write, and the report, which is complete when they have been written.

    Training pairs and dialogues are read several times, and need not be in memory. `history` is how many turns a query
    can have.
    """
    data, seed = params.chosen_protocol.data, params.seed
    regime = Regime(pairs["train"], data.train_dialogues, params.regime, seed)
    train = Training(pairs["train"], regime)
    if params.drop_overlap:  # with all validation and test pairs, even if the protocol uses only some of them
        train.drop_overlap([*pairs["validation"], *pairs["test"]], params.regime)
    validation = choose_pairs(pairs["validation"], data.validation_pairs, seed)
    test = choose_pairs(pairs["test"], data.test_pairs, seed)
    dropped = sum(train.overlaps)
    counts = {
        "pairs": sum(train.chosen) - dropped,
        "pairs_of_corpus": len(train.chosen),
        "dialogues": 0,
        "turns": 0,
        "dialogues_of_100_percent": regime.of_100_percent,
        "dialogues_of_corpus": regime.of_corpus,
        "pairs_dropped_for_overlap": dropped,
        "dialogues_dropped_for_overlap": regime.size,
    }

    def counted() -> Iterator[Dialogue]:
        for each in remaining_turns(dialogues, train.kept(), train.dropped(), history):
            counts["dialogues"] += 1
            counts["turns"] += len(each.turns)
            counts["dialogues_dropped_for_overlap"] -= 1
            yield each

    chosen: Chosen = {"train": train.kept(), "validation": validation, "test": test, "turns": counted()}
    if further := references_of(test, references):
        chosen["references"] = further
    report: dict[str, Any] = {"regime": params.regime, "drop_overlap": params.drop_overlap, "train": counts}
    for split, few in (("validation", validation), ("test", test)):
        report[split] = {"pairs": len(few), "pairs_of_corpus": len(pairs[split])}
    return chosen, report
