"""Texts to tokens and back."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from stages.language_model.prompt_template import PromptTemplate
from stages.language_model.text_tokens import text_tokens
from stages.params.schema import Lengths
from stages.plumbing.sequences import LazySequence
from stages.records import Pair, single_line

PAIRS_AT_A_TIME = 4096  # as lists of Python's numbers, which take ten times the memory

Counts = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids in the prompt template: prefix, query, separator; response, end (if it was not cut)."""

    query: list[int]
    response: list[int]


class TokenLists:
    """N lists of tokens in one array, four bytes a token."""

    def __init__(self) -> None:
        self.tokens, self.starts = array("i"), array("q", [0])

    def append(self, tokens: Sequence[int]) -> None:
        """Add a list."""
        self.tokens.extend(tokens)
        self.starts.append(len(self.tokens))

    def __getitem__(self, number: int) -> list[int]:
        return self.tokens[self.starts[number] : self.starts[number + 1]].tolist()

    def lengths(self) -> Counts:
        """Tokens of each list, [N]."""
        return np.diff(np.array(self.starts))


class EncodedPairs(LazySequence[EncodedPair]):
    """N encoded pairs as arrays: 4 bytes for each token and 16 for each pair."""

    def __init__(self) -> None:
        self.queries, self.responses = TokenLists(), TokenLists()
        self.early_ends = 0  # responses in which a token of the text is the one that ends a response

    def append(self, query: Sequence[int], response: Sequence[int]) -> None:
        """Add a pair."""
        self.queries.append(query)
        self.responses.append(response)

    def __len__(self) -> int:
        return len(self.queries.starts) - 1

    def _item(self, number: int) -> EncodedPair:
        return EncodedPair(self.queries[number], self.responses[number])


def side_lengths(pairs: Sequence[EncodedPair]) -> tuple[Counts, Counts]:
    """Tokens of each query and of each response, [N] each."""
    if isinstance(pairs, EncodedPairs):
        return pairs.queries.lengths(), pairs.responses.lengths()
    return np.array([len(pair.query) for pair in pairs]), np.array([len(pair.response) for pair in pairs])


@dataclass(frozen=True)
class Cuts:
    """How many texts were longer than the protocol's lengths."""

    queries: int
    responses: int


def encode_queries(
    queries: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_template: PromptTemplate, lengths: Lengths
) -> tuple[list[list[int]], int]:
    """Tokens of each query with what the format puts around it, and how many queries were cut.

    A long one loses its beginning, never the format.
    """
    around = len(prompt_template.prefix) + len(prompt_template.separator)
    texts = text_tokens(tokenizer, queries, prompt_template.query_front)
    cut = sum(len(tokens) + around > lengths.max_query_tokens for tokens in texts)
    return [prompt_template.query(tokens, lengths.max_query_tokens) for tokens in texts], cut


def encode_pairs(
    pairs: Iterable[Pair], tokenizer: PreTrainedTokenizerBase, prompt_template: PromptTemplate, lengths: Lengths
) -> tuple[EncodedPairs, Cuts]:
    """Tokenise pairs: a long query loses its beginning, a long response its end and the token that ends it."""
    encoded, cut_queries, cut_responses = EncodedPairs(), 0, 0
    for some in _parts(pairs):
        queries, cut = encode_queries([pair.query for pair in some], tokenizer, prompt_template, lengths)
        responses = text_tokens(tokenizer, [pair.response for pair in some], prompt_template.response_front)
        for query, answer in zip(queries, responses, strict=True):
            encoded.append(query, prompt_template.response(answer, lengths.max_new_tokens))
            encoded.early_ends += prompt_template.end in answer[: lengths.max_new_tokens]
        cut_queries += cut
        cut_responses += sum(len(response) + 1 > lengths.max_new_tokens for response in responses)
    return encoded, Cuts(cut_queries, cut_responses)


def _parts(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    rest = iter(pairs)
    return iter(lambda: list(islice(rest, PAIRS_AT_A_TIME)), [])


def to_text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """A response's tokens as text on one line."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return single_line(str(text))
