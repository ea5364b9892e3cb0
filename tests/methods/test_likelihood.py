"""The loss of what people answered, as validation and greedy-generate measure it: from the cache, without a trace."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair
from stages.methods import likelihood
from stages.methods.batch import collate
from stages.methods.decoding import Decoded, RowLimit, decode_and_score, greedy
from stages.methods.method import Method
from stages.methods.reading import CHUNK
from stages.methods.registry import build_method
from stages.train.losses import response_losses
from tests.models import FAMILIES, SETTINGS, base_model, method, moved_weights, pairs, weights

LIMIT = 10
PAIRS = [*pairs(19, seed=4, longest=9), EncodedPair([3, 4, 0], [0]), EncodedPair([5, 0], list(range(1, LIMIT + 1)))]


def scored(
    one: Method, trials: Sequence[dict[str, Tensor]], some: Sequence[EncodedPair], rows: int = 0, end: int = 0
) -> Decoded:
    queries, references = [pair.query for pair in some], [pair.response for pair in some]
    return decode_and_score(one, trials, queries, references, LIMIT, end, RowLimit(rows))


def alone(one: Method, own: dict[str, Tensor], some: Sequence[EncodedPair]) -> list[float]:
    """As training computes it, each pair in a row of its own."""
    with torch.inference_mode():
        return [float(response_losses(one, [own], collate([pair]))[0]) for pair in some]


CASES = [(name, *FAMILIES[number % len(FAMILIES)]) for number, name in enumerate([*SETTINGS, "dynamic", "fine-tune"])]


@pytest.mark.parametrize(("name", "family", "tied"), CASES)
def test_each_reference_has_the_loss_of_its_own_row_read_alone(
    name: str, family: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 7)
    one = method(name, family, tied)
    own = weights(one)
    expected = alone(one, own, PAIRS)
    for rows in (5, 256):
        assert scored(one, [own], PAIRS, rows).losses[0].tolist() == pytest.approx(expected, rel=1e-4)
    assert scored(one, [own], PAIRS[::-1]).losses[0].tolist() == pytest.approx(expected[::-1], rel=1e-4)


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune", "lora"])
def test_in_bfloat16_a_reference_has_its_loss_but_for_rounding(name: str) -> None:
    """A protocol may decode in bfloat16."""
    exact = method(name, "llama")
    coarse, own = build_method(base_model("llama", dtype=torch.bfloat16), SETTINGS[name]), moved_weights(exact)
    expected = alone(exact, own, PAIRS)
    assert scored(coarse, [own], PAIRS).losses[0].tolist() == pytest.approx(expected, rel=0.02)
    assert alone(exact, weights(exact), PAIRS) != pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune"])
def test_trials_are_scored_as_each_alone(name: str) -> None:
    one = method(name)
    trials = [{key: value * (1 + 0.1 * index) for key, value in weights(one, index).items()} for index in range(3)]
    for rows in (12, 3 * CHUNK, 256):  # each trial for itself; two batches; one batch of two chunks
        found = scored(one, trials, PAIRS, rows).losses
        assert found.shape == (3, len(PAIRS)) and found.dtype is torch.float64
        for own, losses in zip(trials, found.tolist(), strict=True):
            assert losses == pytest.approx(alone(one, own, PAIRS), rel=1e-4)


@pytest.mark.parametrize("name", ["dynamic", "fine-tune"])
def test_losses_have_the_same_bits_however_many_rows_and_trials_are_together(name: str) -> None:
    one, some = method(name, "llama"), pairs(3 * CHUNK - 5, seed=7, longest=9)
    trials = [weights(one, seed) for seed in range(2)]
    found = [scored(one, trials, some, rows).losses for rows in (CHUNK, 2 * CHUNK + 14, 0)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.equal(found[0], torch.cat([scored(one, [own], some).losses for own in trials]))


@pytest.mark.parametrize("name", ["zero-shot", "dynamic"])
def test_answers_are_the_same_whether_references_are_scored_or_not(name: str) -> None:
    one = method(name, "llama")
    own = weights(one)
    queries = [pair.query for pair in PAIRS]
    expected = greedy(one, [own], queries, LIMIT, end=-1)
    assert scored(one, [own], PAIRS, end=-1).answers == expected
    assert decode_and_score(one, [own], queries, None, LIMIT, -1).losses.isnan().all()


def test_a_batch_that_does_not_fit_is_halved_with_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    one = method("soft")
    own, whole, read = weights(one), None, likelihood._token_losses
    whole = scored(one, [own], PAIRS).losses[0].tolist()

    def limited(method: Method, weights: dict[str, Tensor], states: Tensor, targets: Tensor) -> Tensor:
        if len(targets) > 30:
            raise torch.OutOfMemoryError("no memory")
        return read(method, weights, states, targets)

    monkeypatch.setattr(likelihood, "_token_losses", limited)
    assert scored(one, [own], PAIRS).losses[0].tolist() == pytest.approx(whole, rel=1e-4)


def test_whoever_waits_to_stop_is_asked_while_queries_and_references_are_read() -> None:
    one = method("zero-shot")
    ticks: list[int] = []
    queries, references = [pair.query for pair in PAIRS], [pair.response for pair in PAIRS]
    decode_and_score(one, [{}], queries, references, 1, -1, tick=ticks.append)
    assert len(ticks) >= 3 and sum(ticks) == len(PAIRS)
