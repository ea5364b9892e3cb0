"""The cache of keys and values: what is dropped is gone at once."""

import torch

from stages.language_model.cache import PreallocatedLayer


def test_what_is_not_kept_is_freed_at_once() -> None:
    layer = PreallocatedLayer(rows=4, queries_end=3, columns=5)
    layer.read(torch.arange(4))
    read = torch.arange(4.0 * 2 * 3 * 2).reshape(4, 2, 3, 2)  # rows, heads, columns, size
    layer.update(read, -read)
    layer.decode()
    layer.keep(torch.tensor([0, 2]))
    assert layer.keys is not None and layer.values is not None
    assert torch.equal(layer.keys, read[[0, 2]]) and torch.equal(layer.values, -read[[0, 2]])
    buffers = {layer._keys.untyped_storage().data_ptr(), layer._values.untyped_storage().data_ptr()}
    assert {layer.keys.untyped_storage().data_ptr(), layer.values.untyped_storage().data_ptr()} == buffers
