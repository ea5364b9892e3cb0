"""The state of a trial on disk: outside DVC's outputs, survives a kill at any moment, is never mixed with another's.

    <root>/<fingerprint>/lock
    <root>/<fingerprint>/checkpoints/<epoch>-<step>/   manifest.json, tensors.safetensors, weights.safetensors
    <root>/<fingerprint>/result/                       manifest.json, weights.safetensors

The root is .state/train, or `runtime.checkpoints`, a folder that all machines see. The record of the trial is in the
manifest. `weights` are those of the best epoch so far; a checkpoint has them by a hard link from the one before. A
folder gets its final name only when it is whole and flushed. What is read is checked first, its manifest and the names
of its files before all else: no code is ever loaded, and no file outside is touched.

The two newest checkpoints are kept: a damaged one is named, and the trial goes on from the one before, or from the
start. The result takes the place of them all. It stays until somebody removes it by hand; no trial touches another's.
"""

import errno
import hashlib
import os
import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.language_model.base_model import Weights
from stages.params.schema import Runtime
from stages.plumbing.errors import StageError, one_line, system_error
from stages.plumbing.files import check_folder, lock, output_folder, read_manifest, state_folder
from stages.train.trial import Trial

KEPT = 2
TENSORS, WEIGHTS = "tensors.safetensors", "weights.safetensors"
DAMAGED = (StageError, FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


def code_hash() -> str:
    """Hex sha256 over the sources of a training and of all that it imports from: an edit makes old state stale."""
    own = Path(__file__).resolve().parents[1]
    rooms = (own / name for name in ("train", "methods", "language_model", "similarity", "params", "plumbing"))
    sources = [*(path for room in rooms for path in sorted(room.glob("*.py"))), own / "records.py"]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def state_root(runtime: Runtime) -> Path:
    """Where the state of trials is kept, for every process of a training, whatever its working directory."""
    return Path(os.path.expanduser(runtime.checkpoints or state_folder() / "train")).resolve()


class TrialState:
    """The state of one trial under its fingerprint."""

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.fingerprint, self.folder = fingerprint, root / fingerprint
        self.checkpoints, self.result = self.folder / "checkpoints", self.folder / "result"

    @property
    def weights(self) -> Path:
        """The weights of the best epoch when the trial is over; not there once another trial has won."""
        return self.result / WEIGHTS

    def lock(self) -> AbstractContextManager[None]:
        """To be held by whoever trains this trial."""
        return lock(self.folder / "lock")

    def save(self, trial: Trial, tensors: Weights, best: Weights | None) -> None:
        """Write a checkpoint, then drop all but the newest two.

        tensors: weights and moments. best: the weights of the best epoch if that is the one that has just ended.
        """
        name = f"{trial.epoch:06d}-{trial.step:08d}"
        with output_folder(self.checkpoints / name, fingerprint=self.fingerprint, trial=asdict(trial)) as folder:
            _write(tensors, folder / TENSORS)
            self._write_best(folder, best)
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old)

    def load(self) -> tuple[Trial, dict[str, Tensor]] | None:
        """The trial and its tensors from the newest sound checkpoint; None if there is none.

        A checkpoint that is damaged or another's is named on stderr and removed. What a kill left half-written goes
        too.
        """
        for leftover in self.checkpoints.glob(".tmp-*"):
            shutil.rmtree(leftover)
        for checkpoint in self._newest_first():
            try:
                return self._read(checkpoint), load_file(checkpoint / TENSORS)
            except DAMAGED as error:
                _remove_unusable(checkpoint, error)
        return None

    def write_result(self, trial: Trial, best: Weights | None) -> None:
        """The trial is over: the result takes the place of checkpoints, and of an earlier result.

        best: as in `save`; empty for a result without weights.
        """
        with output_folder(self.result, fingerprint=self.fingerprint, trial=asdict(trial)) as folder:
            self._write_best(folder, best)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def read_result(self) -> Trial | None:
        """The trial if it is over; None if it is not, or if its result is damaged: named and removed."""
        old = self.result.with_name(".tmp-old-result")
        if old.exists() and not self.result.exists():  # a kill between an old result and the new one
            old.replace(self.result)
        shutil.rmtree(old, ignore_errors=True)  # of a kill behind both: it may have large weights
        if not self.result.exists():
            return None
        try:
            trial = self._read(self.result)
        except DAMAGED as error:
            _remove_unusable(self.result, error)
            return None
        if self.weights.exists() or not trial.curve:  # else it is trained again, since it has won in another range
            shutil.rmtree(self.checkpoints, ignore_errors=True)  # of a process that was killed before it could
        return trial

    def _newest_first(self) -> list[Path]:
        return sorted(self.checkpoints.glob("[0-9]*"), reverse=True)

    def _read(self, folder: Path) -> Trial:
        """The trial that a folder holds, all of its files checked; else one of DAMAGED."""
        facts = read_manifest(folder)
        if facts.get("fingerprint") != self.fingerprint:
            raise ValueError("it belongs to another trial")
        if "trial" not in facts or not {*facts["files"]} <= {TENSORS, WEIGHTS}:
            raise ValueError("it has files of another version")
        check_folder(folder)
        return TypeAdapter(Trial).validate_python(facts["trial"])

    def _write_best(self, folder: Path, best: Weights | None) -> None:
        earlier = [*self._newest_first(), self.result][0] / WEIGHTS
        if best:
            _write(best, folder / WEIGHTS)
        elif best is None and earlier.exists():
            try:
                os.link(earlier, folder / WEIGHTS)
            except OSError:  # a mounted bucket, for instance, has no links
                shutil.copyfile(earlier, folder / WEIGHTS)


def _write(tensors: Weights, path: Path) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


def _remove_unusable(folder: Path, error: BaseException) -> None:
    """Name and remove what is damaged or another's; an error that is not the folder's fault is raised."""
    if system_error(error) not in (None, errno.ENOENT):  # no memory, no permission, ...
        raise error
    reason = error.found if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
    print(f"{folder}: not usable ({one_line(reason)}): passed over", file=sys.stderr)
    shutil.rmtree(folder)
