"""The soft prompt: one trained prompt for all queries (Sec. 3, Eq. 2)."""

import torch
from torch import Tensor

from stages.language_model.base_model import BaseModel, Weights
from stages.methods.method import EMBEDDINGS, Examples, Method, initial_embeddings
from stages.params.methods import Soft

PROMPT = "prompt"  # Z [P, H]


class SoftMethod(Method):
    """One prompt for all queries: Z[0:S], E[query], E[response]; Z and E are trained (Sec. 3, Eq. 2)."""

    settings: Soft

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """Z [P, H], random or the embeddings of words drawn from the vocabulary; E as pre-trained."""
        count = self.settings.prompt_tokens
        if self.settings.init == "vocabulary":
            words = torch.randint(len(self.base.embeddings), (count,), generator=generator)
            table = self.base.embed(words.to(self.base.device)).detach().float().cpu()
        else:
            table = _random_like_embeddings(self.base, count, self.base.width, generator=generator)
        return {PROMPT: table, **initial_embeddings(self.base, self.settings.train_embeddings)}

    def shapes(self) -> dict[str, torch.Size]:
        """The same."""
        own = {PROMPT: torch.Size((self.settings.prompt_tokens, self.base.width))}
        return own | ({EMBEDDINGS: self.base.embeddings.shape} if self.settings.train_embeddings else {})

    def prompt(self, weights: Weights, queries: Tensor) -> Tensor:
        """Z[0:S] for every query: "we set the length of the soft prompt to the length of S"."""
        batch, tokens, _ = queries.shape
        return weights[PROMPT][:tokens].to(queries.dtype).expand(batch, tokens, -1)


def _random_like_embeddings(base: BaseModel, *shape: int, generator: torch.Generator) -> Tensor:
    """Normal values with the mean and spread of embedded words: "randomly initialised word embeddings"."""
    words = base.words()
    mean, spread = float(words.mean()), float(words.std())
    return torch.randn(*shape, generator=generator) * spread + mean
