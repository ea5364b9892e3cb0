"""A prefix: trained keys and values at every layer (Li and Liang 2021, arXiv 2101.00190), without reparametrisation."""

import torch
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.language_model.cache import Beginning, read_beginning
from stages.methods.method import Examples, Method, start_tokens
from stages.params.methods import Prefix
from stages.plumbing.errors import StageError

KEYS, VALUES = "keys", "values"  # [L, heads, P, size] each


class PrefixMethod(Method):
    """P keys and values at every layer, E[query], E[response]; these alone are trained."""

    settings: Prefix

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """Keys and values [L, heads, P, size] that P tokens have: of training pairs, or of words from the vocabulary.

        `examples`: so many pairs that P tokens are there, the last P of them, so that a pair ends where the query
        begins: what few-shot with these examples reads. `random`: normal, as large as those of words.

        Raises:
            StageError: a layer keeps other keys or values than the model's configuration says.
        """
        tokens = start_tokens(self.base, self.settings.init, self.settings.length, generator, examples)
        found = read_beginning(self.base, tokens)
        if {each.shape for both in found for each in both} != {self.shapes()[KEYS][1:]}:
            told = f"{type(self.base.model).__name__} has layers of unequal heads, or others than its config.json says"
            raise StageError(self.base.folder, told, "use another method")
        both = [torch.stack(each).float().cpu() for each in zip(*found, strict=True)]
        if self.settings.init == "random":
            size = [each.std(dim=(1, 2, 3), keepdim=True) for each in both]
            both = [torch.randn(each.shape, generator=generator) * own for each, own in zip(both, size, strict=True)]
        return dict(zip((KEYS, VALUES), both, strict=True))

    def shapes(self) -> dict[str, torch.Size]:
        """The same."""
        return dict.fromkeys((KEYS, VALUES), self.base.cache_shape(self.settings.length))

    def beginning(self, weights: Weights) -> list[Beginning]:
        """The keys and values of each layer."""
        return list(zip(weights[KEYS], weights[VALUES], strict=True))
