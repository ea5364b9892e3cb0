"""Passes as CUDA graphs: the padded pass is the same pass; and on a GPU, that a replay gives what the kernels give."""

from collections.abc import Callable

import pytest
import torch

from stages.language_model.encoding import EncodedPair
from stages.train import cuda_graphs
from stages.train.cuda_graphs import CudaGraphs, padded_widths
from stages.train.step import Learner, lay_out, summed_loss
from tests.models import FAMILIES, learner, method, pairs

KINDS = ("fine-tune", "lora", "embeddings", "soft", "prompt-tuning", "soft-deep", "dynamic", "dynamic-deep")
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


def with_graphs(one: Learner) -> Learner:
    one.graphs = CudaGraphs(list(one.weights.values()))
    return one


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_pass_has_the_loss_and_gradients_of_the_plain_one(kind: str, family: str, tied: bool) -> None:
    one, batch = learner(method(kind, family, tied)), pairs(4)
    found = []
    for widths in (None, padded_widths(batch, (40, 40))):
        laid = lay_out(one.method, batch, widths)
        loss = summed_loss(one.method, one.weights, laid)
        names, wanted = list(one.weights), list(one.weights.values())
        gradients = torch.autograd.grad(loss / laid.tokens, wanted, allow_unused=True)
        found.append((float(loss.detach()), dict(zip(names, gradients, strict=True))))
    (plain, expected), (padded, gradients_there) = found
    assert padded == pytest.approx(plain, rel=1e-5)
    for name, value in expected.items():
        assert (value is None) == (gradients_there[name] is None)
        assert value is None or torch.allclose(value, gradients_there[name], atol=1e-5), name


def test_batches_are_padded_to_few_widths_and_never_beyond_the_longest_text() -> None:
    """A soft prompt has as many slots as the longest query, a model as many positions as the longest row."""

    def widths(query: int, response: int, longest: tuple[int, int] = (40, 40)) -> tuple[int, int]:
        return padded_widths([EncodedPair([1] * query, [2] * response)], longest)

    assert widths(3, 16) == (16, 16) and widths(17, 33) == (32, 40) and widths(3, 2, (7, 5)) == (7, 5)


def test_training_goes_the_same_way_and_each_shape_is_recorded_once(recorded: list[Callable[[], None]]) -> None:
    plain, replayed = learner(method("dynamic")), with_graphs(learner(method("dynamic")))
    pair = EncodedPair([*range(1, 17)], [*range(1, 17)])
    some = [[pair] * 4, [pair] * 4, pairs(4), [pair] * 4]
    for seed, own in enumerate(some):
        losses = [each.step(own, seed, 1e-3) for each in (plain, replayed)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(recorded) == 2


@pytest.mark.parametrize("kind", ["fine-tune", "dynamic"])
def test_a_replay_draws_the_masks_of_its_seed(kind: str, recorded: list[Callable[[], None]]) -> None:
    one, batch = with_graphs(learner(method(kind, dropout=0.3))), pairs(4)
    losses = [float(one.gradients(batch, seed)) for seed in (5, 5, 6)]  # the first one also records
    assert losses[0] == losses[1] != losses[2] and len(recorded) == 1
    one.graphs = None
    assert [float(one.gradients(batch, seed)) for seed in (5, 6)] == losses[1:]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("operation not permitted when stream is capturing\nand more"), "no CUDA graphs for this model: "),
        (torch.OutOfMemoryError("no memory"), "out of memory: training goes on without CUDA graphs"),
        (MemoryError(), "out of memory: training goes on without CUDA graphs"),
    ],
)
def test_what_cannot_be_recorded_is_said_once_and_runs_kernel_by_kernel(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(work: Callable[[], None], pool: object) -> Callable[[], None]:
        work()  # the trial run succeeds, and leaves gradients
        raise error

    monkeypatch.setattr(cuda_graphs, "record", broken)
    plain, other = learner(method("soft")), with_graphs(learner(method("soft")))
    for seed in range(2):
        for each in (plain, other):
            each.step(pairs(4, seed=seed), seed, 1e-3)
    assert all(torch.equal(value, other.weights[name]) for name, value in plain.weights.items())
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(said)
    assert other.method.records == said.startswith("out of memory"), "the next trial does not try again"


@on_a_gpu
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_a_replay_gives_what_the_kernels_give(kind: str, dropout: float) -> None:
    graphs, kernels = (learner(method(kind, device="cuda", dropout=dropout)) for _ in range(2))
    assert graphs.graphs is not None
    kernels.graphs = None
    for seed in (1, 2, 1):  # later, recorded shapes are replayed, with other tokens
        batch = pairs(4, seed=seed)
        losses = [float(each.gradients(batch, seed)) for each in (graphs, kernels)]
        assert graphs.graphs is not None, "it was recorded"
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        for name, value in kernels.weights.items():
            # PyTorch gives no gradient to what a pass did not touch; a graph gives zeros.
            expected, found = value.grad, graphs.weights[name].grad
            assert found is not None
            most = 1e-4 * max(1.0, 0.0 if expected is None else float(expected.abs().max()))
            assert float((found - (0 if expected is None else expected)).abs().max()) <= most, name
        kernels.optimizer.zero_grad()
