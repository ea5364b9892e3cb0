"""The language model's cache of keys and values: what rows begin with, and what they have read while it decodes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from stages.language_model.base_model import BaseModel

Beginning = tuple[Tensor, Tensor]  # keys and values of one layer that every row begins with, [heads, P, size] each


def read_beginning(base: BaseModel, tokens: Sequence[int]) -> list[Beginning]:
    """The keys and values of P tokens at every layer: what rows see of them if they stand in front."""
    cache: Any = DynamicCache()
    with torch.no_grad():
        base.hidden(base.embed(torch.tensor([tokens], device=base.device)), cache=cache)
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers]


def hidden_after(base: BaseModel, beginning: Sequence[Beginning], rows: Tensor) -> Tensor:
    """Last hidden states [B, T, H] of embedded rows [B, T, H], all of which begin with these keys and values.

    Padding is on the right. Gradients reach the keys and values.
    """
    before = beginning[0][0].shape[1]
    positions = torch.arange(before, before + rows.shape[1], device=rows.device).expand(rows.shape[:2])
    mask = torch.ones(len(rows), before + rows.shape[1], dtype=torch.bool, device=rows.device)
    layers: list[Any] = []
    for own in beginning:
        layer = DynamicLayer()
        layer.keys, layer.values = (each.expand(len(rows), -1, -1, -1) for each in own)
        layer.is_initialized = True
        layers.append(layer)
    return base.hidden(rows, positions, mask, Cache(layers=layers))


class PreallocatedCache(Cache):
    """Keys and values in buffers that are made once; the library's concatenate, so that each token copies all others.

    The queries are read chunk by chunk, each row ending at column `queries_end`; then each pass appends one column.
    """

    def __init__(self, layers: Sequence[Beginning | None], rows: int, queries_end: int, columns: int) -> None:
        """layers: what rows begin with at each; queries_end, columns: without that."""
        self.layers: list[Any]
        super().__init__(layers=[PreallocatedLayer(own, rows, queries_end, columns) for own in layers])

    def take(self, rows: Tensor | None, ahead: int = 0) -> None:
        """From now on a pass has tokens of these rows, from their beginning; None: one token of every row.

        ahead: the tokens see the last so many columns of their rows, and are not stored.
        """
        for layer in self.layers:
            layer.rows, layer.ahead = rows, ahead


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, [rows, heads, columns, size] each."""

    _keys: Tensor
    _values: Tensor
    rows: Tensor | None = None  # as PreallocatedCache.take has them
    ahead: int = 0

    def __init__(self, beginning: Beginning | None, rows: int, queries_end: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._beginning = beginning
        self._first = 0 if beginning is None else beginning[0].shape[1]
        self._size = (rows, self._first + columns)
        self._end = self._first + queries_end

    def batch_select_indices(self, indices: Tensor) -> None:
        """Drop all but these rows."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._show()  # views of the old buffers would keep them until the next token: nearly a second cache

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = shown = self._keys[:, :, : self._end], self._values[:, :, : self._end]
        return shown

    def get_seq_length(self) -> int:
        """Columns that the next tokens see: of a chunk that is read, those of the beginning."""
        return self._end if self.rows is None else self._first + self.ahead

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Store the new keys and values and return all that the new tokens may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, columns = self._size
            # Zeros: what no row has written is masked, and 0 x 0 is 0 while 0 x (whatever lay there) may be NaN.
            self._keys = key_states.new_zeros(rows, key_states.shape[1], columns, key_states.shape[3])
            self._values = value_states.new_zeros(rows, value_states.shape[1], columns, value_states.shape[3])
            if self._beginning is not None:
                self._keys[:, :, : self._first], self._values[:, :, : self._first] = self._beginning
        tokens, own = key_states.shape[2], slice(None) if self.rows is None else self.rows
        self._end += tokens if self.rows is None else 0
        if not self.ahead:
            self._keys[own, :, self._end - tokens : self._end] = key_states
            self._values[own, :, self._end - tokens : self._end] = value_states
        if self.rows is None:
            return self._show()
        if not self.ahead and not self._first:
            return key_states, value_states
        return self._seen(self._keys, key_states), self._seen(self._values, value_states)

    def _seen(self, buffer: Tensor, new: Tensor) -> Tensor:
        """The beginning of the rows, columns of theirs, and what is new."""
        behind = slice(self._end - self.ahead, self._end)
        return torch.cat([buffer[self.rows, :, : self._first], buffer[self.rows, :, behind], new], dim=2)
