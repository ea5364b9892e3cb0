"""The learning rate of each tensor of a trial at each step."""

from collections.abc import Collection

from stages.methods.method import EMBEDDINGS
from stages.params.schema import Training


def rate_factor(name: str, names: Collection[str], training: Training) -> float:
    """Of the trial's learning rate for one of its tensors: E beside a prompt or a controller learns more slowly.

    A prompt starts far from where it ends, E as pre-trained: one rate for both is too low for the one or too high for
    the other (our choice; metrics/recipe-cpu.md has the measurement).
    """
    return training.embeddings_rate if name == EMBEDDINGS and len(names) > 1 else 1.0


def scheduled(step: int, last_step: int, training: Training) -> float:
    """Of the learning rate at a step from 1 to `last_step`: linear warm-up, then constant or falling to zero."""
    warm = min(1.0, step / training.warmup_steps) if training.warmup_steps else 1.0
    if training.lr_scheduler_type == "constant":
        return warm
    return min(warm, (last_step - step + 1) / max(1, last_step - training.warmup_steps))
