"""The trial engine: one step of K learning-rate trials of one method on the same batch of B pairs.

With soft and dynamic prompts the Transformer is frozen and shared, so that several trials can take one pass through it:
n of them are n x B rows through the layers, then n output layers, n losses and n optimizer updates, each with its own
learning rate (trials_per_pass.py says how many). Nothing that a trial computes depends on another but for the order in
which products are summed. Fine-tuning and LoRA share nothing: their trials come one at a time, through the same code.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from stages.language_model.base_model import Weights
from stages.methods.batch import Batch
from stages.methods.method import Method
from stages.params.schema import Training
from stages.plumbing.errors import is_out_of_memory
from stages.train.cuda_graphs import CudaGraphs
from stages.train.losses import response_losses
from stages.train.rates import rate_factor, scheduled
from stages.train.trials_per_pass import TrialsPerPass, passes_of

CPU = torch.device("cpu")
Status = Literal["running", "finished", "diverged"]
SelectBy = Literal["bleu4", "loss"]


@dataclass(frozen=True)
class Validation:
    """What the validation pairs say of a trial after an epoch."""

    loss: float  # mean over response tokens
    bleu4: float
    empty: float = 0.0  # share of the answers without a word
    distinct: float = 1.0  # different answers over answers


@dataclass
class Trial:
    """One learning rate: its trained tensors, its optimizer and what became of it."""

    index: int
    learning_rate: float
    weights: dict[str, Tensor]
    optimizer: torch.optim.Optimizer | None
    status: Status = "running"
    steps: int = 0
    loss_sum: float = 0.0  # of the epoch under way: of the loss of every response token
    loss_tokens: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0  # 0: none has ended yet
    best_bleu4: float = -1.0  # of that epoch, as best_loss
    best_loss: float | None = None
    diverged_at: str | None = None

    def drop_tensors(self) -> None:
        """Free the memory of a trial that trains no more."""
        self.weights, self.optimizer = {}, None

    def record_epoch(self, epoch: int, validation: Validation, training: Training) -> bool:
        """Close an epoch; True if it is the best so far. Stops the trial when patience or the epochs are used up."""
        self.curve.append(
            {
                "trial": self.index,
                "learning_rate": self.learning_rate,
                "epoch": epoch,
                "train_loss": _finite(self.loss_sum / self.loss_tokens) if self.loss_tokens else None,
                "validation_loss": _finite(validation.loss),
                "bleu4": validation.bleu4,
                "empty": round(validation.empty, 6),
                "distinct": round(validation.distinct, 6),
            }
        )
        self.loss_sum, self.loss_tokens = 0.0, 0
        before = self.quality(training.metric_for_best_model)
        kept = self.best_epoch, self.best_bleu4, self.best_loss
        self.best_epoch, self.best_bleu4, self.best_loss = epoch, validation.bleu4, validation.loss
        better = kept[0] == 0 or self.quality(training.metric_for_best_model) > before
        if not better:
            self.best_epoch, self.best_bleu4, self.best_loss = kept
        if epoch - self.best_epoch >= training.early_stopping_patience or epoch >= training.num_train_epochs:
            self.status = "finished"
        return better

    def quality(self, metric_for_best_model: SelectBy) -> float:
        """What the best epoch is chosen by, the higher the better: validation BLEU-4, or the loss with a minus."""
        if metric_for_best_model == "bleu4":
            return self.best_bleu4
        return -math.inf if self.best_loss is None else -self.best_loss


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def new_trial(
    initial: Weights, index: int, learning_rate: float, training: Training, device: torch.device = CPU
) -> Trial:
    """A trial at its start. All trials of a sweep start from the same weights, so that only the rate differs.

    initial: as `Method.initial_weights` gives them; copied.
    """
    weights = {name: value.to(device, copy=True).requires_grad_(True) for name, value in initial.items()}
    optimizer = None
    if weights:
        factors = {name: rate_factor(name, weights, training) for name in weights}
        groups = [  # one call of the optimizer for all tensors of a rate
            {"params": [weights[name] for name in weights if factors[name] == factor], "factor": factor}
            for factor in dict.fromkeys(factors.values())
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=learning_rate, weight_decay=training.weight_decay, fused=device.type != "mps"
        )
    return Trial(index, learning_rate, weights, optimizer)


def _backward(
    method: Method, trials: Sequence[Trial], parts: Sequence[Batch], dropout_seed: int, graphs: CudaGraphs | None
) -> list[float]:
    """Gradients of the mean loss of trials that share their passes, one for each part of a batch; the summed losses."""
    if graphs is not None and len(parts) == 1:
        found = graphs.backward(method, [trial.weights for trial in trials], parts[0], dropout_seed)
        if found is not None:
            return found
    total = torch.zeros(len(trials), device=method.base.device)
    tokens = sum(sum(part.response_lengths) for part in parts)
    for number, part in enumerate(parts):
        losses = response_losses(method, [trial.weights for trial in trials], part, dropout_seed + number)
        torch.stack(losses).sum().div(tokens).backward()
        total += torch.stack([loss.detach() for loss in losses])
    sums: list[float] = total.tolist()
    return sums


def _drop_gradients(trials: Sequence[Trial]) -> None:
    for trial in trials:
        for tensor in trial.weights.values():
            tensor.grad = None


def train_step(
    method: Method,
    trials: Sequence[Trial],
    batch: Batch,
    training: Training,
    per_pass: TrialsPerPass,
    dropout_seed: int,
    last_step: int = sys.maxsize,
    graphs: CudaGraphs | None = None,
) -> None:
    """One optimizer step of every running trial on one batch, pass by pass: only one pass has gradients at a time.

    dropout_seed: seeds the dropout of this step, the same for each trial. last_step: how many steps the whole training
    has at most, for a schedule that ends with it. graphs: what runs a pass as one call on a GPU, where it can. A trial
    whose loss or gradient is not finite is marked diverged, with its step, and left as it is; the others never see it.
    Out of memory splits a pass, and a pass of one trial goes on without graphs.
    """
    method.dropout(True)
    parts, start = passes_of(method, batch), 0
    while start < len(trials):
        part = trials[start : start + per_pass.size(method, batch)]
        try:
            sums = _backward(method, part, parts, dropout_seed, graphs)
        except (RuntimeError, MemoryError) as error:
            _drop_gradients(part)
            if not is_out_of_memory(error) or not (per_pass.shrink(len(part)) or (graphs and graphs.give_up())):
                raise
            continue
        _update_finite(part, sums, sum(batch.response_lengths), training, last_step)
        _drop_gradients(part)
        start += len(part)
    method.dropout(False)


def _update_finite(
    trials: Sequence[Trial], sums: Sequence[float], tokens: int, training: Training, last_step: int
) -> None:
    norms = torch.stack([_gradient_norm(trial) for trial in trials])
    sizes: list[float] = norms.tolist()  # once for all: a GPU has to be waited for
    for trial, loss, size, norm in zip(trials, sums, sizes, norms, strict=True):
        if not (math.isfinite(loss) and math.isfinite(size)):
            trial.status, trial.diverged_at = "diverged", f"step {trial.steps + 1}"
            trial.optimizer = None
        else:
            if training.max_grad_norm is not None and size > training.max_grad_norm:
                clip_grads_with_norm_(trial.weights.values(), training.max_grad_norm, norm)
            _update(trial, training, last_step)
            trial.loss_sum += loss
            trial.loss_tokens += tokens


def _gradient_norm(trial: Trial) -> Tensor:
    """Of all tensors of a trial together, its own and no other's: a scalar."""
    return get_total_norm([tensor.grad for tensor in trial.weights.values() if tensor.grad is not None])


def _update(trial: Trial, training: Training, last_step: int) -> None:
    assert trial.optimizer is not None
    trial.steps += 1
    rate = trial.learning_rate * scheduled(trial.steps, last_step, training)
    for group in trial.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    trial.optimizer.step()
