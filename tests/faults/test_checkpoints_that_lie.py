"""Damaged or foreign checkpoints: they are named and skipped, and the run goes on from an earlier one."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from stages.plumbing.files import MANIFEST
from stages.train.state import TENSORS, WEIGHTS, TrialState
from tests.faults.pipeline import Harmful, Undisturbed, check_tidy, flip, results, seal
from tests.stage_runs import contents, finish, stopped
from tests.stops import Stop

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


def load(folder: Path) -> int | None:
    """The epoch from which the training would go on; None: from the start."""
    (own,) = folder.glob(".state/train/*")
    found = TrialState(own.parent, own.name).load()
    return found and found[0].epoch


def with_record(**change: Any) -> Damage:
    def damage(checkpoint: Path) -> None:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        manifest["trial"] = {name: each for name, each in (manifest["trial"] | change).items() if each is not None}
        (checkpoint / MANIFEST).write_text(json.dumps(manifest))

    return damage


def pickled(checkpoint: Path) -> None:
    (checkpoint / TENSORS).write_bytes(pickle.dumps(Harmful(checkpoint.parents[1] / "proof")))


UNSEALED: dict[str, Damage] = {
    "a flipped bit in the tensors": lambda checkpoint: flip(checkpoint / TENSORS),
    "a flipped bit in the best weights": lambda checkpoint: flip(checkpoint / WEIGHTS),
    "no manifest": lambda checkpoint: (checkpoint / MANIFEST).unlink(),
    "an empty manifest": lambda checkpoint: (checkpoint / MANIFEST).write_bytes(b""),
}
SEALED: dict[str, Damage] = {  # with a manifest that agrees
    "a pickle": pickled,
    "a position that is none": with_record(epoch="three"),
}


@pytest.mark.parametrize("damage", [*UNSEALED, *SEALED])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, newest = checkpoints(folder)
    (UNSEALED | SEALED)[damage](newest)
    if damage in SEALED:
        seal(newest)
    assert load(folder) == 2 and not newest.exists() and before.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{newest}: not usable (")
    assert not list(folder.glob(".state/train/*/proof"))


def test_with_damaged_checkpoints_the_bytes_are_the_same(
    folder: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    flip(checkpoints(folder)[1] / TENSORS)
    assert "epoch 1 of at most 4, learning rate 0.001:" not in finish(folder, "train")
    for checkpoint in checkpoints(again):
        flip(checkpoint / TENSORS)
    printed = finish(again, "train")
    assert printed.count("not usable") == 2 and "epoch 1 of at most 4, learning rate 0.001:" in printed
    for each in (folder, again):
        assert results(each) == undisturbed.results
        check_tidy(each)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), PermissionError(13, "Permission denied"), SafetensorError("Cannot allocate memory (os error 12)")],
    ids=repr,
)
def test_what_cannot_be_read_for_now_is_kept(error: Exception, halfway: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise error

    (own,) = halfway.glob(".state/train/*")
    state = contents(own)
    monkeypatch.setattr(TrialState, "_read", refuse)
    with pytest.raises(type(error)):
        TrialState(own.parent, own.name).load()
    assert contents(own) == state
