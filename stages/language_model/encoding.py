"""Texts to tokens and back."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stages.language_model.row_format import RowFormat, text_tokens
from stages.params.schema import Lengths
from stages.records import Pair, single_line


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids in the model's row format: prefix, query, separator; response, end (if it was not cut)."""

    query: list[int]
    response: list[int]


@dataclass(frozen=True)
class Cuts:
    """How many texts were longer than the protocol's lengths."""

    queries: int
    responses: int


def encode_queries(
    queries: Sequence[str], tokenizer: PreTrainedTokenizerBase, row_format: RowFormat, lengths: Lengths
) -> tuple[list[list[int]], int]:
    """Tokens of each query with what the format puts around it, and how many queries were cut.

    A long one loses its beginning, never the format.
    """
    around = len(row_format.prefix) + len(row_format.separator)
    texts = text_tokens(tokenizer, [row_format.query_space + query for query in queries])
    cut = sum(len(tokens) + around > lengths.query_tokens for tokens in texts)
    return [row_format.query(tokens, lengths.query_tokens) for tokens in texts], cut


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, row_format: RowFormat, lengths: Lengths
) -> tuple[list[EncodedPair], Cuts]:
    """Tokenise pairs: a long query loses its beginning, a long response its end and the token that ends it."""
    queries, cut_queries = encode_queries([pair.query for pair in pairs], tokenizer, row_format, lengths)
    responses = text_tokens(tokenizer, [row_format.response_space + pair.response for pair in pairs])
    encoded = [
        EncodedPair(query, row_format.response(answer, lengths.response_tokens))
        for query, answer in zip(queries, responses, strict=True)
    ]
    cut_responses = sum(len(response) + 1 > lengths.response_tokens for response in responses)
    return encoded, Cuts(cut_queries, cut_responses)


def to_text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """A response's tokens as text on one line."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return single_line(str(text))
