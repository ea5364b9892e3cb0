"""The word embeddings alone: what training E does without a prompt, the control for soft and dynamic prompts."""

import torch
from torch import Tensor

from stages.methods.method import EMBEDDINGS, Examples, Method, initial_embeddings


class EmbeddingsMethod(Method):
    """E[query], E[response]; only E is trained. What soft and dynamic score above it is what their prompt adds."""

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """E as pre-trained [V, H]."""
        return initial_embeddings(self.base, train_embeddings=True)

    def shapes(self) -> dict[str, torch.Size]:
        """E."""
        return {EMBEDDINGS: self.base.embeddings.shape}
