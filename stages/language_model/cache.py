"""The language model's cache of keys and values while it decodes."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in buffers [rows, heads, columns, size], made once.

    The library's own layer concatenates, so that each token copies all that came before it. Here the queries are read
    chunk by chunk (`read`), each chunk's rows ending at column `queries_end`; then `decode` appends one column a token.
    `look_ahead` lets some rows read on without a trace.
    """

    def __init__(self, rows: int, queries_end: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size = (rows, columns)
        self._end = queries_end
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
        """From now on an update is tokens of these rows that see the last so many columns; they are not stored."""
        self._chunk, self._ahead = None, (rows, slice(self._end - columns, self._end))

    def get_seq_length(self) -> int:
        """Columns that the next tokens see: none for a chunk that is read from its beginning."""
        if self._ahead is not None:
            return int(self._ahead[1].stop - self._ahead[1].start)
        return 0 if self._chunk is not None else self._end

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
        if self._ahead is not None:
            chosen, seen = self._ahead
            keys, values = self._keys[chosen, :, seen], self._values[chosen, :, seen]
            return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)
        tokens = key_states.shape[2]
        if self._chunk is not None:
            self._keys[self._chunk, :, self._end - tokens : self._end] = key_states
            self._values[self._chunk, :, self._end - tokens : self._end] = value_states
            return key_states, value_states
        self._keys[:, :, self._end : self._end + tokens] = key_states
        self._values[:, :, self._end : self._end + tokens] = value_states
        self._end += tokens
        self.keys, self.values = self._keys[:, :, : self._end], self._values[:, :, : self._end]
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop all but these rows."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        # Views of the old buffers would keep them until the next token: of all layers at once, nearly a second cache.
        self.keys, self.values = self._keys[:, :, : self._end], self._values[:, :, : self._end]
