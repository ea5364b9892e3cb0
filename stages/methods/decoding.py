"""Greedy decoding on top of the language model's cache, for a list of trials at once (App. B: "only greedy decoding").

K trials decode the same queries in one pass through the frozen layers: rows are (trial, query), trial by trial.
Queries of like length are read together, so that hardly a product is spent on padding; then all rows of a batch decode
together, token by token, and a row that has ended leaves, so that the rest goes faster.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from stages.language_model.base_model import Weights
from stages.language_model.cache import PreallocatedLayer
from stages.language_model.device import free_memory
from stages.methods.method import Method
from stages.methods.row_layout import Rows, join
from stages.plumbing.errors import is_out_of_memory

# Rows of a batch, at most. On a CPU more rows gain little, and each takes 8 MiB of SmolLM2's cache; on a GPU a token
# costs the same number of kernels however many rows there are, so that more should pay there (reasoned, not measured).
ROWS = {"cuda": 2048}
FEWER_ROWS = 96
FEWEST_READ_TOGETHER = 16  # a chunk takes this many queries of any length: small products cost more than padding
SHORTEST_OF_CHUNK = 0.7  # of its longest query: a shorter one opens the next chunk, so that rows pad little
COMPACT_AT = 0.75  # the batch is compacted when this share of its rows is left: copying the cache costs too


def _rows(method: Method, trials: Sequence[Weights], queries: Sequence[list[int]]) -> Rows:
    """The left-padded rows of every trial, trial by trial: [K * queries, T, H]."""
    lengths = [len(query) for query in queries]
    padded = torch.zeros(len(queries), max(lengths), dtype=torch.long)
    for row, query in enumerate(queries):
        padded[row, : len(query)] = torch.tensor(query)
    tokens = padded.to(method.base.device)
    placed = [method.before_response(weights, method.embed(weights, tokens)) for weights in trials]
    parts = [torch.cat(same) for same in zip(*placed, strict=True)]
    return join(parts, method.layout(lengths).repeat(len(trials)).lengths(), left=True)


def _next_tokens(method: Method, trials: Sequence[Weights], hidden: Tensor, owners: Tensor) -> Tensor:
    """Most likely next token of each row [rows], by its own trial's output layer; hidden [rows, H]."""
    counts = torch.bincount(owners, minlength=len(trials)).tolist()
    parts = [
        method.base.logits(part, method.output(weights)).argmax(dim=-1)
        for weights, part in zip(trials, hidden.split(counts), strict=True)
    ]
    return torch.cat(parts)


def _embed_by_owner(method: Method, trials: Sequence[Weights], tokens: Tensor, owners: Tensor) -> Tensor:
    counts = torch.bincount(owners, minlength=len(trials)).tolist()
    parts = [method.embed(weights, part) for weights, part in zip(trials, tokens.split(counts), strict=True)]
    return torch.cat(parts).unsqueeze(1)


@dataclass
class _Running:
    """The rows of a batch that have not ended: which row each is, whose, its hidden state [H] and its position."""

    row: Tensor
    owner: Tensor
    hidden: Tensor
    position: Tensor

    def keep(self, rows: Tensor) -> "_Running":
        return _Running(self.row[rows], self.owner[rows], self.hidden[rows], self.position[rows])


def _read(
    method: Method, trials: Sequence[Weights], queries: Sequence[list[int]], limit: int
) -> tuple[list[PreallocatedLayer], _Running, Tensor]:
    """Read the prompts and queries of a batch into the cache, chunk by chunk; returns it, the rows and their mask."""
    base, layers = method.base, method.layers(trials[0])
    longest = method.layout([len(queries[0])]).tokens()[0]
    count = len(trials) * len(queries)
    cached = [PreallocatedLayer(count, longest, longest + limit) for _ in range(base.model.config.num_hidden_layers)]
    cache = Cache(layers=list(cached))
    hidden = torch.empty(count, base.width, dtype=base.dtype, device=base.device)
    position = torch.empty(count, dtype=torch.long, device=base.device)
    start = 0
    while start < len(queries):
        chunk = queries[start : start + _read_together([len(query) for query in queries[start:]])]
        numbers = torch.arange(start, start + len(chunk), device=base.device)
        which = (torch.arange(len(trials), device=base.device).unsqueeze(1) * len(queries) + numbers).flatten()
        for layer in cached:
            layer.read(which)
        rows = _rows(method, trials, chunk)
        hidden[which] = method.transformer.hidden(rows.embedded, rows.positions, rows.mask, cache, layers)[:, -1]
        position[which] = rows.embedded.shape[1] if rows.mask is None else rows.mask.sum(dim=1)
        start += len(chunk)
    for layer in cached:
        layer.decode()
    owner = torch.arange(len(trials), device=base.device).repeat_interleave(len(queries))
    mask = torch.arange(longest, device=base.device) >= longest - position.unsqueeze(1)
    return cached, _Running(torch.arange(count, device=base.device), owner, hidden, position), mask


def _decode_batch(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    limit: int,
    end: int,
    tick: Callable[[int], None],
    heard: Callable[[int, int], None],
) -> list[list[int]]:
    """Decode one batch, longest query first: token ids of each row without the end-of-text, rows trial by trial."""
    cached, running, mask = _read(method, trials, queries, limit)
    cache, layers = Cache(layers=list(cached)), method.layers(trials[0])
    answers: list[list[int]] = [[] for _ in running.row]
    ended = torch.zeros(len(running.row), dtype=torch.bool, device=mask.device)  # of those still in the cache
    for step in range(limit):
        tokens = _next_tokens(method, trials, running.hidden, running.owner)
        before, ended = int(ended.sum()), ended | (tokens == end)
        for row, token, over in zip(running.row.tolist(), tokens.tolist(), ended.tolist(), strict=True):
            if not over:
                answers[row].append(token)
                heard(row, token)
        over = len(ended) if step == limit - 1 else int(ended.sum())
        tick(over - before)
        if over == len(ended):
            break
        if len(ended) - over <= COMPACT_AT * len(ended):
            kept = (~ended).nonzero().squeeze(1)
            running, tokens, mask, ended = running.keep(kept), tokens[kept], mask[kept], ended[kept]
            for layer in cached:
                layer.keep(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embedded = _embed_by_owner(method, trials, tokens, running.owner)
        running.hidden = method.transformer.hidden(embedded, running.position.unsqueeze(1), mask, cache, layers)[:, -1]
        running.position = running.position + 1
    return answers


def _read_together(lengths: Sequence[int]) -> int:
    """How many of the queries, longest first, are read together: those of similar length, and at least a few."""
    similar = sum(length >= SHORTEST_OF_CHUNK * lengths[0] for length in lengths)
    return min(max(similar, FEWEST_READ_TOGETHER), len(lengths))


def _rows_that_fit(method: Method, columns: int) -> int:
    """Rows whose keys and values fill half of the free memory, no more than pay: Linux kills what takes all."""
    config = method.base.model.config
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    of_a_row = 2 * config.num_hidden_layers * shared * size * columns * method.base.dtype.itemsize
    device = method.base.device
    return max(1, min(ROWS.get(device.type, FEWER_ROWS), int(free_memory(device) // 2 // of_a_row)))


class RowLimit:
    """How many rows a batch may have: `rows`, or what the memory takes; fewer for good once memory has run out."""

    def __init__(self, rows: int = 0) -> None:
        self.asked = rows  # 0: as many as fit
        self.found = sys.maxsize  # where memory has run out, half of what was tried

    def rows(self, method: Method, columns: int) -> int:
        """Rows of so many columns that a batch may have now."""
        return min(self.asked or _rows_that_fit(method, columns), self.found)

    def shrink(self, tried: int) -> int:
        """Allow half of the rows that did not fit, from now on."""
        self.found = tried // 2
        print(f"out of memory: decoding goes on with {self.found} rows a batch")
        return self.found


def greedy(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    limit: int,
    end: int,
    row_limit: RowLimit | None = None,
    tick: Callable[[int], None] = lambda ended: None,
    heard: Callable[[int, int], None] = lambda row, token: None,
) -> list[list[list[int]]]:
    """Greedy responses of K trials to N queries: token ids [K][N][at most limit], end-of-text left out.

    trials: each trial's weights. queries: token ids with end-of-text. limit: most tokens of a response, end-of-text
    included. end: the token that ends it. row_limit: pass the same one again, and what an earlier call found out about
    the memory holds for this one too. tick: called after every token with the number of rows that ended with it. heard:
    called with each token of an answer as it comes, and with its row in its batch (0 where there is one query). Out of
    memory halves the batch and goes on, with the same result.
    """
    row_limit = row_limit or RowLimit()
    if not method.shares_layers and len(trials) > 1:
        return [greedy(method, [trial], queries, limit, end, row_limit, tick, heard)[0] for trial in trials]
    prepared = [method.prepared(weights) for weights in trials]
    order = sorted(range(len(queries)), key=lambda number: (-len(queries[number]), number))
    answers: list[list[list[int]]] = [[[] for _ in queries] for _ in trials]
    if not queries:
        return answers
    start = 0
    with torch.inference_mode():
        rows = row_limit.rows(method, method.layout([len(queries[order[0]])]).tokens()[0] + limit)
        while start < len(order):
            chosen = order[start : start + max(1, rows // len(trials))]
            try:
                some = [queries[number] for number in chosen]
                decoded = _decode_batch(method, prepared, some, limit, end, tick, heard)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise
                rows = row_limit.shrink(len(chosen) * len(trials))
                continue
            for index, answer in enumerate(decoded):
                answers[index // len(chosen)][chosen[index % len(chosen)]] = answer
            start += len(chosen)
    return answers
