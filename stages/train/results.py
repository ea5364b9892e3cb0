"""What a search leaves: the curves of all trials, the choice that was made, what the trained weights belong to."""

from collections.abc import Sequence
from typing import Any

from stages.methods.trained_method import TEMPLATE_TEXT
from stages.params.sources import as_json
from stages.train.search import range_end
from stages.train.trials import Trial
from stages.train.unit import Outcome, Work


def curves(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row for each epoch of each trial."""
    return [row for trial in trials for row in trial.curve]


def best_by_rate(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row for each trial: its learning rate, its best epoch and what validation gave there."""
    return [
        {
            "trial": trial.index,
            "learning_rate": trial.learning_rate,
            "bleu4": max(trial.best_bleu4, 0.0),
            "validation_loss": trial.best_loss,
            "epoch": trial.best_epoch,
            "status": trial.status if trial.diverged_at is None else f"diverged at {trial.diverged_at}",
        }
        for trial in trials
    ]


def summary(trials: Sequence[Trial], best: Trial, counts: dict[str, int]) -> dict[str, Any]:
    """The choice that was made; `counts` are added."""
    return {
        "learning_rate": best.learning_rate,
        "epoch": best.best_epoch,
        "validation_bleu4": best.best_bleu4,
        "validation_loss": best.best_loss,
        "best_at_range_end": range_end(best, trials),
        "trials": len(trials),
        "diverged": sum(trial.status == "diverged" for trial in trials),
        **counts,
    }


def describe(work: Work, best: Trial, end: str | None, outcome: Outcome) -> dict[str, Any]:
    """What stands beside the trained weights."""
    params, protocol, prompt_template = (
        work.params,
        work.params.chosen_protocol,
        work.params.chosen_model.prompt_template,
    )
    # What a chat template gave on the day of the training: some write the date, and the weights know these rows.
    resolved = {TEMPLATE_TEXT: work.prompt_template.text} if isinstance(prompt_template, str) else {}
    return {
        "method": params.chosen_method.model_dump(),
        "base_model": work.base_hash,
        "learning_rate": best.learning_rate,
        "epoch": best.best_epoch,
        "validation_bleu4": best.best_bleu4,
        "validation_loss": best.best_loss,
        "best_at_range_end": end,
        "seed": params.seed,
        "training": protocol.training.model_dump(),
        "lengths": protocol.lengths.model_dump(),
        "prompt_template": as_json(prompt_template),
        **resolved,
        "environment": outcome.environment_of(best),
        "environments": outcome.environments(),
    }
