"""Greedy decoding of many rows at once, and the losses of references beside it."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair
from stages.methods import decoding, reading
from stages.methods.decoding import Decoded, Endings, RowLimit, decode_and_score
from stages.methods.method import Method
from stages.methods.reading import CHUNK
from stages.methods.registry import build_method
from tests.models import FAMILIES, SETTINGS, base_model, limit_rows, loss_of, method, moved_weights, pairs, weights

LIMIT = 10
QUERIES = [pair.query for pair in pairs(17, seed=4, longest=14)]
PAIRS = [*pairs(19, seed=4, longest=9), EncodedPair([3, 4, 0], [0]), EncodedPair([5, 0], list(range(1, LIMIT + 1)))]
ASKED, REFERENCES = [pair.query for pair in PAIRS], [pair.response for pair in PAIRS]


def greedy(
    one: Method, own: dict[str, Tensor], queries: list[list[int]], ends: Endings, rows: int = 0
) -> list[list[int]]:
    return decode_and_score(one, own, queries, None, LIMIT, ends, RowLimit(rows)).answers


def frequent_token(answers: list[list[int]]) -> int:
    """A token that is in some answers and not in others: used as end-of-text, it ends rows at different steps."""
    counts = Counter(token for answer in answers for token in set(answer))
    return min(counts, key=lambda token: (abs(counts[token] - len(answers) // 2), token))


@pytest.mark.parametrize("name", ["zero-shot", "soft", "dynamic"])
def test_rows_that_end_at_different_steps_have_the_answers_that_they_have_alone(name: str) -> None:
    one = method(name, "llama")
    own = weights(one)
    whole = [greedy(one, own, [query], {-1: []})[0] for query in QUERIES]
    end = frequent_token(whole)
    expected = [answer[: answer.index(end)] if end in answer else answer for answer in whole]
    assert len({len(answer) for answer in expected}) > 2
    for rows in (5, 256):
        assert greedy(one, own, QUERIES, {end: []}, rows) == expected


def scored(
    one: Method, own: dict[str, Tensor], some: Sequence[EncodedPair], rows: int = 0, limit: int = LIMIT
) -> Decoded:
    queries, references = [pair.query for pair in some], [pair.response for pair in some]
    return decode_and_score(one, own, queries, references, limit, {-1: []}, RowLimit(rows))


def alone(one: Method, own: dict[str, Tensor], some: Sequence[EncodedPair]) -> list[float]:
    """As training computes it, each pair in a row of its own."""
    with torch.inference_mode():
        return [float(loss_of(one, own, [pair])) for pair in some]


CASES = [(name, *FAMILIES[number % len(FAMILIES)]) for number, name in enumerate([*SETTINGS, "dynamic", "fine-tune"])]


@pytest.mark.parametrize(("name", "family", "tied"), CASES)
def test_each_reference_has_its_row_s_loss(name: str, family: str, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LOGITS_AT_ONCE", 7)
    one = method(name, family, tied)
    own = weights(one)
    expected = alone(one, own, PAIRS)
    for rows in (5, 256):
        assert scored(one, own, PAIRS, rows).losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert scored(one, own, PAIRS[::-1]).losses.tolist() == pytest.approx(expected[::-1], rel=1e-4)


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune", "lora"])
def test_in_bfloat16_a_reference_has_its_loss_but_for_rounding(name: str) -> None:
    exact = method(name, "llama")
    coarse, own = build_method(base_model("llama", dtype=torch.bfloat16), SETTINGS[name]), moved_weights(exact)
    expected = alone(exact, own, PAIRS)
    assert scored(coarse, own, PAIRS).losses.tolist() == pytest.approx(expected, rel=0.02)
    assert alone(exact, weights(exact), PAIRS) != pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["dynamic", "fine-tune"])
def test_losses_have_the_same_bits_however_many_rows_there_are_and_with_or_without_answers(name: str) -> None:
    one, some = method(name, "llama"), pairs(3 * CHUNK - 5, seed=7, longest=9)
    first, *others = (
        scored(one, weights(one), some, rows, limit).losses
        for rows, limit in ((CHUNK, LIMIT), (2 * CHUNK + 14, LIMIT), (0, LIMIT), (0, 0))
    )
    assert first.dtype is torch.float64 and all(torch.equal(first, other) for other in others)


def test_out_of_memory_halves_the_batch_for_good(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = method("dynamic")
    own = weights(one)
    expected = scored(one, own, PAIRS)
    tried, row_limit = limit_rows(decoding, "_decode_batch", 5, monkeypatch), RowLimit()
    for limit in (LIMIT, 0):  # like the next epoch
        found = decode_and_score(one, own, ASKED, REFERENCES, limit, {-1: []}, row_limit)
        assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-4)
        assert found.answers == (expected.answers if limit else [[]] * len(PAIRS))
    assert tried[:3] == [21, 10, 5] and max(tried[3:]) == 5
    assert capsys.readouterr().err.count("out of memory") == 2


def test_one_row_that_does_not_fit_and_another_error_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_rows(decoding, "_decode_batch", 0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        greedy(method("zero-shot"), {}, QUERIES[:2], {-1: []})


@pytest.mark.parametrize("name", ["dynamic", "prefix"])
def test_a_batch_has_as_many_rows_as_a_cache_of_some_size_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = method(name, "llama")
    expected = greedy(one, weights(one), QUERIES, {-1: []})
    tried = limit_rows(decoding, "_decode_batch", 100, monkeypatch)
    longest = max(map(len, QUERIES))
    columns = longest + (longest if name == "dynamic" else 7) + LIMIT  # with prompt or prefix
    of_a_row = 2 * 2 * 16 * columns * 4  # keys, values; layers; one shared head; float32
    monkeypatch.setattr(decoding, "SMALLER_CACHE", 5 * of_a_row)
    assert greedy(one, weights(one), QUERIES, {-1: []}) == expected
    assert tried[0] == 5 and len(tried) < 5, "shorter queries later on leave room for more"


def test_an_answer_ends_at_any_of_its_ends_and_still_says_what_stands_in_one() -> None:
    one = method("dynamic")
    whole = greedy(one, weights(one), QUERIES, {-1: []})
    full, stop = frequent_token(whole), whole[0][3]
    heard = list[tuple[int, int]]()
    found = decode_and_score(
        one, weights(one), QUERIES[:1], None, LIMIT, {stop: [full, full]}, heard=lambda *each: heard.append(each)
    )
    first = whole[0].index(stop)
    assert found.answers == [[*whole[0][:first], full, full]] and found.ended == [True]
    assert heard == [(0, token) for token in found.answers[0]]
    none = decode_and_score(one, weights(one), QUERIES, None, LIMIT, {-1: []})
    assert none.answers == whole and not any(none.ended)


def test_the_limit_counts_end_of_text_and_whoever_waits_to_stop_is_asked_on_the_way() -> None:
    one, ticks = method("zero-shot"), list[int]()
    answers = decode_and_score(one, {}, QUERIES, None, 3, {-1: []}, tick=ticks.append).answers
    assert {len(answer) for answer in answers} == {3} and sum(ticks) == len(QUERIES)
    ticks.clear()
    decode_and_score(one, {}, ASKED, REFERENCES, 0, {-1: []}, tick=ticks.append)
    assert len(ticks) >= 2 and sum(ticks) == len(PAIRS)
