"""The search for a learning rate: every trial is trained, the best epoch of the best one is kept (App. B)."""

from collections.abc import Mapping
from functools import cached_property

from stages.train.job import Job, Loaded, load
from stages.train.ray_search import TrialsOnRay
from stages.train.state import TrialState, state_root
from stages.train.training import train_trial
from stages.train.trial import Trial, best_trial

States = Mapping[float, TrialState]  # of trials, by their learning rates


class TrialsHere:
    """Trials in this process, one after another."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def loaded(self) -> Loaded:
        """What they share."""
        return load(self.job)

    def __call__(self, states: States, is_best: bool) -> None:
        """Bring these trials to their results."""
        for rate, state in states.items():
            train_trial(self.loaded, rate, state, is_best)


def search(job: Job) -> tuple[list[Trial], Trial, TrialState]:
    """Every trial in ascending order of learning rates, the best one, and the state that has its weights.

    A trial that is done is not trained again, whichever range of learning rates it was part of.

    Raises:
        StageError: every trial diverged, another process trains the same, or the engine cannot do it.
    """
    on_ray = job.params.runtime.engine == "ray"
    environment = None if on_ray else job.environment()  # on a cluster trials move to other machines
    root = state_root(job.params.runtime)
    states = {rate: TrialState(root, job.fingerprint(rate, environment)) for rate in job.rates()}
    bring = TrialsOnRay(job) if on_ray else TrialsHere(job)
    if waiting := {rate: state for rate, state in states.items() if state.read_result() is None}:
        bring(waiting, is_best=False)
    trials = [_result_of(state) for state in states.values()]
    best = best_trial(trials, job.params.chosen_protocol.training.metric_for_best_model)
    state = states[best.learning_rate]
    if "bleu4" not in best.best or (best.parameters and not state.weights.exists()):
        bring({best.learning_rate: state}, is_best=True)
        best = _result_of(state)
    for trial in trials:
        if trial.learning_rate != best.learning_rate and states[trial.learning_rate].weights.exists():
            states[trial.learning_rate].replace_result(trial)  # without its weights, which are large
    return [best if trial.learning_rate == best.learning_rate else trial for trial in trials], best, state


def _result_of(state: TrialState) -> Trial:
    trial = state.read_result()
    assert trial is not None, state.folder
    return trial
