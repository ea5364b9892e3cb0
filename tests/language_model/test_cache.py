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


def test_what_is_looked_ahead_at_leaves_no_trace() -> None:
    layer = PreallocatedLayer(rows=3, queries_end=2, columns=4)
    layer.read(torch.arange(3))
    read = torch.arange(3.0 * 1 * 2 * 1).reshape(3, 1, 2, 1)
    layer.update(read, -read)
    layer.decode()
    kept = layer._keys.clone()
    layer.look_ahead(torch.tensor([2, 0]), columns=2)
    assert layer.get_seq_length() == 2
    ahead = torch.full((2, 1, 3, 1), 9.0)
    for _ in range(2):  # the second look does not see the first
        keys, values = layer.update(ahead, -ahead)
        assert torch.equal(keys, torch.cat([read[[2, 0]], ahead], dim=2)) and torch.equal(values, -keys)
    layer.decode()
    assert torch.equal(layer._keys, kept) and layer.get_seq_length() == 2
    keys, _ = layer.update(ahead[:1].expand(3, 1, 3, 1)[:, :, :1], ahead[:1].expand(3, 1, 3, 1)[:, :, :1])
    assert torch.equal(keys, torch.cat([read, torch.full((3, 1, 1, 1), 9.0)], dim=2))
