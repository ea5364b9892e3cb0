"""Synthetic corpora of any size: DailyDialog's lengths, frequencies like those of words, and a known share of overlap.

DailyDialog's training pairs (stride 2) have turns of 13.7 words on average, with a median of 11; the mean and standard
deviation of the logarithm are 2.40 and 0.66. A dialogue has 1 to 17 pairs, 3.7 on average.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.plumbing.files import output_folder

WORDS = 50_000
LOG_WORDS = (2.40, 0.66)  # of a turn: mean and standard deviation of the logarithm
LONGEST = 250
PAIRS_OF_DIALOGUE = 3.7
COPIES = 20  # every so many training dialogues begin with a pair of turns from validation or test
AT_A_TIME = 10_000  # dialogues

Turns = list[list[str]]


def _word(rank: int) -> str:
    """Frequent ones are short, and the first two are punctuation."""
    letters = ""
    while rank >= 0:
        rank, letter = divmod(rank, 26)
        letters, rank = chr(ord("a") + letter) + letters, rank - 1
    return {"a": ".", "b": ","}.get(letters, letters)


VOCABULARY = np.array([_word(rank) for rank in range(WORDS)], dtype=object)
CUMULATED = np.cumsum(1 / (np.arange(WORDS) + 2.7))
CUMULATED /= CUMULATED[-1]


def turns_of(chance: np.random.Generator, count: int) -> list[str]:
    """That many random turns."""
    lengths = np.clip(np.rint(chance.lognormal(*LOG_WORDS, count)), 1, LONGEST).astype(np.int64)
    words = VOCABULARY[np.searchsorted(CUMULATED, chance.random(int(lengths.sum())))].tolist()
    ends = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    return [" ".join(words[start:end]) for start, end in pairwise(ends)]


def dialogues(chance: np.random.Generator, pairs: int) -> Iterator[list[str]]:
    """Random dialogues of so many pairs together."""
    while pairs > 0:
        of_each = np.minimum(1 + chance.poisson(PAIRS_OF_DIALOGUE - 1, AT_A_TIME), 17)
        of_each = of_each[: int(np.searchsorted(np.cumsum(of_each), pairs)) + 1]
        of_each[-1] -= max(0, int(of_each.sum()) - pairs)
        turns, start = turns_of(chance, 2 * int(of_each.sum())), 0
        for count in of_each.tolist():
            yield turns[start : start + 2 * count]
            start += 2 * count
        pairs -= int(of_each.sum())


@dataclass(frozen=True)
class Corpus:
    """What a corpus has, for judging what the stages found: training pairs, and how many are planted copies."""

    pairs: int
    planted: int


def write_corpus(folder: Path, pairs: int, held_out: int, seed: int = 0) -> Corpus:
    """Write train.jsonl with that many pairs, and validation and test with `held_out` each, as the stage download does.

    The first two turns of every 20th training dialogue are those of a pair of validation or test, with other case.
    """
    chance = np.random.default_rng(seed)
    parts: dict[str, Turns] = {name: list(dialogues(chance, held_out)) for name in ("validation", "test")}
    source = [each[at : at + 2] for part in parts.values() for each in part for at in range(0, len(each), 2)]
    planted = 0
    with output_folder(folder) as temporary:
        for name, part in parts.items():
            _write(temporary / f"{name}.jsonl", iter(part))

        def train() -> Iterator[list[str]]:
            nonlocal planted
            for number, turns in enumerate(dialogues(chance, pairs)):
                if number % COPIES == 0:
                    turns[:2] = [turn.upper() for turn in source[planted % len(source)]]
                    planted += 1
                yield turns

        _write(temporary / "train.jsonl", train())
    return Corpus(pairs, planted)


def _write(path: Path, corpus: Iterator[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for turns in corpus:
            file.write(json.dumps(turns) + "\n")
