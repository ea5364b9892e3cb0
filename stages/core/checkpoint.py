"""Training state on disk: lives outside DVC's outputs, survives a kill at any moment, never mixes two trainings.

    <state>/<fingerprint>/lock
    <state>/<fingerprint>/checkpoints/<epoch>-<step>/   state.json, trial-<k>.safetensors, manifest.json (written last)
    <state>/<fingerprint>/best/trial-<k>-epoch-<e>/     weights.safetensors, manifest.json

A folder gets its final name only when it is whole and flushed. The two newest checkpoints are kept: a damaged one is
named, and training goes on from the one before, or from the start.
"""

import errno
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.core.errors import StageError, one_line, system_error
from stages.core.files import check_folder, output_folder
from stages.core.trials import Trial

KEPT = 2
OLD_DAYS = 30.0
STATE = "state.json"
TENSORS = ("weights", "optimizer")  # the fields of a Trial that are no JSON
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam; its step is the same number for all: Trial.steps
DAMAGED = (StageError, FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError)


def fingerprint_of(facts: dict[str, Any]) -> str:
    """A name for a training: the sha256 of everything that its result depends on, as hex, shortened to 24 digits."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Position:
    """The next thing to do: step `step` (from 0) of epoch `epoch` (from 1)."""

    epoch: int
    step: int


def _tensors(trial: Trial) -> dict[str, Tensor]:
    """Weights and both moments of Adam, by name."""
    assert trial.optimizer is not None
    tensors = {name: weight.detach() for name, weight in trial.weights.items()}
    for name, weight in trial.weights.items():
        state = trial.optimizer.state.get(weight, {})
        tensors |= {f"{name}|{moment}": state[moment] for moment in MOMENTS if moment in state}
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def _check_tensors(trial: Trial, steps: int, tensors: dict[str, Tensor]) -> None:
    """Refuse a checkpoint that lacks a tensor, has one too many or one of another shape."""
    parts = ("", *(f"|{moment}" for moment in MOMENTS)) if steps else ("",)
    expected = {f"{name}{part}": weight.shape for name, weight in trial.weights.items() for part in parts}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(f"its tensor {name} is missing, unknown or of another shape")


def _restore(trial: Trial, tensors: dict[str, Tensor]) -> None:
    assert trial.optimizer is not None
    for name, weight in trial.weights.items():
        with torch.no_grad():
            weight.copy_(tensors[name])
        if trial.steps:
            moments = {moment: tensors[f"{name}|{moment}"].to(weight.device) for moment in MOMENTS}
            step = torch.tensor(float(trial.steps), device=weight.device if weight.is_cuda else "cpu")
            trial.optimizer.state[weight] = {"step": step, **moments}


class TrainingState:
    """The state of one training (a list of trials that share their passes) under its fingerprint."""

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.folder = root / fingerprint
        self.checkpoints = self.folder / "checkpoints"
        self.best = self.folder / "best"

    def _best_folder(self, index: int, epoch: int) -> Path:
        return self.best / f"trial-{index:02d}-epoch-{epoch:04d}"

    def best_weights(self, trial: Trial) -> Path:
        """The weights of a trial's best epoch."""
        return self._best_folder(trial.index, trial.best_epoch) / "weights.safetensors"

    def save_best(self, trial: Trial) -> None:
        """Keep the weights of the epoch that has just become a trial's best."""
        with output_folder(self.best_weights(trial).parent, fingerprint=self.fingerprint) as folder:
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in trial.weights.items()}
            save_file(tensors, folder / self.best_weights(trial).name)

    def save(self, position: Position, trials: Sequence[Trial]) -> None:
        """Write a checkpoint whole; then drop all but the newest two, and best epochs that none of them names."""
        target = self.checkpoints / f"{position.epoch:06d}-{position.step:08d}"
        with output_folder(target, fingerprint=self.fingerprint) as folder:
            for trial in trials:
                if trial.status == "running" and trial.weights:
                    save_file(_tensors(trial), folder / f"trial-{trial.index:02d}.safetensors")
            records = [{name: value for name, value in vars(trial).items() if name not in TENSORS} for trial in trials]
            state = {"position": asdict(position), "trials": records}
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old)
        self._drop_unused_best()

    def _newest_first(self) -> list[Path]:
        return sorted((p for p in self.checkpoints.glob("*-*") if not p.name.startswith(".")), reverse=True)

    def _drop_unused_best(self) -> None:
        named = set()
        for checkpoint in self._newest_first():
            with suppress(*DAMAGED):
                for trial in json.loads((checkpoint / STATE).read_bytes())["trials"]:
                    named.add(self._best_folder(trial["index"], trial["best_epoch"]))
        for folder in self.best.glob("trial-*"):
            if folder not in named:
                shutil.rmtree(folder)

    def load(self, trials: Sequence[Trial]) -> Position:
        """Put the newest sound checkpoint into freshly made trials; returns where to go on.

        A checkpoint that is damaged, or was written by another training, is named on stderr, removed and passed over.
        What a kill left half-written goes too.
        """
        for leftover in [*self.checkpoints.glob(".tmp-*"), *self.best.glob(".tmp-*")]:
            shutil.rmtree(leftover)
        for checkpoint in self._newest_first():
            try:
                return self._load(checkpoint, trials)
            except DAMAGED as error:
                if system_error(error) not in (None, errno.ENOENT):  # not its fault: no memory, no permission, ...
                    raise
                reason = error.found if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
                print(f"{checkpoint}: not usable ({one_line(reason)}): passed over", file=sys.stderr)
                shutil.rmtree(checkpoint)
        return Position(epoch=1, step=0)

    def _load(self, checkpoint: Path, trials: Sequence[Trial]) -> Position:
        if check_folder(checkpoint).get("fingerprint") != self.fingerprint:
            raise ValueError("it belongs to another training")
        state = json.loads((checkpoint / STATE).read_bytes())
        position, tensors = Position(**state["position"]), {}
        for trial, record in zip(trials, state["trials"], strict=True):
            if {*record} != {*vars(trial)} - {*TENSORS}:
                raise ValueError("the records of its trials are others")
            if record["index"] != trial.index or record["learning_rate"] != trial.learning_rate:
                raise ValueError("its trials are others")
            if record["status"] == "running" and trial.weights:
                tensors[trial.index] = load_file(checkpoint / f"trial-{trial.index:02d}.safetensors")
                _check_tensors(trial, record["steps"], tensors[trial.index])
            if record["best_epoch"] and record["status"] != "diverged" and not record["released"]:
                self._check_best(record["index"], record["best_epoch"])
        for trial, record in zip(trials, state["trials"], strict=True):  # all is sound: now nothing can fail half-way
            vars(trial).update(record)
            if trial.index in tensors:
                _restore(trial, tensors[trial.index])
            else:
                trial.drop_tensors()
        return position

    def _check_best(self, index: int, epoch: int) -> None:
        if check_folder(self._best_folder(index, epoch)).get("fingerprint") != self.fingerprint:
            raise ValueError("the weights of its best epoch belong to another training")

    def release(self, position: Position, trials: Sequence[Trial], keep: Trial | None) -> None:
        """A sweep is over: forget the weights of all its trials but the best one's, and the checkpoints on the way."""
        for trial in trials:
            trial.released = trial is not keep
        self.save(position, trials)
        for old in self._newest_first()[1:]:
            shutil.rmtree(old)
        self._drop_unused_best()
        for trial in trials:
            if trial.released:
                shutil.rmtree(self.best_weights(trial).parent, ignore_errors=True)


def forget_old(root: Path, days: float = OLD_DAYS) -> None:
    """Remove the states under `root` that no training has touched for so long: nobody will go on with them."""
    for folder in root.glob("*"):
        with suppress(FileNotFoundError):  # of a training that is at work beside this one
            newest = max(path.stat().st_mtime for path in [folder, *folder.glob("checkpoints/*")])
            if folder.is_dir() and time.time() - newest > days * 86400:
                print(f"{folder}: untouched for over {days:g} days, removed", file=sys.stderr)
                shutil.rmtree(folder)
