"""The learning-rate trials of a run: which one was best, and whether it stands at an end of the range."""

from dataclasses import dataclass
from typing import Any

from stages.report.runs import Run


@dataclass(frozen=True)
class Rates:
    """The trials by rising learning rate, as the stage train writes them, and the best of them."""

    trials: list[dict[str, Any]]
    best: dict[str, Any]

    @property
    def end(self) -> str | None:
        """Which end of the range the best trial stands at, if any: the range should then be wider."""
        if self.best is self.trials[0]:
            return "lowest"
        return "highest" if self.best is self.trials[-1] else None

    @property
    def diverged(self) -> int:
        """How many trials came to no end."""
        return sum(trial["status"] != "finished" for trial in self.trials)


def rates_of(run: Run) -> Rates | None:
    """The trials of a run; None where there was no choice to make (fewer than two)."""
    trials = run.files.json("metrics/learning_rates.json") or []
    if len(trials) < 2:
        return None
    trials = sorted(trials, key=lambda trial: trial["learning_rate"])
    sound = [trial for trial in trials if trial["status"] == "finished"]
    return Rates(trials, max(sound, key=lambda trial: trial["bleu4"]))  # of equals the lowest, as in training
