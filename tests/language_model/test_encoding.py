"""Tokens, batches and rows."""

from pathlib import Path

import pytest
import torch

from stages.language_model.encoding import encode_pairs, to_text
from stages.language_model.loading import load_tokenizer
from stages.methods.row_layout import join
from stages.params.schema import Lengths
from stages.records import Pair
from stages.train.batches import collate, epoch_batches
from tests.models import LONG, end_of_text_format, model_folder


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_folder("gpt2", True)


def test_both_sides_end_with_end_of_text_and_long_ones_are_cut_and_counted(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    row_format = end_of_text_format(tokenizer)
    end = row_format.end
    texts = [Pair("a", 0, "hello", "you"), Pair("a", 2, "a b c d e f g h", "h g f e d c b a")]
    encoded, cuts = encode_pairs(texts, tokenizer, row_format, Lengths(query_tokens=8, response_tokens=8))
    assert encoded[0].query[-1] == encoded[0].response[-1] == end
    assert (cuts.queries, cuts.responses) == (1, 1)
    whole = tokenizer("a b c d e f g h", add_special_tokens=False)["input_ids"]
    assert encoded[1].query == [*whole, end][-8:]  # a long query is cut at the start
    assert encoded[1].response == tokenizer("h g f e d c b a", add_special_tokens=False)["input_ids"][:8]
    assert end not in encoded[1].response  # a cut response has no end-of-text


def test_text_survives_its_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    for text in ("I 'm fine , thanks . And you ?", "naïve café 😀 שלום"):
        encoded, _ = encode_pairs([Pair("a", 0, text, text)], tokenizer, end_of_text_format(tokenizer), LONG)
        assert to_text(encoded[0].response, tokenizer) == text


def test_a_line_break_never_leaves_decoding(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = tokenizer("one\ntwo\u2028three", add_special_tokens=False)["input_ids"]
    assert to_text(tokens, tokenizer) == "one two three"


def test_an_epoch_s_batches_hold_every_pair_once_and_follow_from_seed_and_epoch() -> None:
    sizes = [(7 * i) % 31 for i in range(501)]
    first = epoch_batches(sizes, 8, seed=3, epoch=1)
    assert sorted(pair for batch in first for pair in batch) == list(range(501))
    assert first == epoch_batches(sizes, 8, seed=3, epoch=1)
    assert first != epoch_batches(sizes, 8, seed=3, epoch=2)
    assert first != epoch_batches(sizes, 8, seed=4, epoch=1)
    assert {len(batch) for batch in first} == {8, 501 % 8}


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
