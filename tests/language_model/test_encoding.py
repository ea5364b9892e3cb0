"""Tokens, batches and rows."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from stages.train.batches import BATCHES_PER_POOL, epoch_batches

from stages.language_model import encoding
from stages.language_model.encoding import encode_pairs, side_lengths, to_text
from stages.language_model.loading import load_tokenizer
from stages.methods.batch import collate
from stages.methods.row_layout import join
from stages.params.schema import Lengths
from stages.records import Pair, load_records, write_records
from tests.models import LONG, end_of_text_format, model_folder


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_folder("gpt2", True)


def test_both_sides_end_with_end_of_text_and_long_ones_are_cut_and_counted(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    prompt_template = end_of_text_format(tokenizer)
    end = prompt_template.end
    texts = [Pair("a", 0, "hello", "you"), Pair("a", 2, "a b c d e f g h", "h g f e d c b a")]
    encoded, cuts = encode_pairs(texts, tokenizer, prompt_template, Lengths(max_query_tokens=8, max_new_tokens=8))
    assert encoded[0]["query"][-1] == encoded[0]["response"][-1] == end
    assert (cuts.queries, cuts.responses) == (1, 1)
    whole = tokenizer("a b c d e f g h", add_special_tokens=False)["input_ids"]
    assert encoded[1]["query"] == [*whole, end][-8:]  # a long query is cut at the start
    assert encoded[1]["response"] == tokenizer("h g f e d c b a", add_special_tokens=False)["input_ids"][:8]
    assert end not in encoded[1]["response"]  # a cut response has no end-of-text


def test_text_survives_its_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    for text in ("I 'm fine , thanks . And you ?", "naïve café 😀 שלום"):
        encoded, _ = encode_pairs([Pair("a", 0, text, text)], tokenizer, end_of_text_format(tokenizer), LONG)
        assert to_text(encoded[0]["response"], tokenizer) == text


def test_a_line_break_never_leaves_decoding(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = tokenizer("one\ntwo\u2028three", add_special_tokens=False)["input_ids"]
    assert to_text(tokens, tokenizer) == "one two three"


def test_an_epoch_s_batches_hold_every_pair_once_and_follow_from_seed_and_epoch() -> None:
    sizes = [(7 * i) % 31 for i in range(501)]
    first = list(epoch_batches(sizes, 8, seed=3, epoch=1))
    assert sorted(pair for batch in first for pair in batch) == list(range(501))
    assert first == list(epoch_batches(sizes, 8, seed=3, epoch=1))
    assert first != list(epoch_batches(sizes, 8, seed=3, epoch=2))
    assert first != list(epoch_batches(sizes, 8, seed=4, epoch=1))
    assert {len(batch) for batch in first} == {8, 501 % 8}


def batches_as_lists(sizes: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """What `epoch_batches` is, with Python's own lists and sort."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(sizes))
    pool = batch_size * BATCHES_PER_POOL
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        by_size = sorted(order[start : start + pool].tolist(), key=sizes.__getitem__)
        batches += [by_size[first : first + batch_size] for first in range(0, len(by_size), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


@pytest.mark.parametrize(("pairs", "batch_size"), [(1, 8), (8, 8), (255, 8), (256, 8), (257, 8), (3001, 8), (700, 5)])
def test_an_epoch_s_batches_are_those_of_a_plain_sort(pairs: int, batch_size: int) -> None:
    sizes = [(7919 * i) % 23 for i in range(pairs)]  # many of equal size: the sort has to be stable
    assert list(epoch_batches(sizes, batch_size, 1, 2)) == batches_as_lists(sizes, batch_size, 1, 2)
    assert list(epoch_batches(np.array(sizes), batch_size, 1, 2)) == batches_as_lists(sizes, batch_size, 1, 2)


def test_tokens_of_pairs_on_disk_are_those_of_pairs_in_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [Pair("a", at, f"{'word ' * (at % 7)}q", f"{'word ' * (at % 5)}r") for at in range(50)]
    write_records(tmp_path / "pairs.jsonl", texts)
    tokenizer = load_tokenizer(folder)
    form, lengths = end_of_text_format(tokenizer), Lengths(max_query_tokens=8, max_new_tokens=8)
    whole, cuts = encode_pairs(texts, tokenizer, form, lengths)
    monkeypatch.setattr(encoding, "PAIRS_AT_A_TIME", 7)
    with TemporaryDirectory(dir=tmp_path) as cache:
        loaded = load_records(tmp_path / "pairs.jsonl", Pair, Path(cache))
        stored, others = encode_pairs(loaded, tokenizer, form, lengths)
        assert all(Path(file["filename"]).is_relative_to(cache) for file in stored.cache_files) and stored.cache_files
    assert list(stored) == list(whole) and others == cuts and cuts.queries > 0  # though their files are gone
    assert stored[[3, 49, 7]] == {side: [whole[at][side] for at in (3, 49, 7)] for side in ("query", "response")}
    for lengths_, side in zip(side_lengths(stored), ("query", "response"), strict=True):
        assert lengths_.tolist() == [len(tokens) for tokens in whole[side]]


def test_batches_hold_pairs_of_like_length() -> None:
    sizes = [(7919 * i) % 97 for i in range(512)]
    spreads = [max(sizes[i] for i in batch) - min(sizes[i] for i in batch) for batch in epoch_batches(sizes, 8, 0, 1)]
    assert max(spreads) < 20


@pytest.mark.parametrize("left", [False, True])
def test_rows_are_padding_prompt_query_response_padding(left: bool) -> None:
    prompt = torch.arange(1.0, 7.0).reshape(2, 3, 1)
    query = torch.arange(10.0, 16.0).reshape(2, 3, 1)
    rows = join([prompt, query], [[2, 3], [1, 3]], left=left)
    short, long = [1.0, 2.0, 10.0], [4.0, 5.0, 6.0, 13.0, 14.0, 15.0]
    assert rows.embedded[1, :, 0].tolist() == long
    if left:
        assert rows.embedded[0, 3:, 0].tolist() == short
        assert rows.mask is not None and rows.positions is not None
        assert rows.mask.tolist() == [[False] * 3 + [True] * 3, [True] * 6]
        assert rows.positions[0, 3:].tolist() == [0, 1, 2]
        assert rows.positions[1].tolist() == list(range(6))
    else:
        assert rows.embedded[0, :3, 0].tolist() == short
        assert rows.mask is None and rows.positions is None


def test_a_batch_knows_its_lengths() -> None:
    from tests.models import pairs

    some = pairs(5)
    batch = collate(some)
    assert batch.query_lengths == [len(pair.query) for pair in some]
    assert batch.queries.shape == (5, max(batch.query_lengths))
    assert batch.responses[2, : batch.response_lengths[2]].tolist() == some[2].response
