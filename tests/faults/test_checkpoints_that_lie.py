"""Damaged or foreign checkpoints: they are named and skipped, and the run goes on from an earlier one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.plumbing.files import MANIFEST
from stages.train.state import TENSORS, WEIGHTS, TrialState
from tests.faults.pipeline import Undisturbed, check_tidy, flip, results, seal
from tests.stage_runs import contents, finish, stopped
from tests.stops import Stop
from tests.tiny import change_params

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def halfway(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was killed when it started to write its third checkpoint."""
    folder = undisturbed.before("train", tmp_path_factory.mktemp("halfway") / "workspace")
    stopped(folder, "train", Stop(1, "-000004-00000000", "os.mkdir"))
    return folder


@pytest.fixture
def folder(halfway: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(halfway, tmp_path / "workspace"))


def checkpoints(folder: Path) -> list[Path]:
    """The last two checkpoints, the newest last."""
    return sorted(folder.glob(".state/train/*/checkpoints/[0-9]*"))


def without_tensor(ending: str) -> Damage:
    def damage(checkpoint: Path) -> None:
        tensors = load_file(checkpoint / TENSORS)
        del tensors[next(name for name in sorted(tensors) if name.endswith(ending))]
        save_file(tensors, checkpoint / TENSORS)
        seal(checkpoint)

    return damage


def another_shape(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / TENSORS)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, checkpoint / TENSORS)
    seal(checkpoint)


def no_safetensors(checkpoint: Path) -> None:
    (checkpoint / TENSORS).write_bytes(b"\x80\x04K\x01.")
    seal(checkpoint)


def without_best(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    seal(checkpoint)


def with_record(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(checkpoint: Path) -> None:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        change(manifest["trial"])
        (checkpoint / MANIFEST).write_text(json.dumps(manifest))
        seal(checkpoint)

    return damage


DAMAGES: dict[str, Damage] = {
    "a flipped bit in the tensors": lambda checkpoint: flip(checkpoint / TENSORS),
    "a flipped bit in the manifest": lambda checkpoint: flip(checkpoint / MANIFEST),
    "no manifest": lambda checkpoint: (checkpoint / MANIFEST).unlink(),
    "an empty manifest": lambda checkpoint: (checkpoint / MANIFEST).write_bytes(b""),
    "a weight is missing": without_tensor("weight"),
    "a moment is missing": without_tensor("|exp_avg_sq"),
    "another shape": another_shape,
    "no safetensors": no_safetensors,
    "the weights of the best epoch are missing": without_best,
    "a trial without steps": with_record(lambda trial: trial.pop("steps")),
    "a position that is none": with_record(lambda trial: trial.update(epoch="three")),
    "a record of something else": with_record(lambda trial: trial.clear()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: Damage, folder: Path, undisturbed: Undisturbed
) -> None:
    before, newest = checkpoints(folder)
    damage(newest)
    printed = finish(folder, "train")
    assert f"{newest.relative_to(folder)}: not usable (" in printed
    assert f"{before.name}: not usable" not in printed
    assert "epoch 1 of at most 4, learning rate 0.001:" not in printed
    assert "epoch 2 of at most 4, learning rate 0.001:" in printed, "the checkpoint before is from the end of epoch 1"
    assert results(folder) == undisturbed.results


def test_with_every_checkpoint_damaged_it_starts_again(folder: Path, undisturbed: Undisturbed) -> None:
    for checkpoint in checkpoints(folder):
        without_tensor("|exp_avg")(checkpoint)
    printed = finish(folder, "train")
    assert printed.count("not usable") == 2
    assert "epoch 1 " in printed
    assert results(folder) == undisturbed.results


def test_a_damaged_one_behind_the_newest_disturbs_nothing(folder: Path, undisturbed: Undisturbed) -> None:
    without_best(checkpoints(folder)[0])
    assert "not usable" not in finish(folder, "train")
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def test_the_best_weights_of_a_training_that_is_done_are_checked_too(folder: Path, undisturbed: Undisturbed) -> None:
    finish(folder, "train")
    (best,) = folder.glob(f".state/train/*/result/{WEIGHTS}")
    flip(best)
    shutil.rmtree(folder / "data/train")
    assert "epoch 1 " in finish(folder, "train")
    assert results(folder) == undisturbed.results


def test_a_checkpoint_of_another_training_is_not_used(folder: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    other = undisturbed.before("train", tmp_path / "other")
    change_params(other, {"seed": 1})
    stopped(other, "train", Stop(1, "-000004-00000000", "os.mkdir"))
    (own,), (foreign,) = folder.glob(".state/train/*"), other.glob(".state/train/*")
    assert own.name != foreign.name
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    printed = finish(folder, "train")
    assert printed.count("not usable (ValueError: it belongs to another trial)") == 2
    assert "epoch 1 " in printed
    assert results(folder) == undisturbed.results


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"seed": 1}, []),
        ({"protocols.tiny.training.batch_size": 5}, []),
        ({"methods.dynamic.layers": 1}, []),
        ({"regime": 50}, ["subset"]),
        ({"model": "tiny-llama"}, ["download"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_other_parameters_data_and_models_start_anew_and_leave_this_state_alone(
    changes: dict[str, Any], stages: list[str], folder: Path
) -> None:
    (own,) = folder.glob(".state/train/*")
    state = contents(own)
    change_params(folder, changes)
    for stage in stages:
        finish(folder, stage)
    assert "epoch 1 " in finish(folder, "train")
    assert contents(own) == state
    assert len(list(folder.glob(".state/train/*"))) == 1 + 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        PermissionError(13, "Permission denied"),
        SafetensorError("Error while deserializing: I/O error: Cannot allocate memory (os error 12)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_checkpoint_that_cannot_be_read_for_now_is_not_thrown_away(
    error: Exception, halfway: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    (own,) = halfway.glob(".state/train/*")
    state = contents(own)
    monkeypatch.setattr(TrialState, "_read", refuse)
    with pytest.raises(type(error)):
        TrialState(own.parent, own.name).load({})
    assert contents(own) == state
