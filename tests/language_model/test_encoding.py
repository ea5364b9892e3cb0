"""Tokens and batches; the cache of keys and values."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from datasets import Dataset

from stages.language_model import encoding
from stages.language_model.cache import PreallocatedCache
from stages.language_model.encoding import encode_pairs, side_lengths, to_text
from stages.params.schema import Lengths
from stages.records import Pair, load_records, write_records
from stages.train.examples import epoch_batches
from tests.models import built
from tests.tiny import tiny_tokenizer


def test_a_line_break_never_leaves_decoding() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenizer("one\ntwo\u2028three", add_special_tokens=False)["input_ids"]
    assert to_text(tokens, tokenizer) == "one two three"


def batches(sizes: list[int], batch_size: int, seed: int = 1, epoch: int = 2) -> list[list[int]]:
    sides = {"query": [[1] * (size % 5) for size in sizes], "response": [[2] * (size - size % 5) for size in sizes]}
    return [batch.tolist() for batch in epoch_batches(Dataset.from_dict(sides), batch_size, seed, epoch)]


@pytest.mark.parametrize(("pairs", "batch_size"), [(1, 8), (255, 8), (256, 8), (257, 8), (3001, 8), (700, 5)])
def test_an_epoch_s_batches_have_each_pair_once_and_follow_from_seed_and_epoch(pairs: int, batch_size: int) -> None:
    sizes = [(7919 * i) % 23 for i in range(pairs)]
    found = batches(sizes, batch_size)
    assert found == batches(sizes, batch_size)
    assert sorted(pair for batch in found for pair in batch) == list(range(pairs))
    assert sorted(map(len, found))[1:] == [batch_size] * (len(found) - 1)
    if pairs > 1:
        assert found not in (batches(sizes, batch_size, seed=3), batches(sizes, batch_size, epoch=3))
    widest = max(sizes[i] for batch in found[:1] for i in batch) - min(sizes[i] for i in found[0])
    assert widest < 12, "a batch holds pairs of like length"


def test_tokens_of_pairs_on_disk_are_those_of_pairs_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Pair("a", at, f"{'word ' * (at % 7)}q", f"{'word ' * (at % 5)}r") for at in range(50)]
    write_records(tmp_path / "pairs.jsonl", texts)
    tokenizer = tiny_tokenizer()
    form, lengths = built(tokenizer), Lengths(max_query_tokens=8, max_new_tokens=8)
    whole, cuts = encode_pairs(texts, tokenizer, form, lengths)
    monkeypatch.setattr(encoding, "PAIRS_AT_A_TIME", 7)
    with TemporaryDirectory(dir=tmp_path) as cache:
        loaded = load_records(tmp_path / "pairs.jsonl", Pair, Path(cache))
        stored, others = encode_pairs(loaded, tokenizer, form, lengths)
        assert all(Path(file["filename"]).is_relative_to(cache) for file in stored.cache_files) and stored.cache_files
    assert list(stored) == list(whole) and others == cuts and cuts["queries"] > 0  # though their files are gone
    assert stored[[3, 49, 7]] == {side: [whole[at][side] for at in (3, 49, 7)] for side in ("query", "response")}
    for lengths_, side in zip(side_lengths(stored), ("query", "response"), strict=True):
        assert lengths_.tolist() == [len(tokens) for tokens in whole[side]]


def test_what_is_not_kept_is_freed_at_once() -> None:
    cache = PreallocatedCache([None], rows=4, queries_end=3, columns=5)
    (layer,) = cache.layers
    cache.take(torch.arange(4))
    read = torch.arange(4.0 * 2 * 3 * 2).reshape(4, 2, 3, 2)  # rows, heads, columns, size
    layer.update(read, -read)
    cache.take(None)
    cache.batch_select_indices(torch.tensor([0, 2]))
    assert torch.equal(layer.keys, read[[0, 2]]) and torch.equal(layer.values, -read[[0, 2]])
    buffers = {layer._keys.untyped_storage().data_ptr(), layer._values.untyped_storage().data_ptr()}
    assert {layer.keys.untyped_storage().data_ptr(), layer.values.untyped_storage().data_ptr()} == buffers
