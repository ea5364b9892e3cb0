"""The search for a learning rate: every trial is trained, the best epoch of the best one is kept (App. B)."""

from collections.abc import Sequence

from stages.language_model.base_model import Weights
from stages.methods.method import Method
from stages.params.schema import Training
from stages.plumbing.errors import StageError
from stages.plumbing.signals import StopRequest
from stages.train.checkpoint import TrainingState
from stages.train.cost import Cost
from stages.train.groups import train_groups
from stages.train.sweep import Sweep
from stages.train.trials import SelectBy, Trial


def groups_of_trials(method: Method | type[Method], training: Training) -> list[list[tuple[int, float]]]:
    """(number, learning rate) of the trials, grouped by pass: all together where the layers are shared, else alone."""
    numbered = list(enumerate(training.learning_rates.values()))
    return [numbered] if method.shares_layers else [[one] for one in numbered]


def run_trials(sweep: Sweep, initial: Weights, state: TrainingState) -> list[Trial]:
    """Train every trial, or find it finished; `state` has the best one's weights at the end.

    Raises:
        StageError: every trial diverged, or another process trains the same.
    """
    with state.lock():
        trials = state.read_result()
        if not trials:
            groups = groups_of_trials(sweep.method, sweep.training)
            trials = train_groups(sweep, initial, state, groups)
            trained = [[index for index, _ in group] for group in state.read_groups(groups)]
            units = [{"trials": numbers, "environments": state.environments} for numbers in trained]
            state.write_result(
                trials, state.best_weights(best_trial(trials, sweep.training.metric_for_best_model)), units
            )
        state.keep_result_only()
    return trials


def best_trial(trials: Sequence[Trial], metric_for_best_model: SelectBy) -> Trial:
    """The trial whose best epoch is the best of all (App. B); of equals the one with the lowest learning rate.

    A trial that diverged takes part with the epochs that it ended before.

    Raises:
        StageError: every trial diverged in its first epoch.
    """
    ended = [trial for trial in trials if trial.curve]
    if not ended:
        steps = ", ".join(f"{trial.learning_rate:.2g} at {trial.diverged_at}" for trial in trials)
        raise StageError(
            "training",
            f"every trial diverged ({steps})",
            "lower methods.<name>.learning_rate, or the range in protocols.<name>.training.learning_rates",
        )
    return max(ended, key=lambda trial: (trial.quality(metric_for_best_model), -trial.index))


def untrained(sweep: Sweep, cost: Cost) -> Trial:
    """The one trial of a method that trains nothing: only validated, as epoch 0; what that took is added to `cost`."""
    trial = Trial(0, 0.0, {}, None)
    with StopRequest() as stop, cost.timed("validation_seconds"):
        (validation,) = sweep.validate([trial], stop, "untrained")
    trial.record_epoch(0, validation, sweep.training)
    trial.status = "finished"
    return trial


def range_end(trial: Trial, trials: Sequence[Trial]) -> str | None:
    """Which end of the range of learning rates the best trial stands at, if any: the range should then be wider."""
    if len(trials) < 2 or trial.index not in (0, len(trials) - 1):
        return None
    return "lowest" if trial.index == 0 else "highest"
