"""The state of a trial on disk: it goes on elsewhere, from checked files alone, and keeps the best weights once."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from stages.plumbing.files import MANIFEST, _own_hash, write_json
from stages.train.job import Job, Loaded, load
from stages.train.state import TENSORS, WEIGHTS, TrialState
from stages.train.training import train_trial
from stages.train.trial import Trial
from tests.faults.pipeline import seal
from tests.train.test_trial import job_in

Damage = Callable[[Path], object]


class Died(Exception):
    """The machine is gone."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loaded:
    return load(job_in(tmp_path / "work", monkeypatch))


def die_after(saves: int, loaded: Loaded, root: Path, links: bool = True) -> TrialState:
    """A trial whose process ends after so many checkpoints, as if it was killed."""
    save, state, count = TrialState.save, TrialState(root, "f"), 0

    def counted(self: TrialState, *words: object) -> None:
        nonlocal count
        save(self, *words)  # type: ignore[arg-type]
        count += 1
        if count == saves:
            raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(TrialState, "save", counted)
        if not links:
            patch.setattr(os, "link", lambda *words: (_ for _ in ()).throw(PermissionError(1, "no links")))
        train_trial(loaded, loaded.job.rates()[1], state)
    return state


@pytest.mark.parametrize("links", [True, False])
def test_it_goes_on_from_its_last_epoch_with_the_same_bytes_and_notes_where_it_was_trained(
    links: bool, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train_trial(loaded, loaded.job.rates()[1], whole := TrialState(tmp_path / "whole", "f"))
    died = die_after(3, loaded, tmp_path / "died", links)
    here = loaded.job.environment()
    monkeypatch.setattr(Job, "environment", lambda self: {"device": "another"})
    trial = train_trial(loaded, loaded.job.rates()[1], died)
    assert "goes on where it was stopped: in epoch 4, 0 steps done" in capsys.readouterr().out
    assert trial.curve == expected.curve and trial.cost.stopped == 1
    assert trial.environments == [here, {"device": "another"}]
    assert died.weights.read_bytes() == whole.weights.read_bytes()
    assert [path.name for path in died.folder.iterdir() if path.is_dir()] == ["result"]


def test_a_checkpoint_has_the_best_weights_by_a_link_not_a_copy(loaded: Loaded, tmp_path: Path) -> None:
    state = die_after(3, loaded, tmp_path)
    older, newer = sorted(state.checkpoints.iterdir())
    found = state.load()
    assert found is not None and found[0].epoch == 4
    same = (older / WEIGHTS).stat().st_ino == (newer / WEIGHTS).stat().st_ino
    assert same == (found[0].best_epoch != 3), "unless the third epoch is the best one so far"
    assert {path.name for path in newer.iterdir()} == {MANIFEST, TENSORS, WEIGHTS}


def outside(folder: Path) -> None:
    (folder.parent / "x").touch()
    (folder / MANIFEST).unlink()
    manifest = {"fingerprint": "f", "trial": asdict(Trial(1e-3)), "files": {"../x": {"bytes": 0, "sha256": "0" * 64}}}
    write_json(folder / MANIFEST, {**manifest, "sha256": _own_hash(manifest)})


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a file outside": (outside, "it has files of another version"),
    "another record": (lambda folder: seal(folder, trial={"steps": 3}), "Trial learning_rate Field required"),
    "another trial's": (lambda folder: seal(folder, fingerprint="g"), "it belongs to another trial"),
    "weights cut short": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "0 bytes, but the manifest has"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_result_that_is_damaged_or_of_another_version_is_told_in_a_line_and_made_again(
    damage: Damage, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, trial = TrialState(tmp_path, "f"), Trial(1e-3, parameters=1, best_epoch=1)
    state.write_result(trial, {"a": torch.ones(5)})
    assert state.read_result() == trial and not capsys.readouterr().err
    old = state.result.with_name(".tmp-old-result")
    for killed_between in (True, False):  # the old result and the new one; or behind both
        shutil.copytree(state.result, old)
        if killed_between:
            shutil.rmtree(state.result)
        assert state.read_result() == trial and not old.exists()
    damage(state.result)
    assert state.read_result() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{state.result}: not usable (") and said in line and line.endswith("): passed over")
    assert not state.result.exists()
