"""The learning-rate trials of a run: which one was best, and whether it is at an end of the range."""

from dataclasses import dataclass
from math import inf
from typing import Any

from stages.report.runs import Run

Trial = dict[str, Any]


@dataclass(frozen=True)
class Rates:
    """The trials in ascending order of learning rate, as the stage train writes them, and the best trial."""

    run: Run
    trials: list[Trial]
    best: Trial

    @property
    def end(self) -> str | None:
        """The end of the range at which the best trial is, if any; then the range should be wider."""
        if self.best is self.trials[0]:
            return "lowest"
        return "highest" if self.best is self.trials[-1] else None

    @property
    def diverged(self) -> int:
        """How many trials diverged."""
        return sum(trial["status"] != "finished" for trial in self.trials)


def rates_of(run: Run) -> Rates | None:
    """The trials of a run; None if there were fewer than two, so that there was no choice."""
    trials = trials_of(run)
    return Rates(run, trials, chosen(run, trials)) if len(trials) > 1 else None


def trials_of(run: Run) -> list[Trial]:
    """The trials of a run in ascending order of learning rate; none if they are not available."""
    found = run.files.json("metrics/learning_rates.json") or []
    return sorted(found, key=lambda trial: float(trial["learning_rate"]))


def chosen(run: Run, trials: list[Trial]) -> Trial:
    """The trial that training kept, by the score that its protocol selects by; the lowest of equal ones."""
    by_loss = run.entry("protocol")["training"].get("metric_for_best_model") == "loss"

    def quality(trial: Trial) -> float:
        loss = trial.get("validation_loss")
        return float(trial["bleu4"]) if not by_loss else -inf if loss is None else -float(loss)

    return max((trial for trial in trials if trial["epoch"] or trial["status"] == "finished"), key=quality)


def validation_loss(run: Run) -> float | None:
    """The loss per response token of the validation pairs, of the weights that were kept; None if not recorded."""
    trials = trials_of(run)
    loss = chosen(run, trials).get("validation_loss") if trials else None
    return None if loss is None else float(loss)
