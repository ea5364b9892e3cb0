"""Tokens, batches and rows."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from stages.language_model import encoding
from stages.language_model.encoding import encode_pairs, side_lengths, to_text
from stages.language_model.loading import load_tokenizer
from stages.methods.batch import collate
from stages.methods.row_layout import join
from stages.params.schema import Lengths
from stages.records import Pair, load_records, write_records
from stages.train.examples import BATCHES_PER_POOL, epoch_batches
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
    assert (cuts["queries"], cuts["responses"]) == (1, 1)
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


def batches(sizes: list[int], batch_size: int, seed: int = 1, epoch: int = 2) -> list[list[int]]:
    return [batch.tolist() for batch in epoch_batches(np.array(sizes), batch_size, seed, epoch)]


def batches_by_a_plain_sort(sizes: list[int], batch_size: int) -> list[list[int]]:
    """What `batches` are, with Python's own lists and sort."""
    generator = np.random.default_rng([1, 2])
    order = generator.permutation(len(sizes))
    pool = batch_size * BATCHES_PER_POOL
    found: list[list[int]] = []
    for start in range(0, len(order), pool):
        by_size = sorted(order[start : start + pool].tolist(), key=sizes.__getitem__)
        found += [by_size[first : first + batch_size] for first in range(0, len(by_size), batch_size)]
    return [found[index] for index in generator.permutation(len(found))]


@pytest.mark.parametrize(("pairs", "batch_size"), [(1, 8), (255, 8), (256, 8), (257, 8), (3001, 8), (700, 5)])
def test_an_epoch_s_batches_are_those_of_a_plain_sort_and_follow_from_seed_and_epoch(
    pairs: int, batch_size: int
) -> None:
    sizes = [(7919 * i) % 23 for i in range(pairs)]  # many of equal size: the sort has to be stable
    found = batches(sizes, batch_size)
    assert found == batches_by_a_plain_sort(sizes, batch_size)
    assert sorted(pair for batch in found for pair in batch) == list(range(pairs))
    if pairs > 1:
        assert found not in (batches(sizes, batch_size, seed=3), batches(sizes, batch_size, epoch=3))
    widest = max(sizes[i] for batch in found[:1] for i in batch) - min(sizes[i] for i in found[0])
    assert widest < 12, "a batch holds pairs of like length"


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
    assert list(stored) == list(whole) and others == cuts and cuts["queries"] > 0  # though their files are gone
    assert stored[[3, 49, 7]] == {side: [whole[at][side] for at in (3, 49, 7)] for side in ("query", "response")}
    for lengths_, side in zip(side_lengths(stored), ("query", "response"), strict=True):
        assert lengths_.tolist() == [len(tokens) for tokens in whole[side]]


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
