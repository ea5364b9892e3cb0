"""Fine-tuning, the paper's baseline (Sec. 3, "Fine-tuning")."""

import torch
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.methods.method import Examples, Method


class FineTuneMethod(Method):
    """The baseline: E[query], E[response]; every parameter of the model is trained (Sec. 3, "Fine-tuning")."""

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """Every parameter of the base model by its name there; tied ones once."""
        return {name: value.detach().float().cpu() for name, value in self.base.model.named_parameters()}

    def shapes(self) -> dict[str, torch.Size]:
        """The same."""
        return {name: value.shape for name, value in self.base.model.named_parameters()}

    def embed(self, weights: Weights, tokens: Tensor) -> Tensor:
        """E[tokens] by the trial's own E."""
        return self.base.embed(tokens, weights[self.base.embeddings_name()])

    def language_model(self, weights: Weights) -> Weights:
        """All of them."""
        return weights

    def layers(self, weights: Weights) -> Weights:
        """All of them."""
        return weights

    def dropout(self, on: bool) -> None:
        """Wherever the architecture has it."""
        self.base.model.train(on)

    def output(self, weights: Weights) -> Weights:
        """The trial's own output layer: E where the model ties them."""
        own = {"weight": weights[self.base.embeddings_name()]} if self.base.tied else {}
        prefix = self.base.output_name() + "."
        return own | {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
