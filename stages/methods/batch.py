"""Encoded pairs become a padded batch.

Symbols: B pairs in a batch, S query tokens and R response tokens (end-of-text included).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair


@dataclass(frozen=True)
class Batch:
    """Padded pairs: queries [B, S], responses [B, R] of token ids, and how long each is."""

    queries: Tensor
    responses: Tensor
    query_lengths: list[int]
    response_lengths: list[int]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(self.queries.to(device), self.responses.to(device), self.query_lengths, self.response_lengths)

    def part(self, start: int, stop: int) -> "Batch":
        """The pairs from `start` to `stop`, padded no further than they need."""
        queries, responses = self.query_lengths[start:stop], self.response_lengths[start:stop]
        return Batch(
            self.queries[start:stop, : max(queries)], self.responses[start:stop, : max(responses)], queries, responses
        )


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of rows, with token 0 on the right, which no computation ever sees: [rows, longest]."""
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    return tokens


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pad pairs to a batch."""
    queries, responses = [pair.query for pair in pairs], [pair.response for pair in pairs]
    return Batch(
        padded(queries), padded(responses), [len(query) for query in queries], [len(response) for response in responses]
    )
