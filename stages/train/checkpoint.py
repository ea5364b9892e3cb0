"""The state of a sweep on disk: outside DVC's outputs, survives a kill at any moment, is never mixed with another's.

    <state>/<fingerprint>/lock
    <state>/<fingerprint>/groups/                               groups.json, manifest.json, if memory split them
    <state>/<fingerprint>/checkpoints/<trial>-<epoch>-<step>/   state.json, trial-<k>.safetensors, manifest.json
    <state>/<fingerprint>/best/trial-<k>-epoch-<e>/             weights.safetensors, manifest.json
    <state>/<fingerprint>/result/                               trials.json, units.json, cost.json, weights.safetensors

A folder gets its final name only when it is whole and flushed. Trials that share their passes share their checkpoints,
named after the first of them; the two newest are kept until the trials have ended: a damaged one is named, and training
goes on from the one before, or from the start.

One rule for forgetting: when the sweep is over its result is written, and then all else of the sweep goes. No training
removes anything of another: a state that nobody wants any more goes by hand.
"""

import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.plumbing.errors import StageError, one_line, system_error
from stages.plumbing.files import check_folder, lock, output_folder, write_json
from stages.train.cost import Cost
from stages.train.trial_tensors import check_tensors, restore, tensors_of
from stages.train.trials import Trial

KEPT = 2
STATE = "state.json"
TRIALS = "trials.json"
UNITS = "units.json"
COST = "cost.json"
GROUPS_FILE = "groups.json"
WEIGHTS = "weights.safetensors"
TENSORS = ("weights", "optimizer")  # the fields of a Trial that are no JSON
DAMAGED = (StageError, FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError)


def code_hash() -> str:
    """Hex sha256 over the sources of every module of this project that is loaded: an edit makes old state stale."""
    own = Path(__file__).resolve().parents[1]
    ours = [each for name, each in list(sys.modules.items()) if name.partition(".")[0] in ("stages", "__main__")]
    files = (getattr(module, "__file__", None) for module in ours)  # of thousands, so not all of them are resolved
    sources = {Path(file).resolve() for file in files if file}
    digest = hashlib.sha256()
    for source in sorted(sources):
        if source.is_relative_to(own):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def fingerprint_of(facts: dict[str, Any]) -> str:
    """A name for a training: the sha256 of everything that its result depends on, as hex, shortened to 24 digits."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Position:
    """The next thing to do: step `step` (from 0) of epoch `epoch` (from 1)."""

    epoch: int
    step: int


BEGINNING = Position(epoch=1, step=0)


def record_of(trial: Trial) -> dict[str, Any]:
    """What a trial is beside its tensors, for JSON."""
    return {name: value for name, value in vars(trial).items() if name not in TENSORS}


def remove_unusable(folder: Path, error: BaseException) -> None:
    """Name and remove what is damaged or another training's; an error that is not the folder's fault is raised."""
    if system_error(error) not in (None, errno.ENOENT):  # no memory, no permission, ...
        raise error
    reason = error.found if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
    print(f"{folder}: not usable ({one_line(reason)}): passed over", file=sys.stderr)
    shutil.rmtree(folder)


class TrainingState:
    """The state of one sweep under its fingerprint."""

    def __init__(self, root: Path, fingerprint: str, environment: dict[str, Any]) -> None:
        self.fingerprint, self.environment = fingerprint, environment
        self.environments = [environment]  # in which it was trained, the earliest first
        self.cost = Cost()
        self.folder = root / fingerprint
        self.checkpoints = self.folder / "checkpoints"
        self.best = self.folder / "best"
        self.result = self.folder / "result"
        self.groups = self.folder / "groups"

    def lock(self) -> AbstractContextManager[None]:
        """To be held by whoever trains this sweep."""
        return lock(self.folder / "lock")

    def check(self, folder: Path) -> None:
        """Refuse a folder that is damaged or another training's, by one of DAMAGED."""
        if check_folder(folder).get("fingerprint") != self.fingerprint:
            raise ValueError("it belongs to another training")

    def _best_folder(self, index: int, epoch: int) -> Path:
        return self.best / f"trial-{index:02d}-epoch-{epoch:04d}"

    def has_begun(self, first: int) -> bool:
        """Whether a group, named by its first trial, has a sound checkpoint."""
        for checkpoint in self.checkpoints.glob(f"{first:02d}-*"):
            with suppress(*DAMAGED):
                self.check(checkpoint)
                return True
        return False

    def write_groups(self, groups: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Remember into which groups the trials had to be split: the checkpoints belong to these."""
        with output_folder(self.groups, fingerprint=self.fingerprint) as folder:
            write_json(folder / GROUPS_FILE, [[index for index, _ in group] for group in groups])

    def read_groups(self, groups: Sequence[Sequence[tuple[int, float]]]) -> list[list[tuple[int, float]]]:
        """The groups that an earlier attempt ended up with; `groups` if there was none, or if it cannot be read."""
        rates = dict(one for group in groups for one in group)
        if self.groups.exists():
            try:
                self.check(self.groups)
                found = json.loads((self.groups / GROUPS_FILE).read_bytes())
                return [[(index, rates[index]) for index in group] for group in found]
            except DAMAGED as error:
                remove_unusable(self.groups, error)
        return [list(group) for group in groups]

    def save_best(self, trial: Trial) -> None:
        """Keep the weights of the epoch that has just become a trial's best."""
        with output_folder(self._best_folder(trial.index, trial.best_epoch), fingerprint=self.fingerprint) as folder:
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in trial.weights.items()}
            save_file(tensors, folder / WEIGHTS)

    def save(self, position: Position, trials: Sequence[Trial]) -> None:
        """Write a checkpoint whole; then drop all but their newest two, and best epochs that no checkpoint names."""
        target = self.checkpoints / f"{trials[0].index:02d}-{position.epoch:06d}-{position.step:08d}"
        with output_folder(target, fingerprint=self.fingerprint) as folder:
            for trial in trials:
                if trial.status == "running" and trial.weights:
                    save_file(tensors_of(trial), folder / f"trial-{trial.index:02d}.safetensors")
            state = {"environments": self.environments, "cost": asdict(self.cost), "position": asdict(position)}
            records = [record_of(trial) for trial in trials]
            (folder / STATE).write_text(json.dumps({**state, "trials": records}), encoding="utf-8")
        kept = KEPT if any(trial.status == "running" for trial in trials) else 1  # the last one has no tensors
        for old in self._newest_first(trials)[kept:]:
            shutil.rmtree(old)
        self._drop_unused_best()

    def _newest_first(self, trials: Sequence[Trial]) -> list[Path]:
        return sorted(self.checkpoints.glob(f"{trials[0].index:02d}-*"), reverse=True)

    def _drop_unused_best(self) -> None:
        named = set()
        for checkpoint in self.checkpoints.glob("[0-9]*"):
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
        for checkpoint in self._newest_first(trials):
            try:
                return self._load(checkpoint, trials)
            except DAMAGED as error:
                remove_unusable(checkpoint, error)
        return BEGINNING

    def _load(self, checkpoint: Path, trials: Sequence[Trial]) -> Position:
        self.check(checkpoint)
        state = json.loads((checkpoint / STATE).read_bytes())
        position, tensors = Position(**state["position"]), {}
        for trial, record in zip(trials, state["trials"], strict=True):
            if {*record} != {*record_of(trial)}:
                raise ValueError("the records of its trials are others")
            if record["index"] != trial.index or record["learning_rate"] != trial.learning_rate:
                raise ValueError("its trials are others")
            if record["status"] == "running" and trial.weights:
                tensors[trial.index] = load_file(checkpoint / f"trial-{trial.index:02d}.safetensors")
                check_tensors(trial, record["steps"], tensors[trial.index])
            if record["best_epoch"]:
                self.check(self._best_folder(record["index"], record["best_epoch"]))
        for trial, record in zip(trials, state["trials"], strict=True):  # all is sound: now nothing can fail half-way
            vars(trial).update(record)
            if trial.index in tensors:
                restore(trial, tensors.pop(trial.index))  # its memory is free before the next one is copied
            else:
                trial.drop_tensors()
        self.environments = [*(one for one in state["environments"] if one != self.environment), self.environment]
        self.cost = Cost(**state["cost"])
        return position

    @property
    def result_weights(self) -> Path:
        """The weights of the best trial's best epoch, once the sweep is over."""
        return self.result / WEIGHTS

    def best_weights(self, best: Trial) -> Path:
        """The weights of a trial's best epoch, checked."""
        source = self._best_folder(best.index, best.best_epoch)
        self.check(source)
        return source / WEIGHTS

    def write_result(self, trials: Sequence[Trial], weights: Path | None, units: Sequence[dict[str, Any]]) -> None:
        """The sweep is over: keep the records of its trials, the best one's weights and what is known of the units.

        weights: None for a unit whose trials have none.
        """
        with output_folder(self.result, fingerprint=self.fingerprint) as folder:
            if weights is not None:
                shutil.copyfile(weights, folder / WEIGHTS)
            (folder / TRIALS).write_text(json.dumps([record_of(trial) for trial in trials]), encoding="utf-8")
            (folder / UNITS).write_text(json.dumps(units), encoding="utf-8")
            (folder / COST).write_text(json.dumps(asdict(self.cost)), encoding="utf-8")

    def read_units(self) -> list[dict[str, Any]]:
        """What is known of the units of a sweep that is over: their trials, where and in which environment."""
        units: list[dict[str, Any]] = json.loads((self.result / UNITS).read_bytes())
        return units

    def read_result(self) -> list[Trial]:
        """The trials of a sweep that is over; none if it is not, or if its result is damaged: named and removed."""
        if not self.result.exists():
            return []
        try:
            self.check(self.result)
            records = json.loads((self.result / TRIALS).read_bytes())
            self.cost = Cost(**json.loads((self.result / COST).read_bytes()))
            return [Trial(weights={}, optimizer=None, **record) for record in records]
        except DAMAGED as error:
            remove_unusable(self.result, error)
            return []

    def keep_result_only(self) -> None:
        """Remove what led to the result."""
        for folder in (self.checkpoints, self.best, self.groups):
            shutil.rmtree(folder, ignore_errors=True)
