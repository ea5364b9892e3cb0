"""What a search leaves: the curves of all trials, the choice that was made, its cost, what the weights belong to."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from stages.methods.trained_method import TEMPLATE_TEXT
from stages.params.sources import as_json
from stages.train.job import Job
from stages.train.trial import SELECTS, Cost, Row, Trial, range_end

ANSWERS = dict.fromkeys(("train_loss", "validation_loss", "bleu4", "empty", "distinct"))  # None: not measured


def curves(trials: Sequence[Trial], metric: str) -> list[Row]:
    """A row for each epoch of each trial; `selection` is the validation score that selects."""
    return [
        {"trial": number, "learning_rate": trial.learning_rate, **ANSWERS, **row, "selection": row[SELECTS[metric]]}
        for number, trial in enumerate(trials)
        for row in trial.curve
    ]


def best_by_rate(trials: Sequence[Trial], metric: str) -> list[Row]:
    """A row for each trial: its learning rate, its best epoch and what validation gave there."""
    rows = []
    for number, trial in enumerate(trials):
        best = trial.best if trial.curve else {}
        rows.append(
            {
                "trial": number,
                "learning_rate": trial.learning_rate,
                "selection": best.get(SELECTS[metric]),
                "bleu4": best.get("bleu4"),
                "validation_loss": best.get("validation_loss"),
                "epoch": best.get("epoch", 0),
                "status": trial.status if trial.diverged_at is None else f"diverged at {trial.diverged_at}",
            }
        )
    return rows


def choice(best: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    """The choice that was made."""
    return {
        "learning_rate": best.learning_rate,
        "epoch": best.best_epoch,
        "validation_bleu4": best.best["bleu4"],
        "validation_loss": best.best["validation_loss"],
        "best_at_range_end": range_end(best, trials),
    }


def summary(best: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    """The choice, and what was counted."""
    diverged = sum(trial.status == "diverged" for trial in trials)
    counts = {"trials": len(trials), "diverged": diverged, "trained_parameters": best.parameters, **best.cuts}
    return {**choice(best, trials), **counts}


def cost_of(trials: Sequence[Trial], size: int) -> dict[str, Any]:
    """What all trials cost together: sums, the highest of the peaks, pairs a second; `size`: bytes of the weights.

    Times differ from run to run, so they stand in a file of their own that no stage reads.
    """
    whole: dict[str, Any] = {}
    for name in (each.name for each in fields(Cost)):
        known = [value for trial in trials if (value := getattr(trial.cost, name)) is not None]
        value = max(known, default=None) if name.startswith("peak") else sum(known)
        whole[name] = round(value, 3) if isinstance(value, float) else value
    speed = round(whole["pairs"] / whole["seconds"], 3) if whole["pairs"] and whole["seconds"] else None
    return {**whole, "pairs_per_second": speed, "trained_parameters": trials[0].parameters, "bytes": size}


def describe(job: Job, best: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    """What stands beside the trained weights."""
    params, protocol, text = job.params, job.params.chosen_protocol, job.params.chosen_model.prompt_template
    # What a chat template gave on the day of the training: some write the date, and the weights know these rows.
    resolved = {TEMPLATE_TEXT: job.prompt_template.text} if isinstance(text, str) else {}
    return {
        "method": params.chosen_method.model_dump(),
        "base_model": job.base_hash,
        **choice(best, trials),
        "seed": params.seed,
        "training": protocol.training.model_dump(),
        "lengths": protocol.lengths.model_dump(),
        "prompt_template": as_json(text),
        **resolved,
        "environment": best.environments[-1],
        "environments": environments_of(trials),
    }


def environments_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Each environment that trials were trained in, with their numbers: the last bits depend on it."""
    found: list[dict[str, Any]] = []
    for number, trial in enumerate(trials):
        for environment in trial.environments:
            entry = next((one for one in found if one["environment"] == environment), None)
            if entry is None:
                found.append(entry := {"trials": [], "environment": environment})
            entry["trials"].append(number)
    return found
