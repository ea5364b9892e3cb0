"""Zero-shot: the base model as it is."""

import torch
from torch import Tensor

from stages.methods.method import Method


class ZeroShotMethod(Method):
    """The base model as it is: E[query], E[response]; nothing is trained."""

    has_prompt = False

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Nothing."""
        return {}
