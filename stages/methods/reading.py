"""Queries read into the language model's cache: what decoding and the loss of the references go on from.

K trials read the same queries in one pass through the frozen layers: rows are (trial, query), trial by trial. Queries
come in the order of their lengths, and a chunk of neighbours is read together, so that rows pad little. Where chunks
begin and end does not depend on how many rows then decode together, and so neither does what is computed of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from stages.language_model.base_model import Weights
from stages.language_model.cache import PreallocatedLayer
from stages.methods.batch import padded
from stages.methods.method import Method
from stages.methods.row_layout import Rows, join

CHUNKS = {"cuda": 64}  # queries of a chunk: on a GPU each chunk costs the same number of kernels
CHUNK = 16  # 600 tokens and more: a larger product is no faster on a CPU


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

    @classmethod
    def with_room_for(
        cls, method: Method, trials: Sequence[Weights], queries: Sequence[list[int]], limit: int
    ) -> "ReadRows":
        """Room for these queries, the longest first, and for `limit` tokens after them."""
        base, longest = method.base, method.layout([len(queries[0])]).tokens()[0]
        count = len(trials) * len(queries)
        layers = base.model.config.num_hidden_layers
        return cls(
            method,
            trials,
            [PreallocatedLayer(count, longest, longest + limit) for _ in range(layers)],
            torch.arange(count, device=base.device),
            torch.arange(len(trials), device=base.device).repeat_interleave(len(queries)),
            torch.empty(count, base.width, dtype=base.dtype, device=base.device),
            torch.empty(count, dtype=torch.long, device=base.device),
            torch.zeros(count, longest, dtype=torch.bool, device=base.device),
        )

    def read(self, start: int, queries: Sequence[list[int]]) -> "Chunk":
        """Read the prompts and queries of a chunk, whose first is number `start` of the batch."""
        numbers = torch.arange(start, start + len(queries), device=self.row.device)
        trials = torch.arange(len(self.trials), device=self.row.device).unsqueeze(1)
        rows = (trials * (len(self.row) // len(self.trials)) + numbers).flatten()
        for layer in self.cached:
            layer.read(rows)
        laid = _rows(self.method, self.trials, queries)
        self.hidden[rows] = self._pass(laid.embedded, laid.positions, laid.mask)[:, -1]
        columns = laid.embedded.shape[1]
        mask = self.mask.new_ones(len(rows), columns) if laid.mask is None else laid.mask
        self.position[rows] = mask.sum(dim=1)
        self.mask[rows, self.mask.shape[1] - columns :] = mask
        return Chunk(rows, columns)

    def look_ahead(self, chunk: "Chunk", some: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states [rows, N, H] if these N tokens [rows, N] came next in some rows of a chunk. Nothing is kept."""
        rows = chunk.rows[some]
        mask = torch.cat([self.mask[rows][:, -chunk.columns :], self.mask.new_ones(tokens.shape)], dim=1)
        positions = self.position[rows].unsqueeze(1) + torch.arange(tokens.shape[1], device=tokens.device)
        for layer in self.cached:
            layer.look_ahead(rows, chunk.columns)
        return self._pass(self._embed(tokens, self.owner[rows]), positions, mask)

    def decode(self) -> None:
        """All queries are read: from now on each pass is one token of every row."""
        for layer in self.cached:
            layer.decode()

    def read_on(self, tokens: Tensor) -> None:
        """Read one further token [rows] of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        embedded = self._embed(tokens, self.owner).unsqueeze(1)
        self.hidden = self._pass(embedded, self.position.unsqueeze(1), self.mask)[:, -1]
        self.position = self.position + 1

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

    def _pass(self, embedded: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        cache, layers = Cache(layers=list(self.cached)), self.method.layers(self.trials[0])
        return self.method.transformer.hidden(embedded, positions, mask, cache, layers)


@dataclass(frozen=True)
class Chunk:
    """Rows that were read together, trial by trial, and how many columns of the cache the longest of them takes."""

    rows: Tensor
    columns: int


def chunk_size(method: Method) -> int:
    """How many queries are read together."""
    return CHUNKS.get(method.base.device.type, CHUNK)


def _rows(method: Method, trials: Sequence[Weights], queries: Sequence[list[int]]) -> Rows:
    """The left-padded rows of every trial, trial by trial: [K * queries, T, H]."""
    tokens = padded(queries).to(method.base.device)
    placed = [method.before_response(weights, method.embed(weights, tokens)) for weights in trials]
    parts = [torch.cat(same) for same in zip(*placed, strict=True)]
    return join(parts, method.layout([len(query) for query in queries]).repeat(len(trials)).lengths(), left=True)
