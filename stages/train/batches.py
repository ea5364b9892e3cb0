"""An epoch as a list of batches, each a list of pair numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.plumbing.sequences import LazySequence

BATCHES_PER_POOL = 32  # batches whose pairs are sorted by length together: long enough to pad little

Numbers = np.ndarray[tuple[int], np.dtype[Any]]


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
