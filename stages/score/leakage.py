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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.overlap import Flags, HeldOut
from stages.records import Pair


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
        flags = {"queries": self.queries, "responses": self.responses, "pairs": self.pairs}
        return {name: float(values.mean()) for name, values in flags.items()}


def exact_leakage(train: Iterable[Pair], test: Sequence[Pair]) -> Leakage:
    """Leakage word for word: queries are compared with queries, responses with responses, pairs with pairs."""
    sides = [(pair.query, pair.response) for pair in test]
    queries, responses = ({side[at] for side in sides} for at in (0, 1))
    found: tuple[set[str], set[str], set[tuple[str, str]]] = set(), set(), set()
    for pair in train:
        if pair.query in queries:
            found[0].add(pair.query)
            if pair.response in responses:
                found[2].add((pair.query, pair.response))
        if pair.response in responses:
            found[1].add(pair.response)
    return Leakage(
        np.array([query in found[0] for query, _ in sides], dtype=np.bool_),
        np.array([response in found[1] for _, response in sides], dtype=np.bool_),
        np.array([side in found[2] for side in sides], dtype=np.bool_),
    )


def near_leakage(train: Iterable[Pair], test: Sequence[Pair]) -> Leakage:
    """Leakage by the rule of stages/overlap.py; a pair counts if both its sides overlap those of one training pair."""
    known = HeldOut(test)
    queries, responses, pairs = set[int](), set[int](), set[tuple[int, int]]()
    for found in known.compare(train):
        queries |= found.queries
        responses |= found.responses
        pairs |= found.pairs
    return Leakage(
        np.array([query in queries for query, _ in known.numbers], dtype=np.bool_),
        np.array([response in responses for _, response in known.numbers], dtype=np.bool_),
        np.array([number in pairs for number in known.numbers], dtype=np.bool_),
    )
