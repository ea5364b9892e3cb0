"""Encoded pairs become a padded batch: B pairs, S query tokens and R response tokens (end-of-text included)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair


@dataclass(frozen=True)
class Batch:
    """Padded pairs: queries [B, S], responses [B, R] of token ids, and how long each is."""

    pairs: Sequence[EncodedPair]
    queries: Tensor
    responses: Tensor
    query_lengths: list[int]
    response_lengths: list[int]

    def part(self, start: int, stop: int) -> "Batch":
        """The pairs from `start` to `stop`, padded no further than they need."""
        return collate(self.pairs[start:stop])


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of rows, with token 0 on the right, which no computation ever sees: [rows, longest]."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return tokens


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pad pairs to a batch."""
    queries, responses = [pair.query for pair in pairs], [pair.response for pair in pairs]
    return Batch(pairs, padded(queries), padded(responses), list(map(len, queries)), list(map(len, responses)))
