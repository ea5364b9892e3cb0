"""How many trials and pairs go through the layers in one pass."""

import math
import sys

import torch

from stages.methods.batch import Batch
from stages.methods.method import Method

ROWS_OF_A_PASS = 8  # on a CPU, at least
TOKENS_OF_A_PASS = 640  # on a CPU, at most; a token of SmolLM2 takes 2.4 MB until its gradients are there


class TrialsPerPass:
    """How many trials share a pass: as many as pay until memory runs out, then fewer, with the same results."""

    def __init__(self, trials: int) -> None:
        self.size = max(1, trials)

    @classmethod
    def that_pay(cls, trials: int, device: torch.device, batch_size: int) -> "TrialsPerPass":
        """On a GPU all: a pass costs the same number of kernels. On a CPU no more than fill its matrix products.

        Three trials of SmolLM2 in one pass of 24 rows took 2.2 GiB more there than in three passes of 8.
        """
        return cls(trials if device.type != "cpu" else min(trials, trials_of_a_pass(batch_size)))

    def shrink(self) -> bool:
        """Halve the pass; False if it is a single trial already."""
        if self.size == 1:
            return False
        self.size = (self.size + 1) // 2
        print(f"out of memory: training goes on with {self.size} trials a pass")
        return True


def trials_of_a_pass(batch_size: int) -> int:
    """How many trials share a pass on a CPU: as many as fill its matrix products."""
    return math.ceil(ROWS_OF_A_PASS / batch_size)


def rows_of_a_pass(device: torch.device, tokens: int, batch_size: int) -> int:
    """How many rows of so many tokens go through the layers together, for each trial of a pass.

    It does not depend on how many trials are left: with dropout, another division would give them other masks.
    """
    return sys.maxsize if device.type != "cpu" else max(1, TOKENS_OF_A_PASS // (tokens * trials_of_a_pass(batch_size)))


def passes_of(method: Method, batch: Batch, batch_size: int) -> list[Batch]:
    """The parts of a batch, each for a pass of its own, whose gradients are added up: most batches are one part.

    Eight rows of SmolLM2 of 150 tokens took 2.9 GB in one pass on a CPU. batch_size: that of the training; the last
    batch of an epoch may be smaller.
    """
    rows, longest = len(batch.query_lengths), max(method.layout(batch.query_lengths, batch.response_lengths).tokens())
    count = math.ceil(rows / rows_of_a_pass(method.base.device, longest, batch_size))
    size = math.ceil(rows / count)
    return [batch.part(start, min(start + size, rows)) for start in range(0, rows, size)]
