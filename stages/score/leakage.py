"""How much of the test set was already in training: shares of its queries, responses and pairs, by two rules.

- exact: word for word. A test pair is *unseen* if neither its query nor its response is in the training regime.
- near: exactly or nearly, by the rule in stages/overlap.py. A test pair is *unlike* if neither its query nor its
  response is near one of the training regime.

DailyDialog leaks. With all training dialogues and stride 2, 24.1 % of the test queries are also training queries, word
for word, 25.9 % of the responses are training responses, and 15.8 % of the pairs are training pairs. By the near rule
these are 38.0 %, 38.0 % and 27.9 % (tests/score/test_score.py, with DailyDialog's text files). Wen, Luo and Mou
published that its parts overlap and that scores profit from it ("An Empirical Study on the Overlapping Problem of
Open-Domain Dialogue Datasets", LREC 2022).
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.overlap import Flags, HeldOut
from stages.records import Pair

Sides = Sequence[tuple[Any, Any]]  # a name of the query and one of the response, of each test pair


@dataclass(frozen=True)
class Leakage:
    """For each of the N test pairs: is its query, its response, the pair in the training regime? Each [N]."""

    queries: Flags
    responses: Flags
    pairs: Flags

    @property
    def unseen(self) -> Flags:
        """The test pairs of which neither the query nor the response is in the training regime, [N]."""
        return ~(self.queries | self.responses)

    def shares(self) -> dict[str, float]:
        """Shares of the test set, from 0 to 1."""
        return {name: float(flags.mean()) for name, flags in vars(self).items()}


def _leakage(sides: Sides, found: Iterable[tuple[Set[Any], Set[Any], Set[Any]]]) -> Leakage:
    """found: the queries, responses and pairs of the test set that each training pair has."""
    queries, responses, pairs = {query for query, _ in sides}, {response for _, response in sides}, set(sides)
    for own in found:  # what is left in the end is not in training
        queries -= own[0]
        responses -= own[1]
        pairs -= own[2]
    return Leakage(
        np.array([query not in queries for query, _ in sides], dtype=np.bool_),
        np.array([response not in responses for _, response in sides], dtype=np.bool_),
        np.array([side not in pairs for side in sides], dtype=np.bool_),
    )


def exact_leakage(train: Iterable[Pair], test: Sequence[Pair]) -> Leakage:
    """Leakage word for word: queries are compared with queries, responses with responses, pairs with pairs."""
    found = (({pair.query}, {pair.response}, {(pair.query, pair.response)}) for pair in train)
    return _leakage([(pair.query, pair.response) for pair in test], found)


def near_leakage(train: Iterable[Pair], test: Sequence[Pair]) -> Leakage:
    """Leakage by the rule of stages/overlap.py; a pair counts if both its sides overlap those of one training pair."""
    known = HeldOut(test)
    return _leakage(known.numbers, known.compare(train))
