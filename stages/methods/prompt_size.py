"""How large the vectors are that a Transformer gives: measured, and set where its last weight decides it."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from stages.language_model.base_model import Weights

AS_LARGE = 1.25  # a size that differs by no more than this factor is the one that was asked for


def size_of(vectors: Tensor) -> float:
    """The root of the mean square, of words E[v] or of prompts."""
    return float(vectors.detach().float().square().mean().sqrt())


def run(body: PreTrainedModel, weights: Weights, embedded: Tensor) -> Tensor:
    """A Transformer with these parameters: embedded [B, T, H] -> last hidden states [B, T, H]."""
    output = functional_call(body, dict(weights), (), {"inputs_embeds": embedded, "use_cache": False})
    return output.last_hidden_state  # type: ignore[no-any-return]


def last_weight(body: PreTrainedModel, embedded: Tensor) -> str:
    """The name of the weight of the module whose output is the Transformer's: its last normalisation or projection.

    Found by what comes out, in the precision of `embedded`: families name and order their modules as they like.

    Raises:
        ValueError: there is no such module, or what comes out is not finite.
    """
    outputs: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[name] = output

    with ExitStack() as hooks, torch.no_grad():
        for prefix, module in body.named_modules():
            if prefix and "weight" in dict(module.named_parameters(recurse=False)):
                hooks.enter_context(module.register_forward_hook(partial(note, f"{prefix}.weight")))
        hidden = run(body, {}, embedded)
    if not bool(torch.isfinite(hidden).all()):
        raise ValueError("its first prompts are not finite")
    for name, output in outputs.items():
        if torch.equal(output.flatten(), hidden.flatten()):
            return name
    raise ValueError("it ends in no normalisation or projection with a weight")


def weight_for_size(body: PreTrainedModel, weights: Weights, name: str, embedded: Tensor, size: float) -> Tensor:
    """The weight `name`, the last one of a Transformer, with which it gives vectors of this size.

    A normalisation gives vectors of size w, or of 1 + w in some families: what it gives for w = 0 is taken off. What a
    projection gives grows with its weight.

    Raises:
        ValueError: it does not decide the size.
    """
    weight = weights[name]
    with torch.no_grad():
        if weight.dim() == 1:
            without = size_of(run(body, {**weights, name: torch.zeros_like(weight)}, embedded))
            found = torch.full_like(weight, size - without)
        else:
            found = weight * (size / size_of(run(body, weights, embedded)))
        measured = size_of(run(body, {**weights, name: found}, embedded))
    if not size / AS_LARGE <= measured <= size * AS_LARGE:
        raise ValueError(f"with {name} at {size:.3g} its vectors have the size {measured:.3g}")
    return found
