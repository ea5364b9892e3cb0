"""The word embeddings alone: what training E does without a prompt, the control for soft and dynamic prompts."""

import torch
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.methods.method import Method, initial_embeddings


class EmbeddingsMethod(Method):
    """E[query], E[response]; only E is trained. What soft and dynamic score above it is what their prompt adds."""

    has_prompt = False

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """E as pre-trained [V, H]."""
        return initial_embeddings(self.base, train_embeddings=True)

    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> None:
        """No prompt."""
        return None
