"""What every method is: what it trains, the prompt that it makes from a query, and how its rows are laid out (Sec. 3).

Symbols: B batch, S query tokens with end-of-text, P prompt slots, H width, V vocabulary. A trial is the named tensors
that one learning rate trains; everything else is the base model's, frozen and shared.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from stages.language_model.base_model import Added, BaseModel, Weights
from stages.language_model.cache import Beginning, hidden_after
from stages.methods.row_layout import Layout
from stages.params.methods import Start
from stages.plumbing.errors import StageError

Examples = Sequence[Sequence[int]]  # token ids of training pairs in the prompt template, drawn by the seed
EMBEDDINGS = "embeddings"  # E [V, H], the word embeddings; the output layer too where the model ties them


class Method:
    """One way to make a language model answer. Stateless: all that is trained is in the trial's weights.

    Attributes:
        trains: False if what it starts with is all that it keeps.
        trains_embeddings: whether E is trained, under the name EMBEDDINGS.
        transformer: the model whose layers read the rows: the base model, or one with something trained in between.
        records: whether its passes can be CUDA graphs, as far as is known.
        strict: whether every operation of its backward passes has a deterministic algorithm, as far as is known.
    """

    trains: ClassVar[bool] = True
    records = strict = True
    trains_embeddings = False

    def __init__(self, base: BaseModel, settings: Any) -> None:
        self.base, self.settings, self.transformer = base, settings, base
        self.trains_embeddings = getattr(settings, "train_embeddings", self.trains_embeddings)

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """What a trial trains, at its start, in float32 on the CPU, by the names under which it is saved.

        Meant for a base model in float32: one in bfloat16 has lost the last bits of the pre-trained weights. It may
        share memory with the base model: whoever changes it copies it first.

        examples: training pairs, for a method that starts from some.
        """
        return {EMBEDDINGS: self.base.embeddings.detach().float().cpu()} if self.trains_embeddings else {}

    def shapes(self) -> dict[str, torch.Size]:
        """Name and shape of everything that a trial trains and saves; of a base model without values too."""
        return {EMBEDDINGS: self.base.embeddings.shape} if self.trains_embeddings else {}

    def prompt(self, weights: Weights, queries: Tensor) -> Tensor:
        """Embedded queries [B, S, H] -> prompts [B, P, H], as many slots as the settings say: none here."""
        return queries[:, :0].detach()

    def layout(self, queries: Sequence[int], responses: Sequence[int]) -> Layout:
        """The rows of B pairs, [3, B], from the tokens of their queries and responses, [B] each."""
        return np.array([[self.settings.slots(tokens) for tokens in queries], queries, responses])

    def beginning(self, weights: Weights) -> list[Beginning] | None:
        """Keys and values of each layer that every row begins with, before its first token; None for none."""
        return None

    def hidden(self, weights: Weights, rows: Tensor, added: Added | None = None) -> Tensor:
        """Embedded rows [B, T, H] of one pass, padded on the right -> last hidden states [B, T, H]."""
        if beginning := self.beginning(weights):
            return hidden_after(self.transformer, beginning, rows)
        return self.transformer.hidden(rows, weights=self.layers(weights), added=added)

    def added(self, weights: Weights, prompt: Tensor, source: Tensor) -> Added | None:
        """What rows add to their hidden states where slots of a prompt [B, P, H] stand; None for nothing.

        source: the slot in each column, [B, T]; what is not below P is none. What padding adds, nobody sees.
        """
        return None

    def prepared(self, weights: Weights) -> Weights:
        """The weights in the precision of the arithmetic: cast once, used all through a step or a decoding."""
        return {name: value.to(self.base.dtype) for name, value in weights.items()}

    def embed(self, weights: Weights, tokens: Tensor) -> Tensor:
        """E[tokens]: [...] -> [..., H]."""
        return self.base.embed(tokens, weights.get(EMBEDDINGS))

    def language_model(self, weights: Weights) -> Weights:
        """Parameters that take the place of the language model's own, by their names there; tied ones once."""
        return {self.base.embeddings_name(): weights[EMBEDDINGS]} if EMBEDDINGS in weights else {}

    def layers(self, weights: Weights) -> Weights | None:
        """Parameters that take the place of the frozen Transformer's; None where it is shared."""
        return None

    def dropout(self, on: bool) -> None:
        """Let dropout act in what is trained, or let it rest; frozen layers have none."""

    def output(self, weights: Weights) -> Weights | None:
        """Parameters of the output layer; None for the base model's own."""
        if EMBEDDINGS in weights and self.base.tied:
            return {"weight": weights[EMBEDDINGS]}
        return None


def start_tokens(
    base: BaseModel, start: Start, count: int, generator: torch.Generator, examples: Examples
) -> list[int]:
    """What a prompt or a prefix starts as: token ids drawn from the vocabulary, or the last ones of some examples.

    So an example ends where the query begins. Where there are few, they are repeated.

    Raises:
        StageError: there are no examples.
    """
    tokens: list[int] = []
    if start != "examples":
        tokens = torch.randint(len(base.embeddings), (count,), generator=generator).tolist()
    elif not examples:
        found = "examples, but there are no training pairs"
        raise StageError("params.yaml: methods.<name>.init", found, "set vocabulary")
    some = cycle(examples)
    while len(tokens) < count:
        tokens += next(some)
    return tokens[-count:]
