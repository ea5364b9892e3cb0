"""Memory is planned before it is taken: what a trial needs, how a group is split, and what is refused."""

import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stages.methods.batch import collate
from stages.methods.decoding import Decoded, RowLimit
from stages.methods.method import Method
from stages.methods.soft import SoftMethod
from stages.params.methods import Soft
from stages.params.schema import load_params
from stages.plumbing.errors import StageError, is_out_of_memory
from stages.plumbing.signals import StopRequest
from stages.train import groups, memory
from stages.train.checkpoint import TrainingState
from stages.train.examples import Examples
from stages.train.groups import train_groups
from stages.train.memory import (
    TooLarge,
    bytes_of_casts,
    bytes_of_pass,
    bytes_of_trial,
    check_base_model,
    check_room,
    split,
)
from stages.train.sweep import KEPT_BETWEEN_STEPS, KEPT_IN_VALIDATION, Sweep
from stages.train.trials import new_trial, train_step
from stages.train.trials_per_pass import TOKENS_OF_A_TRIAL, TrialsPerPass, tokens_of_a_pass
from tests.models import TRAINING, Tokenizer, base_model, method, model_folder, pairs, weights
from tests.training_runs import workspace

RATES = list(enumerate([1e-3, 2e-3, 3e-3, 4e-3, 5e-3]))


def sweep(trained: Method) -> Sweep:
    some = pairs(8)
    return Sweep(trained, trained, Tokenizer(), 0, Examples(some, some[:2], ["a", "b"]), TRAINING, 4, RowLimit(), 0)  # type: ignore[arg-type]


def passes_at_once(trained: Method) -> float:
    """How many trials' short rows share a pass."""
    return tokens_of_a_pass(trained) / TOKENS_OF_A_TRIAL if trained.shares_layers else 1


def room_for(trials: float, trained: Method, initial: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many trials fit."""
    longest, responses = max(trained.row_tokens(pairs(8))), max(len(pair.response) for pair in pairs(8))
    one_pass = bytes_of_pass(trained, 4, longest, 4 * responses)
    passes = min(trials, passes_at_once(trained))
    free = int((trials * bytes_of_trial(initial) + passes * one_pass) / memory.USABLE) + 1
    monkeypatch.setattr(memory, "free_memory", lambda device: free)


def test_what_was_freed_goes_back_before_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, order = method("fine-tune"), list[str]()

    def noted(what: str, result: Any) -> Any:
        order.append(what)
        return result

    found = Decoded([[[1], [2]]], torch.ones(1, 2))
    monkeypatch.setattr("stages.train.sweep.give_back_freed_memory", lambda beyond=0: noted("given back", None))
    monkeypatch.setattr("stages.train.sweep.decode_and_score", lambda *rest: noted("validation", found))
    sweep(trained).validate([new_trial(weights(trained), 0, 1e-3, TRAINING)], StopRequest(), "epoch 1")
    assert order == ["given back", "validation"]


@pytest.mark.parametrize("free", [1 << 40, 1 << 30])
def test_freed_memory_is_limited_after_each_step_and_in_validation(
    free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = list[int]()
    monkeypatch.setattr("stages.train.sweep.give_back_freed_memory", lambda beyond=0: limits.append(beyond))
    monkeypatch.setattr("stages.train.sweep.free_memory", lambda device: free)
    trained = method("soft")
    some = replace(sweep(trained), training=TRAINING.model_copy(update={"num_train_epochs": 1}))
    some.run([new_trial(weights(trained), 0, 1e-3, TRAINING)], TrainingState(tmp_path, "f", {}))
    steps = len(some.batches(1))
    assert limits[: steps + 1] == [min(KEPT_BETWEEN_STEPS, free // 4)] * steps + [0]
    assert set(limits[steps + 1 :]) == {KEPT_IN_VALIDATION}


def test_the_bytes_of_a_trial_are_those_of_its_tensors_after_a_step() -> None:
    trained = method("dynamic")
    initial = weights(trained)
    trial = new_trial(initial, 0, 1e-3, TRAINING)
    train_step(trained, [trial], collate(pairs(4)), TRAINING, TrialsPerPass(1), 0)
    assert trial.optimizer is not None
    held = list(trial.weights.values()) * 2  # and a gradient of the same shape
    held += [state[name] for state in trial.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert sum(value.nbytes for value in held) == bytes_of_trial(initial)


def test_trials_that_do_not_fit_together_are_split_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = method("soft")
    initial = weights(trained)
    room_for(2, trained, initial, monkeypatch)
    with pytest.raises(TooLarge) as caught:
        check_room(sweep(trained), initial, RATES)
    assert [[index for index, _ in part] for part in caught.value.parts] == [[0, 1], [2, 3], [4]]
    room_for(5, trained, initial, monkeypatch)
    check_room(sweep(trained), initial, RATES)


def test_on_a_cpu_as_many_passes_are_planned_as_trials_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small batches several trials go through the layers together, each with activations of its own."""
    trained = method("soft")
    initial = weights(trained)
    some = replace(sweep(trained), training=TRAINING.model_copy(update={"batch_size": 1}))
    longest, responses = max(trained.row_tokens(pairs(8))), max(len(pair.response) for pair in pairs(8))
    one_pass = bytes_of_pass(trained, 1, longest, responses)
    needed = 3 * (bytes_of_trial(initial) + one_pass)
    monkeypatch.setattr(memory, "free_memory", lambda device: int(needed / memory.USABLE) + 1)
    with pytest.raises(TooLarge) as caught:
        check_room(some, initial, RATES)
    assert [len(part) for part in caught.value.parts] == [3, 2]


def test_a_trial_that_fits_nowhere_is_refused_with_the_gigabytes_that_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = method("soft")
    initial = weights(trained)
    room_for(0.5, trained, initial, monkeypatch)
    with pytest.raises(StageError, match=r"memory of cpu: one trial of this method needs [\d.e-]+ GB, [\d.e-]+ GB are"):
        check_room(sweep(trained), initial, RATES)


def test_a_base_model_that_does_not_fit_is_refused_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(workspace(tmp_path / "small") / "params.yaml")
    folder = model_folder("gpt2", True)
    stored = sum(value.numel() for value in method("fine-tune").base.model.parameters()) * 4
    monkeypatch.setattr(memory, "free_memory", lambda device: stored)
    check_base_model(folder, params)
    monkeypatch.setattr(memory, "free_memory", lambda device: stored - 1)
    with pytest.raises(StageError, match=r"memory of cpu: the base model needs 0\.000\d+ GB"):
        check_base_model(folder, params)


def test_trials_in_planned_groups_reach_what_they_reach_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = method("dynamic")
    initial = weights(trained)
    together = train_groups(sweep(trained), initial, TrainingState(tmp_path / "all", "f", {}), [RATES])
    room_for(2, trained, initial, monkeypatch)
    state = TrainingState(tmp_path / "split", "f", {})
    apart = train_groups(sweep(trained), initial, state, [RATES])
    assert [trial.index for trial in apart] == [0, 1, 2, 3, 4]
    for one, other in zip(together, apart, strict=True):
        assert one.curve[-1]["validation_loss"] == pytest.approx(other.curve[-1]["validation_loss"], rel=1e-4)
    assert state.read_groups([RATES]) == split(RATES, 3)


def test_a_group_that_has_begun_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts could not go on from its checkpoint."""
    trained = method("soft")
    initial = weights(trained)
    state = TrainingState(tmp_path, "f", {})
    train_groups(sweep(trained), initial, state, [RATES])
    room_for(2, trained, initial, monkeypatch)
    assert all(trial.status == "finished" for trial in train_groups(sweep(trained), initial, state, [RATES]))
    assert state.read_groups([RATES]) == [RATES]


class Allocator(TorchDispatchMode):
    """An allocator that has `limit` bytes for the tensors that are alive, as that of an accelerator has."""

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def used(self) -> int:
        """Bytes of what is alive."""
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        return sum(size for _, size in self.alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.layout is not torch._mkldnn:  # type: ignore[attr-defined]
                reference = StorageWeakRef(tensor.untyped_storage())
                self.alive[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        if self.used() > self.limit:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return made


# 2.56 MB of weights a trial, 10.2 in training
WIDE = Soft(kind="soft", prompt_tokens=20_000, init="random", train_embeddings=False)


@pytest.mark.parametrize(
    ("values", "failed_in"),
    [(4, "new_trial"), (13, "_update")],  # of five trials: the weights; the moments of Adam, in its first step
)
def test_under_a_limit_of_the_allocator_trials_go_on_in_smaller_groups(
    values: float, failed_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = SoftMethod(base_model(), WIDE)
    initial = weights(trained)
    together = train_groups(sweep(trained), initial, TrainingState(tmp_path / "all", "f", {}), [RATES])
    frames: list[str] = []
    monkeypatch.setattr(groups, "is_out_of_memory", lambda error: noted(error, frames))
    one = initial["prompt"].nbytes
    with Allocator(int((values + 0.5) * one)):
        apart = train_groups(sweep(trained), initial, TrainingState(tmp_path / "limited", "f", {}), [RATES])
    assert failed_in in frames[0]
    assert "out of memory: 5 trials go on in groups of 3" in capsys.readouterr().out
    for one_trial, other in zip(together, apart, strict=True):
        assert one_trial.curve == other.curve or one_trial.curve[-1]["validation_loss"] == pytest.approx(
            other.curve[-1]["validation_loss"], rel=1e-4
        )


@pytest.mark.parametrize(("trials", "parts"), [(5, 1), (2, 3), (1, 5)])
def test_what_is_planned_fits_under_the_limit_of_the_allocator_to_the_end(
    trials: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = SoftMethod(base_model(), WIDE)
    initial = weights(trained)
    longest, responses = max(trained.row_tokens(pairs(8))), max(len(pair.response) for pair in pairs(8))
    one_pass = bytes_of_pass(trained, 4, longest, 4 * responses)
    needed = trials * bytes_of_trial(initial) + min(trials, passes_at_once(trained)) * one_pass
    train_groups(
        sweep(trained), initial, TrainingState(tmp_path / "before", "f", {}), [RATES]
    )  # what it keeps for ever
    with Allocator(int(needed / memory.USABLE) + 1) as allocator:
        monkeypatch.setattr(memory, "free_memory", lambda device: allocator.limit - allocator.used())
        monkeypatch.setattr(groups, "is_out_of_memory", lambda error: pytest.fail("it ran out of memory"))
        state = TrainingState(tmp_path / "limited", "f", {})
        made = train_groups(sweep(trained), initial, state, [RATES])
    assert [trial.status for trial in made] == ["finished"] * 5
    assert len(state.read_groups([RATES])) == parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_of_a_trial_take_no_more_than_is_planned_for_it(dtype: torch.dtype) -> None:
    trained = SoftMethod(base_model(dtype=dtype), WIDE)
    initial, batch = weights(trained), collate(pairs(4))
    longest, responses = max(trained.row_tokens(pairs(4))), max(batch.response_lengths)
    casts = bytes_of_casts(trained, initial)
    planned = bytes_of_trial(initial) + bytes_of_pass(trained, 4, longest, 4 * responses) + casts

    def steps(limit: int) -> None:
        with Allocator(limit):
            trial = new_trial(initial, 0, 1e-3, TRAINING)
            for _ in range(2):  # Adam's moments are there from the second on
                train_step(trained, [trial], batch, TRAINING, TrialsPerPass(1), 0)

    steps(1 << 40)  # what libraries keep for ever
    steps(planned)
    if casts:  # the plan would be wrong without them
        with pytest.raises(RuntimeError, match="not enough memory"):
            steps(planned - casts)


def test_the_plan_for_bfloat16_has_weights_and_gradients_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = SoftMethod(base_model(dtype=torch.bfloat16), WIDE)
    initial, some = weights(trained), pairs(8)
    responses = 4 * max(len(pair.response) for pair in some)
    held = bytes_of_trial(initial) + bytes_of_pass(trained, 4, max(trained.row_tokens(some)), responses)
    free = int((held + initial["prompt"].nbytes) / memory.USABLE) + 1  # weights and gradients, two bytes each
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    check_room(sweep(trained), initial, RATES[:1])
    free = int(held / memory.USABLE) + 1
    with pytest.raises(StageError, match="one trial of this method needs"):
        check_room(sweep(trained), initial, RATES[:1])


def noted(error: BaseException, frames: list[str]) -> bool:
    """Whether memory was used up; in which functions is added to `frames`."""
    frames.append(" ".join(frame.name for frame in traceback.extract_tb(error.__traceback__)))
    return is_out_of_memory(error)
