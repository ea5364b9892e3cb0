"""The data regime: a seeded, nested part of the training dialogues; validation and test are as the protocol says.

Writes {train,validation,test}.jsonl (a Pair a line) and turns.jsonl (the turns of the chosen training dialogues).
"""

import argparse
import hashlib
import math
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

from stages.core.errors import StageError, run_stage
from stages.core.files import check_folder, output_folder, write_json
from stages.core.overlap import overlapping
from stages.core.params import load_params
from stages.core.records import SPLITS, Dialogue, Pair, read_records, write_records


def rank(seed: int, name: str) -> str:
    """Place of a name in the seeded permutation: its sha256 together with the seed, so no other name moves it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def regime_size(whole: int, regime: float) -> int:
    """`regime` percent of `whole`, rounded up, so that a regime is never empty (10 % of 11,118 is 1,112)."""
    return math.ceil(whole * Fraction(str(regime)) / 100)  # exact: 0.1 is a tenth here


def choose_dialogues(pairs: list[Pair], whole: int | None, regime: float, seed: int) -> tuple[set[str], int]:
    """Ids of the training dialogues of a regime, and of how many they are a part.

    The first `whole` (None: all) of the seeded permutation of the dialogues that have a pair are the 100 %; a regime
    is the first part of those. So every regime holds all smaller ones of the same seed.
    """
    names = sorted({pair.dialogue for pair in pairs}, key=lambda name: rank(seed, name))[:whole]
    return set(names[: regime_size(len(names), regime)]), len(names)


def choose_pairs(pairs: list[Pair], count: int | None, seed: int) -> list[Pair]:
    """The first `count` (None: all) of the seeded permutation of the pairs, in the order of dialogue and position."""
    chosen = sorted(pairs, key=lambda pair: rank(seed, f"{pair.dialogue}:{pair.position}"))[:count]
    return sorted(chosen, key=lambda pair: (pair.dialogue, pair.position))


def remaining_turns(dialogues: list[Dialogue], kept: list[Pair], dropped: list[Pair]) -> list[Dialogue]:
    """The dialogues that keep a pair, without the turns that stand in dropped pairs only."""
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


def main(arguments: argparse.Namespace) -> None:
    """Choose, drop what overlaps if asked to, write."""
    params = load_params()
    data, seed = params.chosen_protocol.data, params.seed
    check_folder(arguments.pairs)
    pairs = {split: read_records(arguments.pairs / f"{split}.jsonl", Pair) for split in SPLITS}
    dialogues = read_records(arguments.pairs / "turns.jsonl", Dialogue)

    names, whole = choose_dialogues(pairs["train"], data.train_dialogues, params.regime, seed)
    candidates = [pair for pair in pairs["train"] if pair.dialogue in names]
    overlaps = (
        overlapping(candidates, pairs["validation"] + pairs["test"])
        if params.drop_overlap
        else [False] * len(candidates)
    )
    train = [pair for pair, overlap in zip(candidates, overlaps, strict=True) if not overlap]
    dropped = [pair for pair, overlap in zip(candidates, overlaps, strict=True) if overlap]
    if not train:
        found = f"all {len(dropped)} training pairs of regime {params.regime} overlap validation or test"
        raise StageError("params.yaml: drop_overlap", found, "raise regime or set drop_overlap to false")
    turns = remaining_turns(dialogues, train, dropped)
    validation = choose_pairs(pairs["validation"], data.validation_pairs, seed)
    test = choose_pairs(pairs["test"], data.test_pairs, seed)

    with output_folder(arguments.subset) as folder:
        write_records(folder / "train.jsonl", train)
        write_records(folder / "validation.jsonl", validation)
        write_records(folder / "test.jsonl", test)
        write_records(folder / "turns.jsonl", turns)
    report = {
        "regime": params.regime,
        "train": {
            "dialogues": len(turns),
            "pairs": len(train),
            "turns": sum(len(each.turns) for each in turns),
            "dialogues_of_100_percent": whole,
            "dialogues_of_corpus": len({pair.dialogue for pair in pairs["train"]}),
            "pairs_of_corpus": len(pairs["train"]),
            "pairs_dropped_for_overlap": len(dropped),
            "dialogues_dropped_for_overlap": len(names) - len(turns),
        },
        "validation": {"pairs": len(validation), "pairs_of_corpus": len(pairs["validation"])},
        "test": {"pairs": len(test), "pairs_of_corpus": len(pairs["test"])},
    }
    write_json(arguments.report, report)
    print(f"{len(turns)} dialogues, {len(train)} training, {len(validation)} validation and {len(test)} test pairs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of the pair-extract stage")
    parser.add_argument("--subset", type=Path, required=True, help="folder to write")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write: what was chosen and dropped")
    run_stage("subset", parser, main)
