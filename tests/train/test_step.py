"""A step of a trial: what the loss covers, what dropout and limits do, and that parts of a batch equal the whole."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair
from stages.methods.decoding import decode_and_score
from stages.params.schema import Training
from stages.train import step
from stages.train.step import Learner, scheduled
from tests.models import TRAINING, learner, limit_rows, method, pairs


def gradients(one: Learner, some: list[EncodedPair], seed: int = 0) -> tuple[float, dict[str, Tensor]]:
    """The summed loss of a batch and the gradients of its mean loss."""
    loss = float(one.gradients(some, seed))
    found = {key: value.grad.clone() for key, value in one.weights.items() if value.grad is not None}
    one.optimizer.zero_grad()
    return loss, found


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune"])
def test_long_rows_go_in_parts_with_the_same_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, some = learner(method(name)), pairs(8)
    assert list(map(len, one._parts(some))) == [8]
    whole, expected = gradients(one, some)
    monkeypatch.setitem(step.TOKENS_OF_A_PASS, torch.float32, 60)
    parts = one._parts(some)
    assert len(parts) > 2 and [pair for part in parts for pair in part] == some
    loss, found = gradients(one, some)
    assert loss == pytest.approx(whole) and found.keys() == expected.keys()
    assert all(torch.allclose(value, found[key], atol=2e-5) for key, value in expected.items())


def test_out_of_memory_halves_the_batch_for_good(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = learner(method("dynamic")), learner(method("dynamic"))
    expected = [other.step(pairs(8, seed=seed), seed, 1e-3) for seed in range(3)]
    tried = limit_rows(step, "summed_loss", 3, monkeypatch)
    losses = [one.step(pairs(8, seed=seed), seed, 1e-3) for seed in range(3)]
    assert tried == [8, 4, *[2] * 12], "with parts of two it goes on to the end"
    assert losses == pytest.approx(expected, rel=1e-4)
    assert capsys.readouterr().out.count("out of memory") == 2


def test_one_pair_that_does_not_fit_and_another_error_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_rows(step, "summed_loss", 0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        learner(method("soft")).step(pairs(2), 0, 1e-3)
    monkeypatch.setattr(step, "summed_loss", lambda *words: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        learner(method("soft")).step(pairs(2), 0, 1e-3)


def test_gradients_are_summed_in_one_order_unless_an_operation_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, summed_loss = list[bool](), step.summed_loss

    def backward(gradient: Tensor) -> None:
        seen.append(torch.is_deterministic_algorithms_warn_only_enabled())
        if not seen[-1]:
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation")

    def watched(*words: Any) -> Tensor:
        (loss := summed_loss(*words)).register_hook(backward)
        return loss

    monkeypatch.setattr(step, "summed_loss", watched)
    one = learner(method("soft"))
    assert all(math.isfinite(one.step(pairs(2), 0, 1e-3)) for _ in range(2))
    assert seen == [False, True, True] and capsys.readouterr().out.startswith("the last bits may differ")


def test_a_step_whose_loss_is_not_finite_leaves_the_weights_as_they_are() -> None:
    one = learner(method("dynamic"))
    with torch.no_grad():
        one.weights["embeddings"][3:] = math.nan
    before = {key: value.detach().clone() for key, value in one.weights.items()}
    assert math.isnan(one.step(pairs(4), 0, 1e-3))
    assert all(torch.equal(value.nan_to_num(7), before[key].nan_to_num(7)) for key, value in one.weights.items())


@pytest.mark.parametrize(("limit", "limited"), [(1e-3, True), (1e9, False), (None, False)])
def test_the_gradient_is_limited(limit: float | None, limited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = list[float]()
    monkeypatch.setattr(step, "clip_grads_with_norm_", lambda tensors, most, norm: limits.append(most))
    learner(method("soft"), max_grad_norm=limit).step(pairs(4), 0, 1e-3)
    assert limits == [limit] * limited


@pytest.mark.parametrize(("name", "acts"), [("fine-tune", True), ("dynamic", True), ("soft", False)])
def test_dropout_acts_in_training_and_in_what_is_trained_alone(name: str, acts: bool) -> None:
    one, some, modes = method(name, dropout=0.5), pairs(6), set()
    for module in one.base.model.modules():
        module.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    own, queries, references = learner(one), [pair.query for pair in some], [pair.response for pair in some]
    plain = float(decode_and_score(one, own.weights, queries, references, 10, {0: []}).losses.sum())
    assert modes == {False}
    modes.clear()
    first, same, other = (gradients(own, some, seed)[0] for seed in (1, 1, 2))
    assert modes == {name == "fine-tune"}, "frozen layers are never in training mode"
    assert (abs(first / plain - 1) > 1e-3) == acts
    assert first == same and (first != other) == acts, "another at each step, and the same when it is repeated"
    modes.clear()
    assert float(decode_and_score(one, own.weights, queries, references, 10, {0: []}).losses.sum()) == plain
    assert modes == {False}


def test_the_word_embeddings_have_a_rate_of_their_own_beside_a_prompt_and_nowhere_else() -> None:
    moved = {}
    for name in ("soft", "embeddings"):
        one = learner(method(name), embeddings_rate=0.1)
        before = {key: value.detach().clone() for key, value in one.weights.items()}
        one.step(pairs(4), 0, 1e-2)
        moved[name] = {key: float((value.detach() - before[key]).abs().max()) for key, value in one.weights.items()}
    # Adam's first step moves a weight by the rate of its group.
    assert moved["soft"] == pytest.approx({"prompt": 1e-2, "embeddings": 1e-3}, rel=1e-3)
    assert moved["embeddings"] == pytest.approx({"embeddings": 1e-2}, rel=1e-3)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25])],
)
def test_a_schedule_warms_up_and_then_stays_or_falls_to_zero(schedule: str, expected: list[float]) -> None:
    training: Training = TRAINING.model_copy(update={"warmup_steps": 2, "lr_scheduler_type": schedule})
    assert [scheduled(number, 6, training) for number in range(1, 7)] == expected
