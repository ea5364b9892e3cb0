"""Zero-shot: the base model as it is."""

import torch
from torch import Tensor

from stages.methods.method import Examples, Method


class ZeroShotMethod(Method):
    """The base model as it is: E[query], E[response]; nothing is trained."""

    trains = False

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """Nothing."""
        return {}
