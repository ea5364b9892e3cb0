"""On a GPU, a pass and its gradients as a CUDA graph: one call launches thousands of kernels.

A step of eight pairs keeps an H100 busy for tens of milliseconds; Python takes a hundred or more to launch it. A pass
is recorded once for each shape of batch and then replayed with other tokens. Batches are padded to few shapes; the
padding stands on the right, where causal attention never looks, and has no loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.language_model.encoding import EncodedPair, side_lengths
from stages.methods.batch import Batch
from stages.methods.method import Method
from stages.plumbing.errors import is_out_of_memory
from stages.train.losses import LaidOut, fill, lay_out, losses_of_pass

STEP = 16  # tokens: queries and responses are padded to multiples of it
Shape = tuple[int, int, int]  # pairs, tokens of a query, tokens of a response
Replay = Callable[[], None]


def record(work: Callable[[], None], pool: Any) -> Replay:
    """Record what `work` launches on the GPU, after a trial run; all recordings share the memory of a pool."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph.replay


@dataclass
class Recording:
    """A recorded pass: fill `laid`, replay, and `losses` [K] and the gradients are there."""

    laid: LaidOut
    losses: Tensor
    replay: Replay


class Recorder:
    """The recordings of trials that share a pass, and the gradients that all of them write.

    pool: the memory of the recordings. They may share it with others: nothing that lasts from one replay to another is
    in it.
    """

    def __init__(self, method: Method, trials: Sequence[Weights], pool: Any = None) -> None:
        self.method, self.trials = method, trials
        self.tensors = [tensor for own in trials for tensor in own.values()]
        self.gradients = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.recordings: dict[Shape, Recording] = {}
        self.pool = pool

    def serves(self, trials: Sequence[Weights]) -> bool:
        """Whether these are the same trials, in the same tensors."""
        return len(self.trials) == len(trials) and all(a is b for a, b in zip(self.trials, trials, strict=True))

    def backward(self, laid: LaidOut, shape: Shape, dropout_seed: int) -> Tensor:
        """The summed losses [K] of a batch; the gradients of its mean loss are in the tensors' `grad`."""
        for tensor, gradient in zip(self.tensors, self.gradients, strict=True):
            tensor.grad = gradient
        if shape not in self.recordings:
            self.recordings[shape] = self._record(laid)
        recording = self.recordings[shape]
        recording.laid.copy_(laid)
        torch.manual_seed(dropout_seed)  # only now: to record a pass is to run it, which draws masks too
        recording.replay()
        return recording.losses

    def _record(self, laid: LaidOut) -> Recording:
        own = laid.to(self.tensors[0].device)
        losses = torch.zeros(len(self.trials), device=own.queries.device)

        def work() -> None:
            torch._foreach_zero_(self.gradients)
            # Nothing is seeded here: a graph takes its random numbers from the generator at each replay.
            found = torch.stack(losses_of_pass(self.method, self.trials, own, seed=lambda: None))
            found.sum().div(own.count).backward()
            losses.copy_(found.detach())

        return Recording(own, losses, record(work, self.pool))


class CudaGraphs:
    """The passes of a training as CUDA graphs, for as long as they can be recorded."""

    def __init__(self, queries: int, responses: int, dropout: float) -> None:
        self.queries, self.responses, self.dropout = queries, responses, dropout
        self.recorders: list[Recorder] = []
        self.pool: Any = None
        self.off = False

    @classmethod
    def for_pairs(cls, method: Method, pairs: Dataset | Sequence[EncodedPair], dropout: float) -> "CudaGraphs | None":
        """None where there is no CUDA. dropout: the probability of it in what is trained."""
        if method.base.device.type != "cuda":
            return None
        queries, responses = side_lengths(pairs)
        return cls(int(queries.max()), int(responses.max()), dropout)

    def backward(
        self, method: Method, trials: Sequence[Weights], batch: Batch, dropout_seed: int
    ) -> list[float] | None:
        """The summed losses of trials that share a pass, their gradients in `grad`; None: it cannot be a graph.

        Trials that may share a pass are left out if there is dropout: each must draw the same masks, whoever else is in
        the pass.
        """
        if self.off or (self.dropout > 0 and method.shares_layers):
            return None
        try:
            laid, shape = self._padded(method, batch)
            losses: list[float] = self._recorder(method, trials).backward(laid, shape, dropout_seed).tolist()
        except (RuntimeError, MemoryError) as error:
            self._forget(trials)
            if is_out_of_memory(error):
                raise
            self.off = True
            print(f"no CUDA graphs for this model: {str(error).splitlines()[0]}")
            return None
        return losses

    def give_up(self) -> bool:
        """Go on kernel by kernel, which takes less memory; False if that is so already."""
        if self.off:
            return False
        self.off = True
        print("out of memory: training goes on without CUDA graphs")
        return True

    def _forget(self, trials: Sequence[Weights]) -> None:
        """Free the recordings, and the gradients that a pass which broke off has left."""
        self.recorders.clear()
        self.pool = None
        for own in trials:
            for tensor in own.values():
                tensor.grad = None

    def _recorder(self, method: Method, trials: Sequence[Weights]) -> Recorder:
        for recorder in self.recorders:
            if recorder.serves(trials):
                return recorder
        # Recordings of a pass that a trial has left serve nobody any more.
        self.recorders = [
            each for each in self.recorders if not any(own is other for own in each.trials for other in trials)
        ]
        if self.pool is None and method.base.device.type == "cuda":
            self.pool = torch.cuda.graph_pool_handle()
        self.recorders.append(Recorder(method, list(trials), self.pool))
        return self.recorders[-1]

    def _padded(self, method: Method, batch: Batch) -> tuple[LaidOut, Shape]:
        queries = min(-(-batch.queries.shape[1] // STEP) * STEP, self.queries)
        responses = min(-(-batch.responses.shape[1] // STEP) * STEP, self.responses)
        padded = replace(
            batch, queries=_widened(batch.queries, queries), responses=_widened(batch.responses, responses)
        )
        laid = fill(lay_out(method, padded), sum(method.widths(padded.queries, padded.responses)))
        return laid, (len(batch.queries), queries, responses)


def _widened(tokens: Tensor, columns: int) -> Tensor:
    return F.pad(tokens, (0, columns - tokens.shape[1]))
