"""The search for a learning rate: every trial is trained, the best epoch of the best one is kept (App. B).

And what a search leaves: the curves of all trials, the choice that was made, its cost, what the weights belong to.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

from stages.methods.trained_method import TEMPLATE_TEXT
from stages.params.sources import as_json
from stages.plumbing.errors import StageError
from stages.train.job import Job, load
from stages.train.ray_search import train_on_ray
from stages.train.state import TrialState, state_root
from stages.train.training import train_trial
from stages.train.trial import Cost, Row, Trial, best_trial, range_end

ANSWERS = dict.fromkeys(("train_loss", "validation_loss", "bleu4", "empty", "distinct"))  # None: not measured


def search(job: Job) -> tuple[list[Trial], Trial, TrialState]:
    """Every trial in ascending order of learning rates, the best one, and the state that has its weights.

    A trial that is done is not trained again, whichever range of learning rates it was part of. Raises StageError if
    every trial diverged, another process trains the same, or the engine cannot do it.
    """
    on_ray = job.params.runtime.engine == "ray"
    environment = None if on_ray else job.environment()  # on a cluster trials move to other machines
    root = state_root(job.params.runtime)
    states = {rate: TrialState(root, job.fingerprint(rate, environment)) for rate in job.rates()}
    loaded = cache(partial(load, job))  # if there is something to train

    def bring(rates: Sequence[float], is_best: bool) -> dict[float, Trial]:
        if on_ray:
            return train_on_ray(job, {rate: states[rate] for rate in rates}, is_best)
        return {rate: train_trial(loaded(), rate, states[rate], is_best) for rate in rates}

    found = {rate: trial for rate, state in states.items() if (trial := state.read_result())}
    if waiting := [rate for rate in states if rate not in found]:
        found |= bring(waiting, is_best=False)
    best = best_trial([found[rate] for rate in states], job.params.chosen_protocol.training.metric_for_best_model)
    rate, chosen = best.searched, states[best.searched]
    if "bleu4" not in best.best or (best.parameters and not chosen.weights.exists()):
        found |= bring([rate], is_best=True)
    if best.parameters and not chosen.weights.exists():
        remedy = "give it again; runtime.checkpoints must be one folder that all nodes see"
        raise StageError(chosen.weights, "missing", remedy)
    for other, state in states.items():
        left = state.weights.exists() or state.checkpoints.exists()  # the latter of a winner that was trained again
        if other != rate and found[other].parameters and left:
            with suppress(StageError), state.lock():  # unless another run is at work on it
                state.write_result(found[other], {})  # without its weights, which are large
    return [found[each] for each in states], found[rate], chosen


def curves(trials: Sequence[Trial], selects: str) -> list[Row]:
    """A row for each epoch of each trial; `selection` is the validation score that selects."""
    return [
        {"trial": number, "learning_rate": trial.learning_rate, **ANSWERS, **row, "selection": row[selects]}
        for number, trial in enumerate(trials)
        for row in trial.curve
    ]


def best_by_rate(trials: Sequence[Trial], selects: str) -> list[Row]:
    """A row for each trial: what it tried, its best epoch and what validation gave there."""
    rows = []
    for number, trial in enumerate(trials):
        best = trial.best if trial.curve else {"epoch": 0}
        scores = {name: best.get(name) for name in ("bleu4", "validation_loss", "epoch")}
        status = trial.status if trial.diverged_at is None else f"diverged at {trial.diverged_at}"
        rows.append({"trial": number, **trial.tried, "selection": best.get(selects), **scores, "status": status})
    return rows


def choice(best: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    """The choice that was made."""
    return {
        **best.tried,
        "epoch": best.best_epoch,
        "validation_bleu4": best.best["bleu4"],
        "validation_loss": best.best["validation_loss"],
        "best_at_range_end": range_end(best, trials),
    }


def summary(best: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    """The choice, and what was counted."""
    return {
        **choice(best, trials),
        "trials": len(trials),
        "diverged": sum(trial.status == "diverged" for trial in trials),
        "trained_parameters": best.parameters,
        **best.cuts,
    }


def cost_of(trials: Sequence[Trial], size: int) -> dict[str, Any]:
    """What all trials cost together: sums, the highest of the peaks, pairs a second; `size`: bytes of what is kept.

    And the precision of the first one, on which a speed depends. Times differ from run to run, so they stand in a file
    of their own that no stage reads.
    """
    whole: dict[str, Any] = {}
    for name in vars(Cost()):
        known = [value for trial in trials if (value := getattr(trial.cost, name)) is not None]
        value = max(known, default=None) if name.startswith("peak") else sum(known)
        whole[name] = round(value, 3) if isinstance(value, float) else value
    speed = round(whole["pairs"] / whole["seconds"], 3) if whole["pairs"] and whole["seconds"] else None
    return {**whole, "pairs_per_second": speed, "precision": trials[0].environments[-1]["precision"], "bytes": size}


def describe(job: Job, best: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    """What stands beside the trained weights."""
    params, protocol, text = job.params, job.params.chosen_protocol, job.params.chosen_model.prompt_template
    # What a chat template gave on the day of the training: some write the date, and the weights know these rows.
    resolved = {TEMPLATE_TEXT: job.prompt_template.text} if isinstance(text, str) else {}
    environments: dict[str, list[int]] = {}  # the last bits depend on it -> trials, by their numbers
    for number, trial in enumerate(trials):
        for environment in trial.environments:
            environments.setdefault(json.dumps(environment), []).append(number)
    return {
        "method": params.chosen_method.model_dump(exclude_unset=True),
        "base_model": job.base_hash,
        **choice(best, trials),
        "seed": params.seed,
        "training": protocol.training.model_dump(),
        "lengths": protocol.lengths.model_dump(),
        "prompt_template": as_json(text),
        **resolved,
        "environments": [{"trials": own, "environment": json.loads(one)} for one, own in environments.items()],
    }
