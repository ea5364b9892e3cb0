"""Texts to tokens and back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute
from datasets import Dataset, Features, List, Value, disable_progress_bars
from transformers import PreTrainedTokenizerBase

from stages.language_model.prompt_template import PromptTemplate
from stages.language_model.text_tokens import text_tokens
from stages.params.schema import Lengths
from stages.records import Pair, single_line

PAIRS_AT_A_TIME = 4096  # as lists of Python's numbers, which take ten times the memory
TOKENS = Features({"query": List(Value("int32")), "response": List(Value("int32"))})

Counts = np.ndarray[tuple[int], np.dtype[Any]]

disable_progress_bars()


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids in the prompt template: prefix, query, separator; response, end if it was not cut."""

    query: list[int]
    response: list[int]


def side_lengths(tokens: Dataset) -> tuple[Counts, Counts]:
    """Tokens of each query and of each response, [N] each."""
    table = tokens.with_format("arrow")[:]
    queries, responses = (pyarrow.compute.list_value_length(table[side]).to_numpy() for side in TOKENS)
    return queries, responses


def encode_queries(
    queries: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_template: PromptTemplate, lengths: Lengths
) -> list[list[int]]:
    """Tokens of each query with what the template puts around it; a long query loses its beginning."""
    texts = text_tokens(tokenizer, queries, prompt_template.query_front)
    return [prompt_template.query(tokens, lengths.max_query_tokens) for tokens in texts]


def encode_pairs(
    pairs: Dataset | Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    prompt_template: PromptTemplate,
    lengths: Lengths,
) -> tuple[Dataset, Counter[str]]:
    """Tokenise pairs: a long query loses its beginning, a long response its end and the token that ends it.

    pairs: from `load_records`, or few, in memory.

    Returns:
        The token ids in columns `query` (prefix, query, separator) and `response` (response, end), on disk beside the
        file of the pairs if they have one. And how many `queries` and `responses` were cut, and how many responses have
        `early_ends`: their end among the tokens of the text.
    """
    counts: Counter[str] = Counter()

    def encode(texts: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        asked = text_tokens(tokenizer, texts["query"], prompt_template.query_front)
        answers = text_tokens(tokenizer, texts["response"], prompt_template.response_front)
        room = prompt_template.room(lengths.max_query_tokens)
        counts["queries"] += sum(len(query) > room for query in asked)
        counts["responses"] += sum(len(answer) + 1 > lengths.max_new_tokens for answer in answers)
        counts["early_ends"] += sum(prompt_template.end in answer[: lengths.max_new_tokens] for answer in answers)
        return {
            "query": [prompt_template.query(query, lengths.max_query_tokens) for query in asked],
            "response": [prompt_template.response(answer, lengths.max_new_tokens) for answer in answers],
        }

    if not isinstance(pairs, Dataset):
        pairs = Dataset.from_list([vars(pair) for pair in pairs])
    tokens = pairs.map(
        encode, batched=True, batch_size=PAIRS_AT_A_TIME, remove_columns=pairs.column_names, features=TOKENS,
        load_from_cache_file=False,
        new_fingerprint="tokens",  # given, or the library would hash the tokenizer for one
    )  # fmt: skip
    return tokens, counts


def to_text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """A response's tokens as text on one line."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return single_line(str(text))
