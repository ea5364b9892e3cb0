"""Texts to tokens, tokens to batches, and the rows that the language model reads.

Symbols: B pairs in a batch, S query tokens and R response tokens (end-of-text included), H width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.core.params import Lengths
from stages.core.records import Pair, single_line

BATCHES_PER_POOL = 32  # batches whose pairs are sorted by length together: long enough to pad little


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids; both sides end with end-of-text, but for a response that was cut."""

    query: list[int]
    response: list[int]

    def row_tokens(self, prompt_slots: int) -> int:
        """Tokens of its row: `prompt_slots` of a prompt for each of the query, the query, the response."""
        return (prompt_slots + 1) * len(self.query) + len(self.response)


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


@dataclass(frozen=True)
class Batch:
    """Padded pairs: queries [B, S], responses [B, R] of token ids, and how long each is."""

    queries: Tensor
    responses: Tensor
    query_lengths: list[int]
    response_lengths: list[int]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(self.queries.to(device), self.responses.to(device), self.query_lengths, self.response_lengths)


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, tokens in enumerate(rows):
        padded[row, : len(tokens)] = torch.tensor(tokens)
    return padded


def collate(pairs: Sequence[EncodedPair]) -> Batch:
    """Pad pairs to a batch (with token 0, which no computation ever sees)."""
    queries, responses = [pair.query for pair in pairs], [pair.response for pair in pairs]
    return Batch(
        _pad(queries), _pad(responses), [len(query) for query in queries], [len(response) for response in responses]
    )


def epoch_batches(sizes: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch as lists of pair numbers: a function of (seed, epoch) alone.

    The pairs are shuffled; in each pool of BATCHES_PER_POOL batches they are sorted by size, so that a batch holds
    pairs of like length and pads little; then the order of the batches is shuffled.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(sizes))
    pool = batch_size * BATCHES_PER_POOL
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        by_size = sorted(order[start : start + pool].tolist(), key=lambda pair: sizes[pair])
        batches += [by_size[first : first + batch_size] for first in range(0, len(by_size), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


@dataclass(frozen=True)
class Rows:
    """What the language model reads: embedded [B, T, H]; mask and positions [B, T], None if nothing is on the left."""

    embedded: Tensor
    mask: Tensor | None
    positions: Tensor | None


def join(parts: Sequence[Tensor], lengths: Sequence[Sequence[int]], left: bool = False) -> Rows:
    """Place prompt, query and response side by side: rows of [pad][prompt][query][response][pad].

    parts: tensors [B, *, H], of which row b holds lengths[part][b] tokens from its beginning on. In training the
    padding is on the right, where causal attention never looks, so there is no mask to build; in decoding it is on
    the left (`left`), so that all rows end together; mask and positions then say where each row begins.
    """
    counts = np.array(lengths)  # [parts, B]
    totals = counts.sum(axis=0)
    longest = int(totals.max())
    starts = np.cumsum([0, *(part.shape[1] for part in parts[:-1])])
    source = np.zeros((len(totals), longest), dtype=np.int64)
    begin = longest - totals if left else np.zeros_like(totals)
    for row, first in enumerate(begin):
        chosen = [start + np.arange(count) for start, count in zip(starts, counts[:, row], strict=True)]
        source[row, first : first + totals[row]] = np.concatenate(chosen)
    joined = torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]
    rows = torch.arange(len(totals), device=joined.device).unsqueeze(1)
    embedded = joined[rows, torch.from_numpy(source).to(joined.device)]
    if not left or not begin.any():
        return Rows(embedded, None, None)
    columns = torch.arange(longest, device=joined.device)
    offset = torch.from_numpy(begin).to(joined.device).unsqueeze(1)
    return Rows(embedded, columns >= offset, (columns - offset).clamp(min=0))


def to_text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """A response's tokens as text on one line."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return single_line(str(text))
