"""Queries read into the language model's cache: what decoding and the loss of the references go on from.

K trials read the same queries in one pass through the frozen layers: rows are (trial, query), trial by trial. Queries
of like length are read together, so that hardly a product is spent on padding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from stages.language_model.base_model import Weights
from stages.language_model.cache import PreallocatedLayer
from stages.methods.batch import padded
from stages.methods.method import Method
from stages.methods.row_layout import Rows, join

FEWEST_TOGETHER = 16  # a chunk takes this many rows of any length: small products cost more than padding
SHORTEST_OF_CHUNK = 0.7  # of its longest row: a shorter one opens the next chunk, so that rows pad little


@dataclass
class ReadRows:
    """Rows of K trials as far as they are read, and the cache that holds their keys and values.

    Tensors have an entry for each row: which it is, whose (the number of its trial), its last hidden state [H], the
    position of its next token, and which columns of the cache are its own [columns].
    """

    method: Method
    trials: Sequence[Weights]  # in the precision of the arithmetic
    cached: list[PreallocatedLayer]
    row: Tensor
    owner: Tensor
    hidden: Tensor
    position: Tensor
    mask: Tensor

    def read_on(self, tokens: Tensor) -> None:
        """Read one further token [rows] of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        embedded = self._embed(tokens, self.owner).unsqueeze(1)
        self.hidden = self._pass(embedded, self.position.unsqueeze(1), self.mask)[:, -1]
        self.position = self.position + 1

    def look_ahead(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states [chosen, N, H] if these N tokens [chosen, N] came next in the chosen rows. Nothing is kept."""
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        mask = torch.cat([self.mask[rows], self.mask.new_ones(tokens.shape)], dim=1)
        for layer in self.cached:
            layer.look_ahead(rows)
        hidden = self._pass(self._embed(tokens, self.owner[rows]), self.position[rows].unsqueeze(1) + columns, mask)
        for layer in self.cached:
            layer.decode()
        return hidden

    def keep(self, rows: Tensor) -> None:
        """Drop all but these rows."""
        self.row, self.owner, self.hidden = self.row[rows], self.owner[rows], self.hidden[rows]
        self.position, self.mask = self.position[rows], self.mask[rows]
        for layer in self.cached:
            layer.keep(rows)

    def _embed(self, tokens: Tensor, owner: Tensor) -> Tensor:
        counts = torch.bincount(owner, minlength=len(self.trials)).tolist()
        parts = zip(self.trials, tokens.split(counts), strict=True)
        return torch.cat([self.method.embed(weights, part) for weights, part in parts])

    def _pass(self, embedded: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        cache, layers = Cache(layers=list(self.cached)), self.method.layers(self.trials[0])
        return self.method.transformer.hidden(embedded, positions, mask, cache, layers)


def read_queries(
    method: Method, trials: Sequence[Weights], queries: Sequence[list[int]], limit: int, tick: Callable[[int], None]
) -> ReadRows:
    """Read the prompts and queries of a batch, longest query first, into a cache with room for `limit` more tokens.

    tick: called with 0 after every chunk, so that somebody who waits to stop it can.
    """
    base, layers = method.base, method.layers(trials[0])
    longest = method.layout([len(queries[0])]).tokens()[0]
    count = len(trials) * len(queries)
    cached = [PreallocatedLayer(count, longest, longest + limit) for _ in range(base.model.config.num_hidden_layers)]
    cache = Cache(layers=list(cached))
    hidden = torch.empty(count, base.width, dtype=base.dtype, device=base.device)
    position = torch.empty(count, dtype=torch.long, device=base.device)
    for start, stop in chunks([len(query) for query in queries]):
        which = rows_of(torch.arange(start, stop, device=base.device), len(queries), len(trials))
        for layer in cached:
            layer.read(which)
        rows = _rows(method, trials, queries[start:stop])
        hidden[which] = method.transformer.hidden(rows.embedded, rows.positions, rows.mask, cache, layers)[:, -1]
        position[which] = rows.embedded.shape[1] if rows.mask is None else rows.mask.sum(dim=1)
        tick(0)
    for layer in cached:
        layer.decode()
    owner = torch.arange(len(trials), device=base.device).repeat_interleave(len(queries))
    mask = torch.arange(longest, device=base.device) >= longest - position.unsqueeze(1)
    row = torch.arange(count, device=base.device)
    return ReadRows(method, trials, cached, row, owner, hidden, position, mask)


def rows_of(numbers: Tensor, queries: int, trials: int) -> Tensor:
    """The rows of these queries in every trial, trial by trial; a trial has `queries` rows."""
    return (torch.arange(trials, device=numbers.device).unsqueeze(1) * queries + numbers).flatten()


def chunks(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where chunks of rows begin and end, longest row first: rows of similar length, and at least a few."""
    start = 0
    while start < len(lengths):
        rest = lengths[start:]
        similar = sum(length >= SHORTEST_OF_CHUNK * rest[0] for length in rest)
        stop = start + min(max(similar, FEWEST_TOGETHER), len(rest))
        yield start, stop
        start = stop


def _rows(method: Method, trials: Sequence[Weights], queries: Sequence[list[int]]) -> Rows:
    """The left-padded rows of every trial, trial by trial: [K * queries, T, H]."""
    tokens = padded(queries).to(method.base.device)
    placed = [method.before_response(weights, method.embed(weights, tokens)) for weights in trials]
    parts = [torch.cat(same) for same in zip(*placed, strict=True)]
    return join(parts, method.layout([len(query) for query in queries]).repeat(len(trials)).lengths(), left=True)
