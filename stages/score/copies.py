"""What copies alone score: the BLEU-4 of answers that know some test pairs by heart and nothing of the others.

A novelty n says that at most a share 1 - n of the answers are training turns. Say that so many are the right responses
to pairs that stand in the training part, and that all others are novel but meant for other queries. What that scores
is what a reported novelty lets BLEU-4 owe to the overlap of the corpus's parts (stages/score/leakage.py).

    python -m stages.score.copies --pairs data/pair_extract --novelty 0.913 0.742
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.plumbing.command import run_stage
from stages.records import Dialogue, Pair, each_record, read_records
from stages.score.leakage import exact_leakage
from stages.score.variety import is_novel, known_turns
from stages.similarity.bleu import bleu


def with_copies(others: Sequence[str], references: Sequence[str], copied: Sequence[int]) -> float:
    """BLEU-4 of N answers: the references at the places in `copied`, elsewhere the others."""
    answers = list(others)
    for place in copied:
        answers[place] = references[place]
    return bleu(answers, references)


def main(arguments: argparse.Namespace) -> None:
    """Read, simulate, print."""
    test = read_records(arguments.pairs / "test.jsonl", Pair)
    references = [pair.response for pair in test]
    leaked = np.flatnonzero(exact_leakage(each_record(arguments.pairs / "train.jsonl", Pair), test).pairs).tolist()
    dialogues = each_record(arguments.pairs / "turns.jsonl", Dialogue)
    known = known_turns(turn for each in dialogues for turn in each.turns)
    novel = [each for each in references if is_novel(each, known)]
    others = [novel[place] for place in np.random.default_rng(0).integers(len(novel), size=len(test))]
    in_lots = np.random.default_rng(0).permutation(leaked).tolist()
    by_length = sorted(leaked, key=lambda place: -len(references[place].split()))
    print(
        f"{len(leaked)} of {len(test)} test pairs stand in training; no copies: BLEU-4 {bleu(others, references):.3f}"
    )
    for novelty in arguments.novelty:
        count = round((1 - novelty) * len(test))
        drawn, longest = (with_copies(others, references, places[:count]) for places in (in_lots, by_length))
        copied = min(count, len(leaked))
        print(f"novelty {novelty}: up to {copied} copies, BLEU-4 {drawn:.3f} if drawn, {longest:.3f} if the longest")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of the stage pair-extract")
    parser.add_argument("--novelty", type=float, nargs="+", required=True, help="of answers, as a paper reports it")
    run_stage("score.copies", parser, main)
