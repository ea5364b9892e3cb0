"""What travels between the process that submits units and those that train them, on whatever machine."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.language_model.row_format import RowFormat
from stages.params.schema import Params
from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, check_folder, fsync_path
from stages.train.memory import Numbered


@dataclass(frozen=True)
class Order:
    """A unit to be trained. Everything it depends on is in it; files come by the hash of their folder."""

    params: Params
    trials: list[Numbered]  # none for a method that trains nothing
    fingerprint: str
    data_hash: str
    base_hash: str
    row_format: RowFormat
    code: str
    versions: dict[str, Any]  # of libraries: another one would give other bytes without a word
    threads: int


@dataclass(frozen=True)
class Trained:
    """A unit that was trained."""

    trials: list[dict[str, Any]]  # the records
    weights: Any  # bytes of the best trial's file, as an array that travels without a copy; None if there is none
    unit: dict[str, Any]  # its trials, environments, node, GPUs, and when it began and ended
    parameters: int
    cuts: dict[str, int]


@dataclass(frozen=True)
class Split:
    """A unit that did not fit into the memory: to be trained in these parts."""

    parts: list[list[Numbered]]


@dataclass(frozen=True)
class Failed:
    """A unit that failed by something that a user can fix: the parts of a StageError."""

    node: str
    subject: str
    found: str
    remedy: str

    def error(self) -> StageError:
        """What to raise where it was submitted."""
        return StageError(f"node {self.node}: {self.subject}", self.found, self.remedy)


Files = dict[str, Any]  # name in the folder -> reference to its bytes


def send(folder: Path, put: Callable[[Any], Any]) -> Files:
    """Put every file of a folder into the object store, from where each node fetches it once."""
    return {
        path.relative_to(folder).as_posix(): put(np.fromfile(path, dtype=np.uint8))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def receive(files: Mapping[str, Any], name: str, get: Callable[[Any], Any]) -> Path:
    """The folder again, on this node: written by the first unit that needs it, the same for all that come later."""
    folder = scratch() / "inputs" / name
    with _alone(folder):
        if not (folder / MANIFEST).exists():
            for path in sorted(files, key=lambda path: path == MANIFEST):  # last: it says that the rest is there
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                get(files[path]).tofile(folder / path)
                fsync_path(folder / path)
    check_folder(folder)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """As long as it takes: another unit on this node may be writing hundreds of megabytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scratch() -> Path:
    """This user's folder on this node, below TMPDIR: inputs, and the state of units at work.

    Raises:
        StageError: somebody else made a folder of that name.
    """
    folder = Path(tempfile.gettempdir()) / f"dialog-prompting-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise StageError(folder, "a folder that others can write to", "remove it, or set TMPDIR for Ray")
    return folder
