"""Texts to tokens and back."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stages.params.schema import Lengths
from stages.records import Pair, single_line


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids; both sides end with end-of-text, but for a response that was cut."""

    query: list[int]
    response: list[int]


@dataclass(frozen=True)
class Cuts:
    """How many texts were longer than the protocol's lengths."""

    queries: int
    responses: int


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, lengths: Lengths
) -> tuple[list[EncodedPair], Cuts]:
    """Tokenise pairs: a long query loses its beginning, a long response its end and its end-of-text.

    A special token that somebody has written, `<|endoftext|>`, is text like any other.
    """
    if not pairs:
        return [], Cuts(0, 0)
    end = tokenizer.eos_token_id

    def tokens(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        )["input_ids"]
        return ids

    encoded = []
    cut_queries = cut_responses = 0
    queries, responses = tokens([pair.query for pair in pairs]), tokens([pair.response for pair in pairs])
    for query, response in zip(queries, responses, strict=True):
        whole_query, whole_response = [*query, end], [*response, end]
        cut_queries += len(whole_query) > lengths.query_tokens
        cut_responses += len(whole_response) > lengths.response_tokens
        encoded.append(EncodedPair(whole_query[-lengths.query_tokens :], whole_response[: lengths.response_tokens]))
    return encoded, Cuts(cut_queries, cut_responses)


def to_text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """A response's tokens as text on one line."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return single_line(str(text))
