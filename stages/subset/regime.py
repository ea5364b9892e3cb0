"""Choose the dialogues and pairs of a regime: a seeded, nested part of the training dialogues (Sec. 4)."""

import hashlib
import math
from collections import defaultdict
from fractions import Fraction
from typing import Any

from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.records import SPLITS, Dialogue, Pair, References

Chosen = dict[str, list[Pair] | list[Dialogue] | list[References]]  # name of a file to write -> its records


def rank(seed: int, name: str) -> str:
    """Place of a name in the seeded permutation: the sha256 of seed and name, so other names do not change it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def regime_size(whole: int, regime: float) -> int:
    """`regime` percent of `whole`, rounded up, so that a regime is never empty (10 % of 11,118 is 1,112)."""
    return math.ceil(whole * Fraction(str(regime)) / 100)  # exact arithmetic: as a float, 0.1 is not a tenth


def choose_dialogues(pairs: list[Pair], whole: int | None, regime: float, seed: int) -> tuple[set[str], int]:
    """Ids of the training dialogues of a regime, and the number of dialogues that are its 100 %.

    The 100 % are the first `whole` (None: all) dialogues with a pair, in the order of the seeded permutation. A regime
    is the first part of those, so it contains all smaller regimes of the same seed.
    """
    names = sorted({pair.dialogue for pair in pairs}, key=lambda name: rank(seed, name))[:whole]
    return set(names[: regime_size(len(names), regime)]), len(names)


def choose_pairs(pairs: list[Pair], count: int | None, seed: int) -> list[Pair]:
    """The first `count` (None: all) pairs of the seeded permutation, sorted by dialogue and position."""
    chosen = sorted(pairs, key=lambda pair: rank(seed, f"{pair.dialogue}:{pair.position}"))[:count]
    return sorted(chosen, key=lambda pair: (pair.dialogue, pair.position))


def remaining_turns(dialogues: list[Dialogue], kept: list[Pair], dropped: list[Pair]) -> list[Dialogue]:
    """The dialogues that keep a pair, without the turns that are only in dropped pairs."""
    trained: dict[str, set[str]] = defaultdict(set)
    gone: dict[str, set[str]] = defaultdict(set)
    for pair in kept:
        trained[pair.dialogue] |= {pair.query, pair.response}
    for pair in dropped:
        gone[pair.dialogue] |= {pair.query, pair.response}
    return [
        Dialogue(each.dialogue, [turn for turn in each.turns if turn not in gone[name] - trained[name]])
        for each in dialogues
        if (name := each.dialogue) in trained
    ]


def without_overlap(candidates: list[Pair], held_out: list[Pair], regime: float) -> tuple[list[Pair], list[Pair]]:
    """Split the training pairs into those that do not overlap the held-out pairs, and those that do.

    Raises:
        StageError: all of them overlap.
    """
    from stages.overlap import overlapping  # scikit-learn takes seconds to load, and few runs need it

    overlaps = overlapping(candidates, held_out)
    kept = [pair for pair, overlap in zip(candidates, overlaps, strict=True) if not overlap]
    dropped = [pair for pair, overlap in zip(candidates, overlaps, strict=True) if overlap]
    if not kept:
        found = f"all {len(dropped)} training pairs of regime {regime} overlap validation or test"
        raise StageError("params.yaml: drop_overlap", found, "raise regime or set drop_overlap to false")
    return kept, dropped


def references_of(pairs: list[Pair], references: list[References]) -> list[References]:
    """The further references of some pairs."""
    places = {(pair.dialogue, pair.position) for pair in pairs}
    return [each for each in references if (each.dialogue, each.position) in places]


def choose(
    pairs: dict[str, list[Pair]], dialogues: list[Dialogue], references: list[References], params: Params
) -> tuple[Chosen, dict[str, Any]]:
    """The records of each file to write, and the report."""
    data, seed = params.chosen_protocol.data, params.seed
    names, whole = choose_dialogues(pairs["train"], data.train_dialogues, params.regime, seed)
    train = [pair for pair in pairs["train"] if pair.dialogue in names]
    dropped: list[Pair] = []
    if params.drop_overlap:  # with all validation and test pairs, even if the protocol uses only some of them
        train, dropped = without_overlap(train, pairs["validation"] + pairs["test"], params.regime)
    turns = remaining_turns(dialogues, train, dropped)
    test = choose_pairs(pairs["test"], data.test_pairs, seed)
    chosen: Chosen = {
        "train": train,
        "validation": choose_pairs(pairs["validation"], data.validation_pairs, seed),
        "test": test,
        "turns": turns,
    }
    if further := references_of(test, references):
        chosen["references"] = further
    report: dict[str, Any] = {"regime": params.regime, "drop_overlap": params.drop_overlap}
    report |= {split: {"pairs": len(chosen[split]), "pairs_of_corpus": len(pairs[split])} for split in SPLITS}
    report["train"] |= {
        "dialogues": len(turns),
        "turns": sum(len(each.turns) for each in turns),
        "dialogues_of_100_percent": whole,
        "dialogues_of_corpus": len({pair.dialogue for pair in pairs["train"]}),
        "pairs_dropped_for_overlap": len(dropped),
        "dialogues_dropped_for_overlap": len(names) - len(turns),
    }
    return chosen, report
