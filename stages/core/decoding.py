"""Greedy decoding on top of the language model's cache, for a list of trials at once (App. B: "only greedy decoding").

K trials decode the same queries in one pass through the frozen layers: rows are (trial, query), trial by trial. Queries
are sorted by length, so that rows pad little; a row that has ended leaves the batch, so that the rest goes faster.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from stages.core.base_model import Weights
from stages.core.device import is_out_of_memory
from stages.core.encoding import Rows, join
from stages.core.fast_cpu import OneDnnLinear
from stages.core.methods import Method

ROWS = 256  # rows of a batch: beyond it the layers' matrix products gain nothing on any machine tried
KEEP = 0.75  # the batch is compacted when this share of its rows is left: copying the cache costs too


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer [rows, heads, tokens, size] in a buffer with room for `room` more tokens.

    The library's own layer concatenates, so that each token copies all that came before it.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the new tokens' keys and values and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, tokens, size = key_states.shape
            self._keys = key_states.new_empty(rows, heads, tokens + self.room, size)
            self._values = value_states.new_empty(rows, heads, tokens + self.room, value_states.shape[-1])
            self._length = 0
        end = self._length + key_states.shape[2]
        self._keys[:, :, self._length : end] = key_states
        self._values[:, :, self._length : end] = value_states
        self._length = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop all but these rows."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        self.keys, self.values = self._keys[:, :, : self._length], self._values[:, :, : self._length]


def _prompted(method: Method, weights: Weights, queries: Sequence[list[int]]) -> tuple[list[Tensor], list[list[int]]]:
    """Prompt (if any) and query of each row, as `join` takes them."""
    lengths = [len(query) for query in queries]
    padded = torch.zeros(len(queries), max(lengths), dtype=torch.long)
    for row, query in enumerate(queries):
        padded[row, : len(query)] = torch.tensor(query)
    embedded = method.embed(weights, padded.to(method.base.device))
    prompt = method.prompt(weights, embedded)
    return ([embedded], [lengths]) if prompt is None else ([prompt, embedded], [lengths, lengths])


def _rows(method: Method, trials: Sequence[Weights], queries: Sequence[list[int]]) -> Rows:
    """The left-padded rows of every trial, trial by trial: [K * queries, T, H]."""
    placed = [_prompted(method, weights, queries) for weights in trials]
    parts = [torch.cat(same) for same in zip(*(parts for parts, _ in placed), strict=True)]
    lengths = [[length for _ in trials for length in part] for part in placed[0][1]]
    return join(parts, lengths, left=True)


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


def _decode_batch(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    limit: int,
    end: int,
    tick: Callable[[int], None],
) -> list[list[int]]:
    """Decode one batch: token ids of each row without the end-of-text, rows trial by trial."""
    base, layers = method.base, method.layers(trials[0])
    rows = _rows(method, trials, queries)
    count = rows.embedded.shape[0]
    cached = [RoomyLayer(limit) for _ in range(base.model.config.num_hidden_layers)]
    cache = Cache(layers=list(cached))
    hidden = base.hidden(rows.embedded, rows.positions, rows.mask, cache, layers)[:, -1]
    mask = rows.mask
    tokens_so_far = rows.embedded.shape[1]
    position = torch.full((count,), tokens_so_far) if mask is None else mask.sum(dim=1).cpu()
    position = position.to(base.device)
    owners = torch.arange(len(trials), device=base.device).repeat_interleave(len(queries))
    alive = torch.arange(count, device=base.device)  # which of the batch's rows each row of the cache is
    answers: list[list[int]] = [[] for _ in range(count)]
    running = torch.ones(count, dtype=torch.bool, device=base.device)
    left = count
    for step in range(limit):
        tokens = _next_tokens(method, trials, hidden, owners)
        running &= tokens != end
        for row, token, going in zip(alive.tolist(), tokens.tolist(), running.tolist(), strict=True):
            if going:
                answers[row].append(token)
        before, left = left, int(running.sum()) if step < limit - 1 else 0
        tick(before - left)
        if left == 0:
            break
        if left <= KEEP * len(running):
            kept = running.nonzero().squeeze(1)
            for layer in cached:
                layer.keep(kept)
            tokens, owners, alive, position, running = (x[kept] for x in (tokens, owners, alive, position, running))
            mask = None if mask is None else mask[kept]
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embedded = _embed_by_owner(method, trials, tokens, owners)
        hidden = base.hidden(embedded, position.unsqueeze(1), mask, cache, layers)[:, -1]
        position = position + 1
    return answers


def greedy(
    method: Method,
    trials: Sequence[Weights],
    queries: Sequence[list[int]],
    limit: int,
    end: int,
    rows: int = 0,
    tick: Callable[[int], None] = lambda ended: None,
) -> list[list[list[int]]]:
    """Greedy responses of K trials to N queries: token ids [K][N][at most limit], end-of-text left out.

    trials: each trial's weights. queries: token ids with end-of-text. limit: most tokens of a response, end-of-text
    included. end: the token that ends it. rows: most rows in a batch, 0 for ROWS. tick: called after every token with
    the number of rows that ended with it. Out of memory halves the batch and goes on, with the same result.
    """
    room = rows or ROWS
    if not method.shares_layers and len(trials) > 1:
        return [greedy(method, [trial], queries, limit, end, rows, tick)[0] for trial in trials]
    prepared = [method.prepared(weights) for weights in trials]
    order = sorted(range(len(queries)), key=lambda number: (-len(queries[number]), number))
    answers: list[list[list[int]]] = [[[] for _ in queries] for _ in trials]
    start = 0
    with torch.inference_mode(), OneDnnLinear():
        while start < len(order):
            chosen = order[start : start + max(1, room // len(trials))]
            try:
                decoded = _decode_batch(method, prepared, [queries[number] for number in chosen], limit, end, tick)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise
                room = len(chosen) * len(trials) // 2
                print(f"out of memory: decoding goes on with {room} rows a batch")
                continue
            for index, answer in enumerate(decoded):
                answers[index // len(chosen)][chosen[index % len(chosen)]] = answer
            start += len(chosen)
    return answers
