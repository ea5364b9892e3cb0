"""A unit on a node of a Ray cluster: in a process of Ray, with the GPU or the threads that it was given."""

import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from stages.language_model.device import check_versions, gpus_given
from stages.plumbing.errors import StageError
from stages.plumbing.transport import Failed, Files, on_this_node, receive, scratch
from stages.train.checkpoint import TrainingState, record_of
from stages.train.delivery import Order, Split, Trained, name_of
from stages.train.groups import train_group
from stages.train.memory import TooLarge
from stages.train.search import best_trial, untrained
from stages.train.store import state_of
from stages.train.trials import Trial
from stages.train.unit import Trainer, Work, load_trainer


def train_unit(order: Order, subset: Files, model: Files) -> Trained | Split | Failed:
    """Train a unit in a process of Ray's and give what came of it."""
    try:
        return on_this_node(partial(_train, order, subset, model))
    except TooLarge as error:
        return Split(error.parts)


def _train(order: Order, subset: Files, model: Files, node: str, get: Callable[[Any], Any]) -> Trained:
    began = time.time()
    check_versions(order.versions)
    gpus = gpus_given()
    print(f"{name_of(order.trials)}: on node {node}, GPU {gpus or 'none'}", flush=True)
    runtime = order.share.taken(order.params.runtime)
    work = Work(
        order.params.model_copy(update={"runtime": runtime}),
        receive(subset, f"subset-{order.data_hash}", get),
        receive(model, f"model-{order.base_hash}", get),
        order.data_hash, order.base_hash, order.prompt_template, order.code,
    )  # fmt: skip
    trainer = load_trainer(work)
    state = state_of(scratch() / "train", order.fingerprint, trainer.environment, runtime.checkpoints)
    with state.lock():
        trials, weights = _trained(trainer, state, order)
        unit = {
            "trials": [trial.index for trial in trials], "environments": state.environments,
            "host": socket.gethostname(), "node": node, "gpus": gpus,
            "began": began, "fingerprint": order.fingerprint, "ended": time.time(), "cost": asdict(state.cost),
        }  # fmt: skip
    shutil.rmtree(state.folder, ignore_errors=True)
    return Trained([record_of(trial) for trial in trials], weights, unit, trainer.parameters, trainer.cuts)


def _trained(trainer: Trainer, state: TrainingState, order: Order) -> tuple[Sequence[Trial], Any]:
    """The trials of a unit, trained now or by an attempt before, and the bytes of its best weights."""
    if not order.trials:
        return [untrained(trainer.sweep, state.cost)], None
    trials = state.read_result()
    if not trials:
        trials = train_group(trainer.sweep, trainer.initial, state, order.trials)
        state.write_result(trials, _best_weights(state, trials, order), [])
    there = state.result_weights.exists()
    return trials, np.fromfile(state.result_weights, dtype=np.uint8) if there else None


def _best_weights(state: TrainingState, trials: Sequence[Trial], order: Order) -> Any:
    try:
        best = best_trial(trials, order.params.chosen_protocol.training.metric_for_best_model)
    except StageError:  # every trial of this unit diverged; the others decide
        return None
    return state.best_weights(best)
