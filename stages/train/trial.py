"""A trial: one learning rate, how far it has come, what it has cost and what became of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from stages.params.schema import Training
from stages.plumbing.errors import StageError
from stages.plumbing.progress import peak_gpu_memory, peak_memory

Row = dict[str, Any]
SELECTS: dict[str, str] = {"bleu4": "bleu4", "loss": "validation_loss"}  # metric_for_best_model -> its key in a row


@dataclass
class Cost:
    """What a trial has cost, of all processes that worked on it; what was lost in a kill is not counted."""

    seconds: float = 0.0  # in training steps
    validation_seconds: float = 0.0
    pairs: int = 0  # that were trained on: once for each epoch
    stopped: int = 0  # how often it went on from a checkpoint
    peak_memory_bytes: int = 0  # of the process, with everything that it had loaded
    peak_gpu_bytes: int | None = None  # None on a CPU

    @contextmanager
    def timed(self, part: Literal["seconds", "validation_seconds"]) -> Iterator[None]:
        """Add the time of a block, however it ends, and look at the peaks of memory."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.monotonic() - began)
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory())
            self.peak_gpu_bytes = max(filter(None, (self.peak_gpu_bytes, peak_gpu_memory())), default=None)


@dataclass
class Trial:
    """A trial without its tensors, as checkpoints and results hold it in JSON."""

    learning_rate: float  # 0 for a method that trains nothing
    examples: int = 0  # in the context, of few-shot
    parameters: int = 0  # how many numbers it trains; 0 for a method that trains nothing
    cuts: dict[str, int] = field(default_factory=dict)  # how many texts were cut
    environments: list[dict[str, Any]] = field(default_factory=list)  # in which it was trained, the earliest first
    cost: Cost = field(default_factory=Cost)
    status: Literal["running", "finished", "diverged"] = "running"
    epoch: int = 1  # the next thing to do is step `step` (from 0) of this epoch
    step: int = 0
    steps: int = 0  # of the optimizer
    loss_sum: float = 0.0  # of the epoch under way: of the loss of every response token
    loss_tokens: int = 0
    curve: list[Row] = field(default_factory=list)  # a row for each epoch
    best_epoch: int | None = None  # None: none has ended yet
    diverged_at: str | None = None

    @property
    def searched(self) -> float:
        """What tells it from the other trials: its learning rate, or its number of examples."""
        return self.learning_rate or float(self.examples)

    @property
    def tried(self) -> Row:
        """The same, by its name."""
        return {"learning_rate": self.learning_rate, **({"examples": self.examples} if self.examples else {})}

    @property
    def best(self) -> Row:
        """The row of the best epoch."""
        return next(row for row in self.curve if row["epoch"] == self.best_epoch)

    def record_epoch(self, scores: Row, training: Training) -> bool:
        """Close an epoch, given what `validate` gave; True if it is the best so far.

        Stops the trial when patience or the epochs are used up.
        """
        train_loss = self.loss_sum / self.loss_tokens if self.loss_tokens else None
        row = {"epoch": self.epoch, "train_loss": train_loss, **scores}
        metric = training.metric_for_best_model
        better = self.best_epoch is None or quality(row, metric) > quality(self.best, metric)
        self.curve.append(row)
        self.loss_sum, self.loss_tokens = 0.0, 0
        if better:
            self.best_epoch = self.epoch
        waited = self.epoch - (self.best_epoch or 0)
        if not self.parameters or waited >= training.early_stopping_patience or self.epoch >= training.num_train_epochs:
            self.status = "finished"
        return better

    def diverge(self, where: str) -> None:
        """Its loss or a gradient is not finite: it stays as it was before."""
        self.status, self.diverged_at = "diverged", where


def quality(row: Row, metric_for_best_model: str) -> float:
    """What the best epoch is chosen by, the higher the better: validation BLEU-4, or the loss with a minus."""
    value = float(row[SELECTS[metric_for_best_model]])
    return value if metric_for_best_model == "bleu4" else -value


def best_trial(trials: Sequence[Trial], metric_for_best_model: str) -> Trial:
    """The trial whose best epoch is the best of all (App. B); of equals that with the lowest rate or fewest examples.

    A trial that diverged takes part with the epochs that it ended before; StageError if every one did in its first.
    """
    ended = [trial for trial in trials if trial.curve]
    if not ended:
        steps = ", ".join(f"{trial.learning_rate:.2g} at {trial.diverged_at}" for trial in trials)
        remedy = "lower methods.<name>.learning_rate, or the range in protocols.<name>.training.learning_rates"
        raise StageError("training", f"every trial diverged ({steps})", remedy)
    return max(ended, key=lambda trial: (quality(trial.best, metric_for_best_model), -trial.searched))


def range_end(best: Trial, trials: Sequence[Trial]) -> str | None:
    """Which end of the range of learning rates the best trial stands at, if any: the range should then be wider."""
    rates = [trial.searched for trial in trials]
    ends = {min(rates): "lowest", max(rates): "highest"}
    return ends.get(best.searched) if len(ends) > 1 else None
