"""How many trials and pairs go through the layers in one pass."""

import math
import sys

import torch

from stages.methods.batch import Batch
from stages.methods.method import Method

# Tokens of a pass on a CPU, at most. Until its gradients are there, a token of SmolLM2 takes 2.4 MB in float32.
TOKENS_OF_A_PASS = {torch.float32: 768, torch.bfloat16: 1152}
TOKENS_OF_A_TRIAL = 160  # for which a trial counts at least: the gradients of its word embeddings take memory too


class TrialsPerPass:
    """How many trials share a pass: `most`, which is halved where memory runs out, with the same results."""

    def __init__(self, trials: int) -> None:
        self.most = max(1, trials)

    def size(self, method: Method, batch: Batch) -> int:
        """For this batch: on a GPU all, since a pass costs the same number of kernels; on a CPU as its tokens allow."""
        if method.base.device.type != "cpu":
            return self.most
        tokens = max(TOKENS_OF_A_TRIAL, len(batch.query_lengths) * _longest(method, batch))
        return max(1, min(self.most, tokens_of_a_pass(method) // tokens))

    def shrink(self, tried: int) -> bool:
        """Halve a pass of so many trials; False if it was a single trial already."""
        if tried == 1:
            return False
        self.most = (tried + 1) // 2
        print(f"out of memory: training goes on with {self.most} trials a pass")
        return True


def tokens_of_a_pass(method: Method) -> int:
    """How many tokens, padding included, may go through the layers together on a CPU."""
    return TOKENS_OF_A_PASS[method.base.dtype]


def rows_of_a_pass(method: Method, tokens: int) -> int:
    """How many rows of so many tokens go through the layers together, for one trial.

    It does not depend on how many trials there are: with dropout, another division would give them other masks.
    """
    return sys.maxsize if method.base.device.type != "cpu" else max(1, tokens_of_a_pass(method) // tokens)


def passes_of(method: Method, batch: Batch) -> list[Batch]:
    """The parts of a batch, each for a pass of its own, whose gradients are added up: most batches are one part.

    Eight rows of SmolLM2 of 150 tokens took 2.9 GB in one pass on a CPU, in float32.
    """
    rows = len(batch.query_lengths)
    count = math.ceil(rows / rows_of_a_pass(method, _longest(method, batch)))
    size = math.ceil(rows / count)
    return [batch.part(start, min(start + size, rows)) for start in range(0, rows, size)]


def _longest(method: Method, batch: Batch) -> int:
    """Tokens of the longest row of a batch."""
    return max(method.layout(batch.query_lengths, batch.response_lengths).tokens())
