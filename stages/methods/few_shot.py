"""Examples in the context: training pairs in the prompt template in front of every query. Nothing is trained."""

import torch
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.language_model.cache import Beginning, read_beginning
from stages.methods.method import Examples, Method

CONTEXT = "context"  # token ids of the examples, one after another


class FewShotMethod(Method):
    """E[examples], E[query], E[response]: the context is the same for all queries, and is read once for all of them."""

    trains = False
    _read: tuple[list[int], Weights] | None = None

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """The context as token ids: all it needs."""
        return {CONTEXT: torch.tensor([token for row in examples for token in row], dtype=torch.long)}

    def shapes(self) -> dict[str, torch.Size]:
        """Its length is not known before the examples are."""
        return {CONTEXT: torch.Size((0,))}

    def prepared(self, weights: Weights) -> Weights:
        """Keys and values of the context at each layer, [2, heads, C, size]: read once, however often a chat asks."""
        tokens = weights[CONTEXT].tolist()
        if self._read is None or self._read[0] != tokens:
            found = read_beginning(self.base, tokens)
            self._read = tokens, {f"{layer:03d}": torch.stack(both) for layer, both in enumerate(found)}
        return self._read[1]

    def beginning(self, weights: Weights) -> list[Beginning]:
        """What `prepared` read."""
        return [(weights[layer][0], weights[layer][1]) for layer in sorted(weights)]
