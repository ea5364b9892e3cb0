"""Encoded pairs become padded batches, and an epoch a list of batches.

Symbols: B pairs in a batch, S query tokens and R response tokens (end-of-text included).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair
from stages.plumbing.sequences import LazySequence

BATCHES_PER_POOL = 32  # batches whose pairs are sorted by length together: long enough to pad little

Numbers = np.ndarray[tuple[int], np.dtype[Any]]


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


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, tokens in enumerate(rows):
        padded[row, : len(tokens)] = torch.tensor(tokens)
    return padded


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pad pairs to a batch (with token 0, which no computation ever sees)."""
    queries, responses = [pair.query for pair in pairs], [pair.response for pair in pairs]
    return Batch(
        _pad(queries), _pad(responses), [len(query) for query in queries], [len(response) for response in responses]
    )


class EpochBatches(LazySequence[list[int]]):
    """The batches of an epoch, each a list of pair numbers: 8 bytes for each pair."""

    def __init__(self, pairs: Numbers, batch_size: int, places: Numbers) -> None:
        """pairs: all pair numbers, batch after batch; places: in which order the batches come."""
        self.pairs, self.batch_size, self.places = pairs, batch_size, places

    def __len__(self) -> int:
        return len(self.places)

    def _item(self, number: int) -> list[int]:
        start = int(self.places[number]) * self.batch_size
        numbers: list[int] = self.pairs[start : start + self.batch_size].tolist()
        return numbers


def epoch_batches(sizes: Sequence[int] | Numbers, batch_size: int, seed: int, epoch: int) -> EpochBatches:
    """The batches of one epoch as lists of pair numbers: a function of (seed, epoch) alone.

    The pairs are shuffled; in each pool of BATCHES_PER_POOL batches they are sorted by size, so that a batch holds
    pairs of like length and pads little; then the order of the batches is shuffled.
    """
    generator = np.random.default_rng([seed, epoch])
    order, known = generator.permutation(len(sizes)), np.asarray(sizes)
    pool = batch_size * BATCHES_PER_POOL
    for start in range(0, len(order), pool):
        mine = order[start : start + pool]
        order[start : start + pool] = mine[np.argsort(known[mine], kind="stable")]
    return EpochBatches(order, batch_size, generator.permutation(-(-len(order) // batch_size)))
