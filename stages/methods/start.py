"""The tokens that a prompt or a prefix starts as: training pairs, or words drawn from the vocabulary."""

from itertools import accumulate, cycle

import torch

from stages.language_model.base_model import BaseModel
from stages.methods.method import Examples
from stages.params.methods import Start
from stages.plumbing.errors import StageError


def start_tokens(
    base: BaseModel, start: Start, count: int, generator: torch.Generator, examples: Examples
) -> list[int]:
    """So many token ids: of examples, so that one ends where the query begins, or else drawn from the vocabulary."""
    if start == "examples":
        return context_of(examples, count)
    tokens: list[int] = torch.randint(len(base.embeddings), (count,), generator=generator).tolist()
    return tokens


def context_of(examples: Examples, tokens: int) -> list[int]:
    """The last so many tokens of as many examples, one after another, as they take; from the first again if need be.

    Raises:
        StageError: there are no examples.
    """
    if not examples:
        raise StageError(
            "params.yaml: methods.<name>.init", "examples, but there are no training pairs", "set vocabulary"
        )
    counts = accumulate(map(len, cycle(examples)))
    needed = next(number for number, total in enumerate(counts, start=1) if total >= tokens)
    some = cycle(examples)
    return [token for _ in range(needed) for token in next(some)][-tokens:]
