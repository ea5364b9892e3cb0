"""Engines: who runs the units of a training, this process (`local`) or a Ray cluster (`ray`)."""

from stages.plumbing.files import state_folder
from stages.train.checkpoint import fingerprint_of
from stages.train.cost import Cost
from stages.train.ray_engine import search_on_ray
from stages.train.search import run_trials, untrained
from stages.train.store import state_of
from stages.train.unit import Outcome, Work, load_trainer


def search(work: Work) -> Outcome:
    """Train every trial, by the engine that params.yaml names.

    Raises:
        StageError: every trial diverged, another process trains the same, or the engine cannot do it.
    """
    return search_on_ray(work) if work.params.runtime.engine == "ray" else _search_here(work)


def _search_here(work: Work) -> Outcome:
    trainer = load_trainer(work)
    if not trainer.parameters:
        units = [{"trials": [0], "environments": [trainer.environment]}]
        cost = Cost()
        return Outcome([untrained(trainer.sweep, cost)], None, units, 0, trainer.cuts, cost)
    name, address = fingerprint_of(work.facts(trainer.environment)), work.params.runtime.checkpoints_address
    state = state_of(state_folder() / "train", name, trainer.environment, address)
    trials = run_trials(trainer.sweep, trainer.initial, state)
    return Outcome(trials, state.result_weights, state.read_units(), trainer.parameters, trainer.cuts, state.cost)
