"""The training of trials: what the loss covers, and that a pass of several trials equals single trials."""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from stages.language_model.encoding import EncodedPair
from stages.methods.batch import Batch, collate
from stages.methods.decoding import RowLimit, decode_and_score
from stages.methods.method import Method
from stages.train import trials as engine
from stages.train import trials_per_pass as engine_pass
from stages.train.examples import Examples
from stages.train.losses import response_losses
from stages.train.rates import scheduled
from stages.train.sweep import Sweep
from stages.train.trials import (
    Trial,
    Validation,
    new_trial,
    train_step,
)
from stages.train.trials_per_pass import TrialsPerPass
from tests.models import FAMILIES, SETTINGS, TRAINING, method, pairs, weights

RATES = (1e-3, 3e-3, 1e-2)
with_and_without_dropout = pytest.mark.parametrize("dropout", [0.0, 0.3])


def reference_loss(one: Method, own: dict[str, Tensor], pair: EncodedPair) -> float:
    """Eq. 1 and 2 literally: one unpadded row through the whole model, the log-probability of each response token."""
    query, response = torch.tensor([pair.query]), torch.tensor([pair.response])
    embedded = one.embed(own, query)
    prompt = one.prompt(own, embedded)
    row = torch.cat([*([] if prompt is None else [prompt]), embedded, one.embed(own, response)], dim=1)
    model = copy.deepcopy(one.base.model)
    if "embeddings" in own and one.base.tied:
        model.get_input_embeddings().weight.data = own["embeddings"]
    elif "embeddings" not in own:
        model.load_state_dict(dict(one.language_model(own)), strict=False)
    log_probabilities = model(inputs_embeds=row).logits.log_softmax(dim=-1)[0]
    before = row.shape[1] - len(pair.response)
    return -sum(float(log_probabilities[before + i - 1, token]) for i, token in enumerate(pair.response))


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_loss_is_the_cross_entropy_of_the_response_tokens_only(name: str, family: str, tied: bool) -> None:
    one = method(name, family, tied)
    own = weights(one)
    some = pairs(5)
    with torch.no_grad():
        together = float(response_losses(one, [own], collate(some))[0])
        alone = [float(response_losses(one, [own], collate([pair]))[0]) for pair in some]
        assert together == pytest.approx(sum(reference_loss(one, own, pair) for pair in some), rel=1e-5)
    assert together == pytest.approx(sum(alone), rel=1e-5)  # padding changes nothing


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune"])
def test_padding_has_no_gradient(name: str) -> None:
    """A short pair has the same gradient next to a long pair, after subtracting the long pair's own gradient."""
    one = method(name)
    short, long = EncodedPair([5, 6, 0], [7, 0]), EncodedPair([*list(range(1, 13)), 0], [*list(range(20, 30)), 0])

    def gradients(batch: list[EncodedPair]) -> dict[str, Tensor]:
        trial = new_trial(weights(one), 0, 1e-3, TRAINING)
        response_losses(one, [trial.weights], collate(batch))[0].backward()
        return {key: value.grad.clone() for key, value in trial.weights.items() if value.grad is not None}

    both, of_long, of_short = gradients([short, long]), gradients([long]), gradients([short])
    for key, value in of_short.items():
        assert torch.allclose(both[key] - of_long[key], value, atol=2e-5), key


def train(one: Method, trials: list[Trial], epochs: int = 2, passes: TrialsPerPass | None = None) -> None:
    for epoch in range(epochs):
        for step in range(4):
            running = [trial for trial in trials if trial.status == "running"]
            batch = collate(pairs(4, seed=10 * epoch + step))
            train_step(one, running, batch, TRAINING, passes or TrialsPerPass(len(trials)), dropout_seed=step)


def new_trials(one: Method, rates: tuple[float, ...] = RATES) -> list[Trial]:
    return [new_trial(weights(one), index, rate, TRAINING) for index, rate in enumerate(rates)]


def assert_equal_weights(first: Trial, second: Trial, tolerance: float = 2e-5) -> None:
    for key, value in first.weights.items():
        # Adam's first steps are +-rate wherever the gradient is not zero, so a sign changed by rounding may show.
        far = (value - second.weights[key]).abs() > tolerance
        assert far.float().mean() < 1e-3, key


@with_and_without_dropout
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["soft", "dynamic"])
def test_a_trial_in_a_list_of_trials_equals_the_same_trial_alone(name: str, family: str, dropout: float) -> None:
    one = method(name, family, dropout=dropout)
    together = new_trials(one, tuple(1e-4 * 1.5**k for k in range(12)))
    train(one, together)
    assert not torch.allclose(together[0].weights["embeddings"], together[-1].weights["embeddings"], atol=1e-3)
    for index in (0, 5, 11):
        alone = new_trial(weights(one), 0, together[index].learning_rate, TRAINING)
        train(one, [alone])
        assert_equal_weights(together[index], alone)


@pytest.mark.parametrize("name", ["soft", "dynamic", "fine-tune"])
def test_long_rows_go_through_the_layers_in_parts_with_the_same_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, rows, batch = method(name), list[int](), collate(pairs(8))

    def gradients() -> list[dict[str, Tensor]]:
        trials = new_trials(one)
        rows.clear()
        sums = engine._backward(one, trials, engine_pass.passes_of(one, batch), dropout_seed=0, graphs=None)
        assert sums == pytest.approx([float(loss) for loss in response_losses(one, [weights(one)] * 3, batch)])
        return [{key: leaf.grad for key, leaf in trial.weights.items() if leaf.grad is not None} for trial in trials]

    def noted(method: Method, trials: Any, batch: Batch, seed: int | None = None) -> list[Tensor]:
        lengths = method.layout(batch.query_lengths, batch.response_lengths).tokens()
        rows.append(len(lengths))
        assert len(lengths) == 1 or len(lengths) * max(lengths) <= engine_pass.TOKENS_OF_A_PASS[torch.float32]
        assert batch.queries.shape == (len(lengths), max(batch.query_lengths))
        return response_losses(method, trials, batch, seed)

    monkeypatch.setattr(engine, "response_losses", noted)
    monkeypatch.setitem(engine_pass.TOKENS_OF_A_PASS, torch.float32, 1000)
    whole = gradients()
    assert rows == [8]
    monkeypatch.setitem(engine_pass.TOKENS_OF_A_PASS, torch.float32, 60)
    in_parts = gradients()
    assert len(rows) > 1
    assert sum(rows) == 8
    for first, second in zip(whole, in_parts, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.allclose(value, second[key], atol=2e-5) for key, value in first.items())


@with_and_without_dropout
@pytest.mark.parametrize("tokens", [40, 1000])
@pytest.mark.parametrize("name", ["soft", "dynamic"])
def test_a_trial_that_leaves_the_pass_changes_nothing_for_the_others(
    name: str, tokens: int, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine_pass.TOKENS_OF_A_PASS, torch.float32, tokens)  # with few, in parts: of the same masks
    one = method(name, dropout=dropout)
    all_stay, one_leaves = new_trials(one), new_trials(one)
    train(one, all_stay)
    train(one, one_leaves, epochs=1)
    one_leaves[1].status = "finished"
    left_with = {key: value.clone() for key, value in one_leaves[1].weights.items()}
    for step in range(4):
        batch = collate(pairs(4, seed=10 + step))
        train_step(one, [one_leaves[0], one_leaves[2]], batch, TRAINING, TrialsPerPass(2), dropout_seed=step)
    assert_equal_weights(all_stay[0], one_leaves[0])
    assert_equal_weights(all_stay[2], one_leaves[2])
    assert all(torch.equal(value, left_with[key]) for key, value in one_leaves[1].weights.items())


def test_a_trial_that_diverges_is_marked_and_the_others_never_see_it() -> None:
    one = method("dynamic")
    trials, alone = new_trials(one), new_trials(one)
    with torch.no_grad():
        trials[1].weights["embeddings"][3:] = math.nan
    train(one, trials)
    train(one, [alone[0], alone[2]])
    assert [trial.status for trial in trials] == ["running", "diverged", "running"]
    assert trials[1].diverged_at == "step 1"
    assert_equal_weights(trials[0], alone[0])
    assert_equal_weights(trials[2], alone[2])
    assert all(torch.isfinite(value).all() for trial in (trials[0], trials[2]) for value in trial.weights.values())


@with_and_without_dropout
def test_out_of_memory_splits_the_trials_with_the_same_result(
    dropout: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = method("dynamic", dropout=dropout)
    expected, split = new_trials(one), new_trials(one)
    train(one, expected)
    losses, seen = response_losses, []

    def limited(*arguments: object, **options: object) -> list[Tensor]:
        trials = arguments[1]
        assert isinstance(trials, list)
        seen.append(len(trials))
        computed = losses(*arguments, **options)  # type: ignore[arg-type]
        if len(trials) > 1:  # late, when the dropout masks have been drawn
            raise torch.OutOfMemoryError("no memory")
        return computed

    monkeypatch.setattr(engine, "response_losses", limited)
    passes = TrialsPerPass(len(split))
    train(one, split, passes=passes)
    assert seen[:5] == [3, 2, 1, 1, 1] and set(seen[2:]) == {1}
    for first, second in zip(expected, split, strict=True):
        assert_equal_weights(first, second)
    assert capsys.readouterr().out.count("out of memory") == 2


def test_an_error_that_is_not_out_of_memory_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> list[Tensor]:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(engine, "response_losses", broken)
    one = method("soft")
    with pytest.raises(RuntimeError, match="shapes"):
        train(one, new_trials(one))


@pytest.mark.parametrize(("limit", "limited"), [(1e-3, 2), (1e9, 0), (None, 0)])
def test_the_gradient_of_each_trial_is_limited_on_its_own(
    limit: float | None, limited: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    clip = clip_grads_with_norm_

    def seen(tensors: Iterable[Tensor], most: float, norm: Tensor) -> None:
        own = list(tensors)
        clip(own, most, norm)
        norms.append(float(get_total_norm([tensor.grad for tensor in own if tensor.grad is not None])))

    monkeypatch.setattr(engine, "clip_grads_with_norm_", seen)
    one = method("soft")
    trials = new_trials(one)[:2]
    with torch.no_grad():
        trials[1].weights["prompt"].mul_(3)  # so that its gradient differs from the first one's
    train_step(
        one,
        trials,
        collate(pairs(4)),
        TRAINING.model_copy(update={"max_grad_norm": limit}),
        TrialsPerPass(2),
        dropout_seed=0,
    )
    assert norms == pytest.approx([limit] * limited, rel=1e-3)


def test_warm_up_rises_to_the_trial_s_learning_rate() -> None:
    one = method("soft-classic")
    trial = new_trial(weights(one), 0, 1e-2, TRAINING)
    training = TRAINING.model_copy(update={"warmup_steps": 4})
    rates = []
    for step in range(6):
        train_step(one, [trial], collate(pairs(2, seed=step)), training, TrialsPerPass(1), dropout_seed=0)
        assert trial.optimizer is not None
        rates.append(trial.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(("name", "acts"), [("fine-tune", True), ("dynamic", True), ("soft", False)])
def test_dropout_acts_in_training_and_in_what_is_trained_alone(name: str, acts: bool) -> None:
    one, some, modes = method(name, dropout=0.5), pairs(6), set()
    for module in one.base.model.modules():
        module.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    trial = new_trial(weights(one), 0, 1e-3, TRAINING)
    queries, references = [pair.query for pair in some], [pair.response for pair in some]
    plain = float(decode_and_score(one, [trial.weights], queries, references, 10, 0).losses.sum())
    assert modes == {False}
    modes.clear()
    train_step(one, [trial], collate(some), TRAINING, TrialsPerPass(1), dropout_seed=1)
    assert modes == {not one.shares_layers}, "frozen layers are never in training mode"
    assert (abs(trial.loss_sum / plain - 1) > 1e-3) == acts
    modes.clear()
    decode_and_score(one, [trial.weights], queries, references, 10, 0)
    assert modes == {False}


def test_dropout_is_the_same_for_equal_trials_and_another_at_each_step() -> None:
    one, batch = method("dynamic", dropout=0.5), collate(pairs(6))
    own = weights(one)
    first, second, third = map(float, response_losses(one, [own] * 3, batch, dropout_seed=1))
    assert (second, third) == pytest.approx((first, first), rel=1e-5)
    assert float(response_losses(one, [own], batch, dropout_seed=2)[0]) != pytest.approx(first, rel=1e-3)


def test_the_word_embeddings_have_a_rate_of_their_own_beside_a_prompt_and_nowhere_else() -> None:
    slow = TRAINING.model_copy(update={"embeddings_rate": 0.1})
    moved = {}
    for name in ("soft", "embeddings"):
        one = method(name)
        own = weights(one)
        trial = new_trial(own, 0, 1e-2, slow)
        train_step(one, [trial], collate(pairs(4)), slow, TrialsPerPass(1), dropout_seed=0)
        moved[name] = {key: float((value.detach() - own[key]).abs().max()) for key, value in trial.weights.items()}
    # Adam's first step moves a weight by the rate of its group.
    assert moved["soft"] == pytest.approx({"prompt": 1e-2, "embeddings": 1e-3}, rel=1e-3)
    assert moved["embeddings"] == pytest.approx({"embeddings": 1e-2}, rel=1e-3)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25])],
)
def test_a_schedule_warms_up_and_then_stays_or_falls_to_zero(schedule: str, expected: list[float]) -> None:
    training = TRAINING.model_copy(update={"warmup_steps": 2, "lr_scheduler_type": schedule})
    assert [scheduled(step, 6, training) for step in range(1, 7)] == expected


def test_patience_counts_epochs_without_a_better_score() -> None:
    trial = Trial(0, 1e-3, {}, None)
    scores = [0.1, 0.3, 0.2, 0.3, 0.1]  # an equal score is not better
    better = []
    training = TRAINING.model_copy(update={"early_stopping_patience": 3, "num_train_epochs": 100})
    for epoch, score in enumerate(scores, start=1):
        better.append(trial.record_epoch(epoch, Validation(1.0, score), training))
        if trial.status == "finished":
            break
    assert better == [True, True, False, False, False]
    assert (trial.best_epoch, trial.best_bleu4, trial.status) == (2, 0.3, "finished")
    assert [row["bleu4"] for row in trial.curve] == scores


@pytest.mark.parametrize("name", ["fine-tune", "soft"])
def test_pairs_share_a_batch_whose_rows_are_as_long_in_this_method(name: str) -> None:
    one, train_pairs = method(name), pairs(64, longest=40)
    sweep = Sweep(one, one, None, 0, Examples(train_pairs, [], []), TRAINING, 8, RowLimit(), seed=0)  # type: ignore[arg-type]
    batches = sweep.batches(1)
    rows = [sorted(one.row_tokens(sweep.pairs(batch)).tolist()) for batch in batches]
    assert sum(map(len, rows)) == len(train_pairs)
    assert all(shorter[-1] <= longer[0] for shorter, longer in pairwise(sorted(rows)))


@pytest.mark.parametrize(("tokens", "trials"), [(10**6, 3), (500, 2), (250, 1), (10, 1)])
def test_trials_share_a_pass_as_far_as_its_tokens_allow(
    tokens: int, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of more tokens takes more memory, one of fewer makes its products slower: short rows go together."""
    one, batch = method("dynamic"), collate(pairs(8))
    longest = max(one.layout(batch.query_lengths, batch.response_lengths).tokens())
    seen = list[int]()

    def noted(method: Method, trials: Any, batch: Batch, seed: int | None = None) -> list[Tensor]:
        seen.append(len(trials))
        return response_losses(method, trials, batch, seed)

    assert 200 < 8 * longest < 250, "the test's rows have other lengths now"
    monkeypatch.setattr(engine, "response_losses", noted)
    monkeypatch.setitem(engine_pass.TOKENS_OF_A_PASS, torch.float32, tokens)
    train_step(one, new_trials(one), batch, TRAINING, TrialsPerPass(3), dropout_seed=0)
    assert max(seen) == trials


def test_trials_of_a_few_tokens_do_not_all_share_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has gradients of its own word embeddings, however short the rows are."""
    one, batch = method("soft"), collate([EncodedPair([5, 0], [7, 0])])
    monkeypatch.setitem(engine_pass.TOKENS_OF_A_PASS, torch.float32, 2 * engine_pass.TOKENS_OF_A_TRIAL)
    assert TrialsPerPass(12).size(one, batch) == 2
