"""Groups of trials, trained one after another; a group that is too large for the memory is split, not given up."""

import gc
from collections.abc import Sequence

from stages.language_model.base_model import Weights
from stages.plumbing.errors import is_out_of_memory
from stages.train.checkpoint import TrainingState
from stages.train.memory import Numbered, TooLarge, check_room, split
from stages.train.sweep import Sweep
from stages.train.trials import Trial, new_trial


def train_group(sweep: Sweep, initial: Weights, state: TrainingState, numbered: Sequence[Numbered]) -> list[Trial]:
    """Train the trials of a group together, from their last checkpoint if there is one.

    A group that has a checkpoint is never split: the parts could not go on from it.

    Raises:
        TooLarge: it does not fit into the memory, in parts it may.
        StageError: not even one trial does.
    """
    begun = state.has_begun(numbered[0][0])
    if not begun:
        check_room(sweep, initial, numbered)
    try:
        trials = [new_trial(initial, *one, sweep.training, sweep.method.base.device) for one in numbered]
        sweep.run(trials, state)
        return trials
    except (RuntimeError, MemoryError) as error:
        if len(numbered) == 1 or begun or state.has_begun(numbered[0][0]) or not is_out_of_memory(error):
            raise
    trials = []
    gc.collect()  # the error held what it met, in a circle
    parts = split(numbered, 2)
    print(f"out of memory: {len(numbered)} trials go on in groups of {len(parts[0])}")
    raise TooLarge(parts)


def train_groups(
    sweep: Sweep, initial: Weights, state: TrainingState, groups: Sequence[Sequence[Numbered]]
) -> list[Trial]:
    """Train one group after another; `state` remembers which had to be split."""
    waiting = state.read_groups(groups)
    done: list[list[Numbered]] = []
    trials: list[Trial] = []
    while waiting:
        numbered = waiting.pop(0)
        try:
            trials += train_group(sweep, initial, state, numbered)
        except TooLarge as error:
            waiting = [*error.parts, *waiting]
            state.write_groups([*done, *waiting])
        else:
            done.append(numbered)
    return trials
