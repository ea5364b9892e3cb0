"""Training state on disk: lives outside DVC's outputs, survives a kill at any moment, never mixes two trainings.

    <state>/<fingerprint>/lock
    <state>/<fingerprint>/checkpoints/<epoch>-<step>/   state.json, trial-<k>.safetensors, manifest.json (written last)
    <state>/<fingerprint>/best/trial-<k>-epoch-<e>/     weights.safetensors, manifest.json

A folder gets its final name only when it is whole and flushed. The two newest checkpoints are kept: a damaged one is
named, and training goes on from the one before, or from the start.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.core.errors import StageError
from stages.core.files import check_folder, output_folder
from stages.core.trials import Trial

KEPT = 2
TENSORS = ("weights", "optimizer")  # the fields of a Trial that are no JSON


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
    tensors = {}
    for name, weight in trial.weights.items():
        tensors[name] = weight.detach()
        for key, value in trial.optimizer.state.get(weight, {}).items():
            if key != "step":  # the same number for all: Trial.steps
                tensors[f"{name}|{key}"] = value
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def _restore(trial: Trial, tensors: dict[str, Tensor]) -> None:
    assert trial.optimizer is not None
    for name, weight in trial.weights.items():
        with torch.no_grad():
            weight.copy_(tensors[name])
        if trial.steps:
            moments = {key: tensors[f"{name}|{key}"].to(weight.device) for key in ("exp_avg", "exp_avg_sq")}
            step = torch.tensor(float(trial.steps), device=weight.device if weight.is_cuda else "cpu")
            trial.optimizer.state[weight] = {"step": step, **moments}


class TrainingState:
    """The state of one training (a list of trials that share their passes) under its fingerprint."""

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.folder = root / fingerprint
        self.checkpoints = self.folder / "checkpoints"
        self.best = self.folder / "best"

    def best_weights(self, trial: Trial) -> Path:
        """The weights of a trial's best epoch."""
        return self.best / f"trial-{trial.index:02d}-epoch-{trial.best_epoch:04d}" / "weights.safetensors"

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
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old)
        self._drop_unused_best()

    def _newest_first(self) -> list[Path]:
        return sorted((p for p in self.checkpoints.glob("*-*") if not p.name.startswith(".")), reverse=True)

    def _drop_unused_best(self) -> None:
        named = set()
        for checkpoint in self._newest_first():
            try:
                trials = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["trials"]
            except (OSError, ValueError):
                continue
            named |= {f"trial-{trial['index']:02d}-epoch-{trial['best_epoch']:04d}" for trial in trials}
        for folder in self.best.glob("trial-*"):
            if folder.name not in named:
                shutil.rmtree(folder)

    def load(self, trials: Sequence[Trial]) -> Position:
        """Put the newest sound checkpoint into freshly made trials; returns where to go on.

        A checkpoint that is damaged, or was written by another training, is named on stderr, removed and passed over.
        """
        for checkpoint in self._newest_first():
            try:
                return self._load(checkpoint, trials)
            except (StageError, OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
                print(f"{checkpoint}: not usable ({error}); going on from the one before it", file=sys.stderr)
                shutil.rmtree(checkpoint, ignore_errors=True)
        return Position(epoch=1, step=0)

    def _load(self, checkpoint: Path, trials: Sequence[Trial]) -> Position:
        if check_folder(checkpoint).get("fingerprint") != self.fingerprint:
            raise ValueError("it belongs to another training")
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        tensors = {}
        for trial, record in zip(trials, state["trials"], strict=True):
            if record["index"] != trial.index or record["learning_rate"] != trial.learning_rate:
                raise ValueError("its trials are others")
            if record["status"] == "running" and trial.weights:
                tensors[trial.index] = load_file(checkpoint / f"trial-{trial.index:02d}.safetensors")
                if not all(tensors[trial.index][name].shape == w.shape for name, w in trial.weights.items()):
                    raise ValueError("a tensor has another shape")
            if record["best_epoch"] and record["status"] != "diverged" and not record["released"]:
                check_folder(self.best / f"trial-{trial.index:02d}-epoch-{record['best_epoch']:04d}")
        for trial, record in zip(trials, state["trials"], strict=True):  # all is sound: now nothing can fail half-way
            vars(trial).update(record)
            if trial.index in tensors:
                _restore(trial, tensors[trial.index])
            else:
                trial.drop_tensors()
        return Position(**state["position"])

    def release(self, position: Position, trials: Sequence[Trial], keep: Trial | None) -> None:
        """A sweep is over: forget the weights of all its trials but the best one's."""
        for trial in trials:
            trial.released = trial is not keep
        self.save(position, trials)
        for trial in trials:
            if trial.released:
                shutil.rmtree(self.best_weights(trial).parent, ignore_errors=True)
