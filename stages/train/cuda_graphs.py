"""On a GPU, a pass and its gradients as a CUDA graph: one call launches thousands of kernels.

A step of eight pairs keeps an H100 busy for tens of milliseconds; Python takes a hundred or more to launch it. A pass
is recorded once for each shape of batch and then replayed with other tokens. Batches are padded to few shapes, also
where a pass runs kernel by kernel, so that both draw the same dropout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair

STEP = 16  # tokens: queries and responses are padded to multiples of it
Recording = tuple[Any, Tensor, Callable[[], None]]  # of a pass: inputs to be filled, its loss, what replays it


def padded_widths(pairs: Sequence[EncodedPair], longest: tuple[int, int]) -> tuple[int, int]:
    """Tokens that the queries and the responses of a batch are padded to, no further than the longest there may be."""
    query, response = max(len(pair.query) for pair in pairs), max(len(pair.response) for pair in pairs)
    up = [max(own, min(-(-own // STEP) * STEP, most)) for own, most in zip((query, response), longest, strict=True)]
    return up[0], up[1]


def record(work: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Record what `work` launches on the GPU, after a trial run, in the memory of a pool; what replays it.

    Each replay draws its dropout from the seed that was set last, as kernels do that are launched one by one.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        work()
    torch.cuda.current_stream().wait_stream(aside)
    graph: Any = torch.cuda.CUDAGraph()
    graph.register_generator_state(torch.cuda.default_generators[torch.cuda.current_device()])
    stream = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool):
            work()
    finally:
        torch.cuda.set_stream(stream)  # a recording that fails would leave its own behind
    replay: Callable[[], None] = graph.replay
    return replay


class CudaGraphs:
    """The passes of one trial, and the gradients that all of them write."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = weights
        self.gradients: list[Tensor] = []
        self.recordings: dict[tuple[torch.Size, ...], Recording] = {}  # by the shapes of their inputs
        self.pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def backward(self, compute: Callable[[Any], Tensor], inputs: Any, dropout_seed: int) -> Tensor:
        """The summed loss of a batch; the gradients of its mean loss are in the weights' `grad`.

        compute: adds the gradients of a pass, from a named tuple of tensors, to the weights; gives its loss.
        """
        self.gradients = self.gradients or [torch.zeros_like(weight) for weight in self.weights]
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        shape = tuple(each.shape for each in inputs)
        if shape not in self.recordings:
            self.recordings[shape] = self._record(compute, inputs)
        own, loss, replay = self.recordings[shape]
        for mine, value in zip(own, inputs, strict=True):
            mine.copy_(value)
        torch.manual_seed(dropout_seed)  # only now: to record a pass is to run it, which draws masks too
        replay()
        return loss.clone()

    def _record(self, compute: Callable[[Any], Tensor], inputs: Any) -> Recording:
        own = type(inputs)(*(each.clone() for each in inputs))
        loss = torch.zeros((), device=own[0].device)

        def work() -> None:
            torch._foreach_zero_(self.gradients)
            loss.copy_(compute(own))

        return own, loss, record(work, self.pool)
