"""Examples in the context: training pairs in the prompt template in front of every query. Nothing is trained.

random: the same for all queries. Their token ids are the method's only tensor, and they are read once for all queries.
nearest: for each query the pairs with the most similar queries. They become part of its own tokens.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from stages.language_model.base_model import BaseModel, Weights
from stages.language_model.cache import Beginning, read_beginning
from stages.language_model.encoding import encode_pairs
from stages.language_model.prompt_template import PromptTemplate
from stages.methods.method import Examples, Method
from stages.params.methods import FewShot
from stages.params.schema import Lengths
from stages.records import Pair

CONTEXT = "context"  # token ids of the examples, one after another


class FewShotMethod(Method):
    """E[examples], E[query], E[response]."""

    settings: FewShot
    trains = False
    _read: tuple[list[int], list[Beginning]] | None = None

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """The context as token ids: all it needs; nothing if each query has its own."""
        if self.settings.choose == "nearest":
            return {}
        return {CONTEXT: torch.tensor([token for row in examples for token in row], dtype=torch.long)}

    def shapes(self) -> dict[str, torch.Size]:
        """Its length is not known before the examples are."""
        return {} if self.settings.choose == "nearest" else {CONTEXT: torch.Size((0,))}

    def prepared(self, weights: Weights) -> Weights:
        """Token ids stay as they are."""
        return weights

    def beginning(self, weights: Weights) -> list[Beginning] | None:
        """Keys and values of the context: read once, however often a chat asks."""
        if CONTEXT not in weights:
            return None
        tokens = weights[CONTEXT].tolist()
        if self._read is None or self._read[0] != tokens:
            self._read = tokens, read_beginning(self.base, tokens)
        return self._read[1]


class Nearest:
    """Training pairs, of which each query gets those with the most similar queries."""

    def __init__(
        self, pairs: Dataset, tokenizer: PreTrainedTokenizerBase, prompt_template: PromptTemplate, lengths: Lengths
    ) -> None:
        """pairs: with the columns `query` and `response`."""
        from stages.similarity.lookup import Lookup  # scikit-learn takes seconds to load

        self.lookup, self.around = Lookup(pairs), (tokenizer, prompt_template, lengths)

    def in_front(
        self, base: BaseModel, texts: Sequence[str], queries: Iterable[list[int]], count: int
    ) -> list[list[int]]:
        """Token ids of N queries, and `count` examples in front of each, the most similar one last.

        texts: the queries as texts. Where the model's positions are few, the least similar examples are left out.
        """
        matches = self.lookup.nearest(texts, count)
        flat = [Pair("", 0, match.query, match.response) for own in matches for match in reversed(own)]
        tokens, _ = encode_pairs(flat, *self.around)
        rows = map(self.around[1].example, tokens["query"], tokens["response"])
        found, fewer = [], 0
        for query, own in zip(queries, matches, strict=True):
            examples = fitting(list(islice(rows, len(own))), base, self.around[-1])
            fewer += len(examples) < count
            found.append([*(token for example in examples for token in example), *query])
        if fewer:
            told = f"{fewer} of {len(found)} queries have fewer than {count} examples: pairs or positions are few"
            print(told, file=sys.stderr)
        return found


def window_of(config: PretrainedConfig) -> int | None:
    """How many columns a layer with a sliding window sees; None without one."""
    return getattr(config, "sliding_window", None) or getattr(config, "window_size", None)  # the latter is GPT-Neo's


def fitting(examples: Examples, base: BaseModel, lengths: Lengths) -> Examples:
    """The last ones of some examples, as many as the model's positions leave room for, or its sliding window.

    Rows that reach beyond a window would count the padding behind the examples too.
    """
    config = base.model.config
    limits = getattr(config, "max_position_embeddings", None), window_of(config)
    room = min(filter(None, limits), default=sys.maxsize) - lengths.max_query_tokens - lengths.max_new_tokens
    while examples and sum(map(len, examples)) > room:
        examples = examples[1:]
    return examples
