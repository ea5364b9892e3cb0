"""The soft prompt: one trained prompt for all queries (Sec. 3, Eq. 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.language_model.base_model import Added, Weights
from stages.methods.method import Examples, Method, start_tokens
from stages.params.methods import Soft

PROMPT = "prompt"  # Z [P, H]
DEPTH = "depth"  # [L - 1, P, H]: added to the hidden states of the slots in front of each layer but the first one


class SoftMethod(Method):
    """One prompt for all queries: Z[0:S], E[query], E[response]; Z and E are trained (Sec. 3, Eq. 2).

    With a fixed length and E frozen it is prompt tuning (Lester et al. 2021, arXiv 2104.08691).
    """

    settings: Soft

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """Z [P, H], random or the embeddings of drawn words or training pairs; E as pre-trained."""
        shapes, start = self.shapes(), self.settings.init
        if start == "random":
            words = self.base.words()  # with their mean and spread: "randomly initialised word embeddings"
            table = torch.randn(shapes[PROMPT], generator=generator) * float(words.std()) + float(words.mean())
        else:
            tokens = torch.tensor(start_tokens(self.base, start, shapes[PROMPT][0], generator, examples))
            table = self.base.embed(tokens.to(self.base.device)).detach().float().cpu()
        deep = {DEPTH: torch.zeros(shapes[DEPTH])} if DEPTH in shapes else {}
        return {PROMPT: table, **deep, **super().initial_weights(generator)}

    def shapes(self) -> dict[str, torch.Size]:
        """The same."""
        config, rows = self.base.model.config, self.settings.slots(self.settings.prompt_tokens)
        found = {PROMPT: torch.Size((rows, self.base.width))}
        if self.settings.depth == "every-layer":
            found[DEPTH] = torch.Size((config.num_hidden_layers - 1, rows, config.hidden_size))
        return found | super().shapes()

    def prompt(self, weights: Weights, queries: Tensor) -> Tensor:
        """Z[0:S] for every query: "we set the length of the soft prompt to the length of S"; or all of a fixed Z."""
        table = weights[PROMPT][: self.settings.slots(queries.shape[1])].to(queries.dtype)
        return table.expand(len(queries), -1, -1)

    def added(self, weights: Weights, prompt: Tensor, source: Tensor) -> Added | None:
        """The rows of `depth`, and zeros where no slot is."""
        if DEPTH not in weights:
            return None
        tables = F.pad(weights[DEPTH], (0, 0, 0, 1))  # the last row is for what is no slot
        own = source.masked_fill(source >= prompt.shape[1], tables.shape[1] - 1)
        return lambda layer: F.embedding(own, tables[layer])
