"""One step of a trial: the loss of a batch (Sec. 3, Eq. 1 and 2), its gradients, and the update of what is trained.

Symbols as in stages/README.md: B pairs, S query tokens, R response tokens, T tokens of a row, N predicted tokens.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from stages.language_model.base_model import Weights
from stages.language_model.encoding import EncodedPair
from stages.language_model.memory import give_back_freed_memory, keep_freed_memory
from stages.methods.method import EMBEDDINGS, Method
from stages.methods.row_layout import Layout, padded, place, response_positions, sources
from stages.params.schema import Training
from stages.plumbing.errors import is_out_of_memory, one_line
from stages.train.cuda_graphs import CudaGraphs, padded_widths

Pairs = Sequence[EncodedPair]  # of a batch, B
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, for each weight; its step is the same for all: Trial.steps
NO_TARGET = -100  # a target that cross-entropy leaves out
# Tokens of a pass on a CPU, at most. Until its gradients are there, a token of SmolLM2 takes 2.4 MB in float32.
TOKENS_OF_A_PASS = {torch.float32: 768, torch.bfloat16: 1152}
KEPT_BETWEEN_STEPS = 7 << 28  # bytes of freed memory, 1.75 GiB: a pass of SmolLM2 takes no more


class LaidOut(NamedTuple):
    """A batch as the pass reads it, tensors alone: with other values of the same shapes, the same kernels run."""

    queries: Tensor  # [B, S]
    responses: Tensor  # [B, R]
    source: Tensor  # [B, T]: which token of prompt, query and response stands there
    row: Tensor  # [N]: where the rows predict response tokens
    column: Tensor  # [N]
    targets: Tensor  # [N]: those tokens, or NO_TARGET
    tokens: Tensor  # []: by how many tokens the summed loss is divided, as a float


def lay_out(method: Method, pairs: Pairs, widths: tuple[int, int] | None = None) -> LaidOut:
    """Lay the pairs out in rows of this method: N response tokens are predicted.

    widths: S and R, to which a pass is padded on the right, where causal attention never looks and no loss is.
    """
    layout = _layout(method, pairs)
    row, column = response_positions(layout)
    targets = torch.tensor([token for pair in pairs for token in pair.response])
    tokens = torch.tensor(float(len(targets)))
    queries, responses = padded([pair.query for pair in pairs]), padded([pair.response for pair in pairs])
    if widths is not None:
        queries, responses = (
            F.pad(side, (0, width - side.shape[1])) for side, width in zip((queries, responses), widths, strict=True)
        )
    parts = method.layout([queries.shape[1]], [responses.shape[1]])[:, 0].tolist()
    source = sources(layout, parts)
    if widths is not None:
        more = responses.numel() - len(targets)
        source = F.pad(source, (0, sum(parts) - source.shape[1]))
        row, column = F.pad(row, (0, more)), F.pad(column, (0, more))
        targets = F.pad(targets, (0, more), value=NO_TARGET)
    return LaidOut(queries, responses, source, row, column, targets, tokens)


def _layout(method: Method, pairs: Pairs) -> Layout:
    return method.layout([len(pair.query) for pair in pairs], [len(pair.response) for pair in pairs])


def summed_loss(method: Method, weights: Weights, laid: LaidOut) -> Tensor:
    """The cross-entropy of the response tokens, end-of-text included, in nats: a scalar; the caller takes the mean."""
    own = method.prepared(weights)
    sides = [laid.queries.shape[1], laid.responses.shape[1]]
    query, response = method.embed(own, torch.cat([laid.queries, laid.responses], dim=1)).split(sides, dim=1)
    prompt = method.prompt(own, query)
    rows = place([prompt, query, response], laid.source)
    hidden = method.hidden(own, rows, method.added(own, prompt, laid.source))
    logits = method.base.logits(hidden[laid.row, laid.column], method.output(own))
    return F.cross_entropy(logits.float(), laid.targets, reduction="none", ignore_index=NO_TARGET).sum()


def scheduled(step: int, last_step: int, training: Training) -> float:
    """Of the learning rate at a step from 1 to `last_step`: linear warm-up, then constant or falling to zero."""
    warm = min(1.0, step / training.warmup_steps) if training.warmup_steps else 1.0
    if training.lr_scheduler_type == "constant":
        return warm
    return min(warm, (last_step - step + 1) / max(1, last_step - training.warmup_steps))


class Learner:
    """What a trial trains, by name, with its optimizer: four float32 values for each number, gradient included."""

    def __init__(self, method: Method, initial: Weights, training: Training, longest: tuple[int, int]) -> None:
        """initial: of `Method.initial_weights`, which are copied. longest: most tokens of a query and of a response."""
        device = method.base.device
        self.method, self.training, self.longest = method, training, longest
        self.weights = {name: value.to(device, copy=True).requires_grad_(True) for name, value in initial.items()}
        keep_freed_memory(True)
        self.rows = sys.maxsize  # of a part of a batch at most, once memory has run out
        # E beside a prompt or a controller learns more slowly: a prompt starts far from where it ends, E as
        # pre-trained, so that one rate is too low for the one or too high for the other (metrics/recipe-cpu.md).
        slow = [name for name in initial if name == EMBEDDINGS and len(initial) > 1]
        fast = [name for name in initial if name not in slow]
        groups = [
            {"params": [self.weights[name] for name in names], "factor": factor}
            for names, factor in ((fast, 1.0), (slow, training.embeddings_rate))
            if names
        ]
        decay = training.weight_decay
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=decay, fused=device.type != "mps")
        for weight in self.weights.values():  # now: later, recorded passes hold what is left of a GPU's memory
            step = torch.zeros((), device=device if weight.is_cuda else "cpu")
            self.optimizer.state[weight] = {"step": step, **{key: torch.zeros_like(weight) for key in MOMENTS}}
        records = device.type == "cuda" and method.records
        self.graphs = CudaGraphs(list(self.weights.values())) if records else None

    def tensors(self) -> dict[str, Tensor]:
        """Weights and both moments of Adam, by name."""
        state = self.optimizer.state
        moments = {f"{name}|{key}": state[own][key] for name, own in self.weights.items() for key in MOMENTS}
        return {**self.weights, **moments}

    def restore(self, tensors: Weights, steps: int) -> None:
        """Put back what `tensors` gave after so many steps."""
        with torch.no_grad():
            for name, own in self.tensors().items():
                own.copy_(tensors[name])
        for state in self.optimizer.state.values():
            state["step"].fill_(steps)

    def step(self, pairs: Pairs, dropout_seed: int, rate: float) -> float:
        """One step of the optimizer on a batch, at a learning rate; returns its summed loss.

        Not a finite number if the loss or the gradient is not: then the weights are left as they are.
        """
        loss = self.gradients(pairs, dropout_seed)
        norm = get_total_norm([each.grad for each in self.weights.values() if each.grad is not None])
        summed, size = torch.stack([loss, norm.to(loss.device)]).tolist()  # at once: a GPU has to be waited for
        if math.isfinite(summed) and math.isfinite(size):
            if self.training.max_grad_norm is not None and size > self.training.max_grad_norm:
                clip_grads_with_norm_(self.weights.values(), self.training.max_grad_norm, norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            self.optimizer.step()
        self.optimizer.zero_grad()
        give_back_freed_memory(beyond=KEPT_BETWEEN_STEPS)
        return float(summed) if math.isfinite(size) else math.nan

    def gradients(self, pairs: Pairs, dropout_seed: int) -> Tensor:
        """Leave the gradients of a batch's mean loss in the weights; the summed loss, a scalar.

        Where memory runs out it goes on without graphs, then in parts of half as many pairs, whose gradients add up.
        """
        self.method.dropout(True)
        try:
            while True:
                try:
                    return self._gradients(self._parts(pairs), dropout_seed)
                except (RuntimeError, MemoryError) as error:
                    self.optimizer.zero_grad()
                    if not self._take_less(len(pairs), error):
                        raise
        finally:
            self.method.dropout(False)

    def _gradients(self, parts: list[Pairs], dropout_seed: int) -> Tensor:
        device, tokens = self.method.base.device, sum(len(pair.response) for part in parts for pair in part)
        total = torch.zeros((), device=device)
        for seed, part in enumerate(parts, start=dropout_seed):
            widths = padded_widths(part, self.longest) if device.type == "cuda" else None
            laid = lay_out(self.method, part, widths)._replace(tokens=torch.tensor(float(tokens)))
            laid = LaidOut(*(each.to(device) for each in laid))
            if self.graphs is not None:
                total += self.graphs.backward(self._backward, laid, seed)
            else:
                torch.manual_seed(seed)
                total += self._backward(laid)
        return total

    def _backward(self, laid: LaidOut) -> Tensor:
        loss = summed_loss(self.method, self.weights, laid)
        # With warnings alone, a GPU's attention sums its gradients in any order.
        torch.use_deterministic_algorithms(True, warn_only=not self.method.strict)
        try:
            loss.div(laid.tokens).backward()
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)
        return loss.detach()

    def _parts(self, pairs: Pairs) -> list[Pairs]:
        """The parts of a batch, each for a pass of its own: most batches are one part.

        On a CPU a part has so many tokens at most: eight rows of SmolLM2 of 150 tokens took 2.9 GB in one pass.
        """
        count, most = len(pairs), self.rows
        if self.method.base.device.type == "cpu":
            longest = int(_layout(self.method, pairs).sum(axis=0).max())
            most = min(most, max(1, TOKENS_OF_A_PASS[self.method.base.dtype] // longest))
        size = math.ceil(count / math.ceil(count / most))
        return [pairs[start : start + size] for start in range(0, count, size)]

    def _take_less(self, pairs: int, error: Exception) -> bool:
        """Go on without graphs, or out of memory in smaller parts; False if that is no help."""
        full = is_out_of_memory(error)
        if self.method.strict and "deterministic" in str(error):
            self.method.strict = False
            print(f"the last bits may differ from run to run: {one_line(str(error))[:200]}")
            return True
        if self.graphs is not None:
            self.graphs, self.method.records = None, full  # what cannot be recorded is not tried in the next trial
            why = f"no CUDA graphs for this model: {one_line(str(error))[:200]}"
            print("out of memory: training goes on without CUDA graphs" if full else why)
            return True
        if not full or (tried := min(self.rows, pairs)) == 1:
            return False
        self.rows = tried // 2
        print(f"out of memory: training goes on with {self.rows} pairs a pass")
        return True
