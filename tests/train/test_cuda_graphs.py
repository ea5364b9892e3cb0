"""Passes as CUDA graphs: the padded pass is the same pass; who recorded what; and on a GPU, that a replay is right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stages.language_model.encoding import EncodedPair
from stages.methods.batch import collate
from stages.methods.method import Method
from stages.train import cuda_graphs
from stages.train.cuda_graphs import CudaGraphs
from stages.train.losses import response_losses
from stages.train.trials import Trial, new_trial, train_step
from stages.train.trials_per_pass import TrialsPerPass
from tests.models import FAMILIES, TRAINING, method, pairs, weights

KINDS = ("fine-tune", "lora", "embeddings", "soft", "soft-classic", "dynamic")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Recordings that compute anew at each replay, as a graph does, on a CPU too; and each that was made."""
    made: list[Callable[[], None]] = []

    def record(work: Callable[[], None], pool: object) -> Callable[[], None]:
        made.append(work)
        work()  # the trial run
        return work

    monkeypatch.setattr(cuda_graphs, "record", record)
    return made


def graphs(dropout: float = 0.0) -> CudaGraphs:
    return CudaGraphs(queries=40, responses=40, dropout=dropout)


def trials_of(one: Method, count: int) -> list[Trial]:
    return [new_trial(weights(one), index, 1e-3, TRAINING, one.base.device) for index in range(count)]


def eager(one: Method, trials: list[Trial], some: list[EncodedPair], seed: int = 0) -> tuple[list[float], list[Tensor]]:
    """The losses, and the gradients of the mean loss, kernel by kernel."""
    losses = response_losses(one, [t.weights for t in trials], collate(some).to(one.base.device), seed)
    torch.stack(losses).sum().div(sum(len(pair.response) for pair in some)).backward()
    return torch.stack(losses).tolist(), take_gradients(trials)


def take_gradients(trials: list[Trial]) -> list[Tensor]:
    found = [tensor.grad for trial in trials for tensor in trial.weights.values()]
    own = [torch.zeros(1) if gradient is None else gradient.clone() for gradient in found]
    for trial in trials:
        for tensor in trial.weights.values():
            tensor.grad = None
    return own


def compare(one: Method, count: int, tolerance: float = 1e-5) -> None:
    trials, replayed = trials_of(one, count), graphs()
    for seed in (1, 2, 3):  # the second and third time a shape is replayed, with other tokens
        some = pairs(4, seed=seed)
        expected, gradients = eager(one, trials, some)
        batch = collate(some).to(one.base.device)
        assert replayed.backward(one, [t.weights for t in trials], batch, 0) == pytest.approx(expected, rel=tolerance)
        for own, other in zip(take_gradients(trials), gradients, strict=True):
            # PyTorch gives no gradient to what a pass did not touch; a graph gives zeros.
            assert torch.allclose(own, other.expand_as(own), atol=max(tolerance, tolerance * float(other.abs().max())))


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_pass_has_the_losses_and_gradients_of_the_plain_one(
    kind: str, family: str, tied: bool, recorded: list[Callable[[], None]]
) -> None:
    one = method(kind, family, tied)
    compare(one, 2 if one.shares_layers else 1)
    assert len(recorded) < 3


def test_batches_of_like_length_share_a_recording(recorded: list[Callable[[], None]]) -> None:
    one, own = method("soft"), graphs()
    trials = trials_of(one, 2)
    for query, response in ((3, 4), (16, 16), (9, 2), (17, 4), (30, 16)):
        pair = EncodedPair(list(range(1, query + 1)), list(range(1, response + 1)))
        own.backward(one, [t.weights for t in trials], collate([pair, pair]), 0)
    assert len(recorded) == 2  # up to 16 tokens of a query, and up to 32


def test_padding_stops_at_the_longest_text(recorded: list[Callable[[], None]]) -> None:
    """A soft prompt has as many slots as the longest query, a model as many positions as the longest row."""
    one = method("soft")
    trials, own = trials_of(one, 1), CudaGraphs(queries=7, responses=5, dropout=0.0)
    laid, shape = own._padded(one, collate([EncodedPair([1, 2, 3], [4, 5])]))
    assert shape == (1, 7, 5) and laid.source.shape == (1, 19)
    assert own.backward(one, [t.weights for t in trials], collate([EncodedPair([1, 2], [4])]), 0)


def test_a_trial_that_leaves_the_pass_takes_its_recordings_along(recorded: list[Callable[[], None]]) -> None:
    one, own = method("dynamic"), graphs()
    trials = trials_of(one, 3)
    batch = collate(pairs(4))
    own.backward(one, [t.weights for t in trials], batch, 0)
    own.backward(one, [t.weights for t in trials[:2]], batch, 0)
    assert [len(each.trials) for each in own.recorders] == [2]
    own.backward(one, [trials[2].weights], batch, 0)  # a pass that was split: both halves are kept
    own.backward(one, [t.weights for t in trials[:2]], batch, 0)
    assert [len(each.trials) for each in own.recorders] == [2, 1] and len(recorded) == 3


def test_training_goes_the_same_way(recorded: list[Callable[[], None]]) -> None:
    one = method("dynamic")
    plain, replayed, own = trials_of(one, 2), trials_of(one, 2), graphs()
    for step in range(4):
        batch = collate(pairs(4, seed=step))
        train_step(one, plain, batch, TRAINING, TrialsPerPass(2), step)
        train_step(one, replayed, batch, TRAINING, TrialsPerPass(2), step, graphs=own)
    for a, b in zip(plain, replayed, strict=True):
        assert a.loss_sum == pytest.approx(b.loss_sum, rel=1e-4) and a.steps == b.steps


def test_dropout_is_seeded_for_a_trial_alone_and_kept_out_of_a_shared_pass(
    recorded: list[Callable[[], None]],
) -> None:
    batch = collate([EncodedPair(list(range(1, 17)), list(range(1, 17)))] * 2)  # already as wide as its recording
    shared = method("dynamic", dropout=0.3)
    for count in (2, 1):  # also if the others have left: a trial's masks do not depend on them
        assert graphs(0.3).backward(shared, [t.weights for t in trials_of(shared, count)], batch, 5) is None
    one, own = method("fine-tune", dropout=0.3), graphs(0.3)
    (trial,) = trials_of(one, 1)
    one.dropout(True)
    losses = [own.backward(one, [trial.weights], batch, seed) for seed in (5, 5, 6)]  # the first one also records
    assert losses[0] == losses[1] != losses[2]


def test_what_cannot_be_recorded_is_said_once_and_runs_kernel_by_kernel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(work: Callable[[], None], pool: object) -> Callable[[], None]:
        work()  # the trial run succeeds, and leaves gradients
        raise RuntimeError("operation not permitted when stream is capturing\nand a long explanation")

    monkeypatch.setattr(cuda_graphs, "record", broken)
    one, own = method("soft"), graphs()
    trials, plain = trials_of(one, 2), trials_of(one, 2)
    for step in range(2):
        batch = collate(pairs(4, seed=step))
        train_step(one, trials, batch, TRAINING, TrialsPerPass(2), step, graphs=own)
        train_step(one, plain, batch, TRAINING, TrialsPerPass(2), step)
    for trial, other in zip(trials, plain, strict=True):
        assert all(torch.equal(tensor, other.weights[name]) for name, tensor in trial.weights.items())
    said = capsys.readouterr().out
    assert said == "no CUDA graphs for this model: operation not permitted when stream is capturing\n"


def test_a_trial_that_does_not_fit_with_graphs_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pools: list[object] = []

    def full(work: Callable[[], None], pool: object) -> Callable[[], None]:
        pools.append(pool)
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(cuda_graphs, "record", full)
    one, own, passes = method("soft"), graphs(), TrialsPerPass(2)
    trials, plain = trials_of(one, 2), trials_of(one, 2)
    batch = collate(pairs(4))
    train_step(one, trials, batch, TRAINING, passes, 0, graphs=own)
    train_step(one, plain, batch, TRAINING, TrialsPerPass(1), 0)
    assert (passes.most, own.off, own.recorders, len(pools)) == (1, True, [], 2)
    assert capsys.readouterr().out.splitlines()[-1] == "out of memory: training goes on without CUDA graphs"
    for trial, other in zip(trials, plain, strict=True):
        assert all(torch.equal(tensor, other.weights[name]) for name, tensor in trial.weights.items())


def test_passes_of_every_size_share_their_memory(
    monkeypatch: pytest.MonkeyPatch, recorded: list[Callable[[], None]]
) -> None:
    one, own = method("soft"), graphs()
    trials = [weights(one) for _ in range(6)]
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(type(one.base), "device", torch.device("cuda"))
    for some in (trials[:3], trials[3:5], trials[5:]):
        own._recorder(one, some)
    (pool,) = {each.pool for each in own.recorders}
    own._forget([])
    own._recorder(one, trials[:1])
    assert own.recorders[0].pool not in (pool, None)


def test_they_are_as_wide_as_the_longest_pair_and_without_a_gpu_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    one, some = method("soft"), [EncodedPair([1, 2, 3], [4]), EncodedPair([1], [4, 5])]
    assert CudaGraphs.for_pairs(one, some, 0.0) is None
    monkeypatch.setattr(type(one.base), "device", torch.device("cuda"))
    found = CudaGraphs.for_pairs(one, some, 0.1)
    assert found is not None and (found.queries, found.responses, found.dropout) == (3, 2, 0.1)


@on_a_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_a_replay_gives_what_the_kernels_give(kind: str) -> None:
    one = method(kind, device="cuda")
    compare(one, 2 if one.shares_layers else 1, tolerance=1e-4)
