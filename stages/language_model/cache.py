"""The language model's cache of keys and values: what rows begin with, and what they have read while it decodes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from stages.language_model.base_model import BaseModel

Beginning = tuple[Tensor, Tensor]  # keys and values of one layer that every row begins with, [heads, P, size] each


def read_beginning(base: BaseModel, tokens: Sequence[int]) -> list[Beginning]:
    """The keys and values of P tokens at every layer: what rows see of them if they stand in front."""
    layers = [DynamicLayer() for _ in range(base.model.config.num_hidden_layers)]
    with torch.no_grad():
        embedded = base.embed(torch.tensor([tokens], device=base.device))
        base.hidden(embedded, cache=Cache(layers=list(layers)))
    return [(layer.keys[0], layer.values[0]) for layer in layers]  # type: ignore[index]


def hidden_after(base: BaseModel, beginning: Sequence[Beginning], rows: Tensor) -> Tensor:
    """Last hidden states [B, T, H] of embedded rows [B, T, H], all of which begin with these keys and values.

    Nothing is kept; padding is on the right. Gradients reach the keys and values.
    """
    before = beginning[0][0].shape[1]
    positions = torch.arange(before, before + rows.shape[1], device=rows.device).expand(rows.shape[:2])
    mask = torch.ones(len(rows), before + rows.shape[1], dtype=torch.bool, device=rows.device)
    cache = Cache(layers=[_BeginningLayer(*own) for own in beginning])
    return base.hidden(rows, positions, mask, cache)


class _BeginningLayer(DynamicLayer):
    """One layer of rows that begin with the same keys and values, and are read at once."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = keys, values
        self.is_initialized = True

    def get_seq_length(self) -> int:
        """P."""
        return self._own[0].shape[1]

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """What the rows may look at."""
        rows = len(key_states)
        keys, values = (each.expand(rows, -1, -1, -1) for each in self._own)
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in buffers [rows, heads, columns, size], made once.

    The library's own layer concatenates, so that each token copies all that came before it. Here the queries are read
    chunk by chunk (`read`), each chunk's rows ending at column `queries_end`; then `decode` appends one column a token.
    `look_ahead` lets some rows read on without a trace. Every row begins with the same P columns, if there are any.
    """

    def __init__(self, rows: int, queries_end: int, columns: int, beginning: Beginning | None = None) -> None:
        """queries_end, columns: without those of the beginning."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._beginning = beginning
        self._first = 0 if beginning is None else beginning[0].shape[1]
        self._size = (rows, self._first + columns)
        self._end = self._first + queries_end
        self._chunk: Tensor | None = None
        self._ahead: tuple[Tensor, slice] | None = None

    def read(self, rows: Tensor) -> None:
        """From now on an update is the reading of these rows, from their beginning."""
        self._chunk, self._ahead = rows, None

    def decode(self) -> None:
        """From now on an update is one token of every row."""
        self._chunk = self._ahead = None
        self.keys, self.values = self._keys[:, :, : self._end], self._values[:, :, : self._end]

    def look_ahead(self, rows: Tensor, columns: int) -> None:
        """From now on an update is tokens of these rows that see the last so many columns; they are not stored.

        They see the beginning too.
        """
        self._chunk, self._ahead = None, (rows, slice(self._end - columns, self._end))

    def get_seq_length(self) -> int:
        """Columns that the next tokens see: none for a chunk that is read from its beginning."""
        if self._ahead is not None:
            return self._first + int(self._ahead[1].stop - self._ahead[1].start)
        return self._first if self._chunk is not None else self._end

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store the new keys and values and return all that the new tokens may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, columns = self._size
            # Zeros: what no row has written is masked, and 0 x 0 is 0 while 0 x (whatever lay there) may be NaN.
            self._keys = key_states.new_zeros(rows, key_states.shape[1], columns, key_states.shape[3])
            self._values = value_states.new_zeros(rows, value_states.shape[1], columns, value_states.shape[3])
            if self._beginning is not None:
                self._keys[:, :, : self._first], self._values[:, :, : self._first] = self._beginning
        if self._ahead is not None:
            chosen, seen = self._ahead
            return self._after_beginning(chosen, seen, key_states, value_states)
        tokens = key_states.shape[2]
        if self._chunk is not None:
            self._keys[self._chunk, :, self._end - tokens : self._end] = key_states
            self._values[self._chunk, :, self._end - tokens : self._end] = value_states
            if not self._first:
                return key_states, value_states
            return self._after_beginning(self._chunk, slice(0, 0), key_states, value_states)
        self._keys[:, :, self._end : self._end + tokens] = key_states
        self._values[:, :, self._end : self._end + tokens] = value_states
        self._end += tokens
        self.keys, self.values = self._keys[:, :, : self._end], self._values[:, :, : self._end]
        return self.keys, self.values

    def _after_beginning(self, rows: Tensor, seen: slice, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The beginning of some rows, columns of theirs, and new ones."""
        before = [
            [each[rows, :, : self._first]] * bool(self._first) + [each[rows, :, seen]]
            for each in (self._keys, self._values)
        ]
        return torch.cat([*before[0], keys], dim=2), torch.cat([*before[1], values], dim=2)

    def keep(self, rows: Tensor) -> None:
        """Drop all but these rows."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        # Views of the old buffers would keep them until the next token: of all layers at once, nearly a second cache.
        self.keys, self.values = self._keys[:, :, : self._end], self._values[:, :, : self._end]
