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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.overlap import Flags, blocks
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


def exact_leakage(train: Sequence[Pair], test: Sequence[Pair]) -> Leakage:
    """Leakage word for word: queries are compared with queries, responses with responses, pairs with pairs."""
    queries, responses = {pair.query for pair in train}, {pair.response for pair in train}
    pairs = {(pair.query, pair.response) for pair in train}
    return Leakage(
        np.array([pair.query in queries for pair in test], dtype=np.bool_),
        np.array([pair.response in responses for pair in test], dtype=np.bool_),
        np.array([(pair.query, pair.response) in pairs for pair in test], dtype=np.bool_),
    )


def near_leakage(train: Sequence[Pair], test: Sequence[Pair]) -> Leakage:
    """Leakage by the rule of stages/overlap.py; a pair counts if both its sides overlap those of one training pair."""
    found = Leakage(*(np.zeros(len(test), dtype=np.bool_) for _ in range(3)))
    for block in blocks(train, test):
        found.queries[block.rows] = block.queries.any(axis=1)
        found.responses[block.rows] = block.responses.any(axis=1)
        found.pairs[block.rows] = (block.queries & block.responses).any(axis=1)
    return found
