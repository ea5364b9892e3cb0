"""The learning-rate trials of a run: which one was best, and whether it is at an end of the range."""

from dataclasses import dataclass
from typing import Any

from stages.report.runs import Run


@dataclass(frozen=True)
class Rates:
    """The trials in ascending order of learning rate, as the stage train writes them, and the best trial."""

    trials: list[dict[str, Any]]
    best: dict[str, Any]

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
    trials = run.files.json("metrics/learning_rates.json") or []
    if len(trials) < 2:
        return None
    trials = sorted(trials, key=lambda trial: trial["learning_rate"])
    finished = [trial for trial in trials if trial["status"] == "finished"]
    return Rates(trials, max(finished, key=lambda trial: trial["bleu4"]))  # the lowest of equal ones, as in training
