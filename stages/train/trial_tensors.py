"""The tensors of a trial by name, as a checkpoint has them: its weights and both moments of Adam."""

import torch
from torch import Tensor

from stages.train.trials import Trial

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam; its step is the same number for all: Trial.steps


def tensors_of(trial: Trial) -> dict[str, Tensor]:
    """Weights and both moments of Adam, by name."""
    assert trial.optimizer is not None
    tensors = {name: weight.detach() for name, weight in trial.weights.items()}
    for name, weight in trial.weights.items():
        state = trial.optimizer.state.get(weight, {})
        tensors |= {f"{name}|{moment}": state[moment] for moment in MOMENTS if moment in state}
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def check_tensors(trial: Trial, steps: int, tensors: dict[str, Tensor]) -> None:
    """Refuse a checkpoint that lacks a tensor, has one too many or one of another shape.

    Raises:
        ValueError: it does; the message names the first.
    """
    parts = ("", *(f"|{moment}" for moment in MOMENTS)) if steps else ("",)
    expected = {f"{name}{part}": weight.shape for name, weight in trial.weights.items() for part in parts}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(f"its tensor {name} is missing, unknown or of another shape")


def restore(trial: Trial, tensors: dict[str, Tensor]) -> None:
    """Put them into a trial that was freshly made; its `steps` are those of the checkpoint."""
    assert trial.optimizer is not None
    for name, weight in trial.weights.items():
        with torch.no_grad():
            weight.copy_(tensors[name])
        if trial.steps:
            moments = {moment: tensors[f"{name}|{moment}"].to(weight.device) for moment in MOMENTS}
            step = torch.tensor(float(trial.steps), device=weight.device if weight.is_cuda else "cpu")
            trial.optimizer.state[weight] = {"step": step, **moments}
