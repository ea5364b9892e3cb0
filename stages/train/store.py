"""Checkpoints that outlive a machine: a copy of a training's state in a folder or at any address that fsspec writes.

    <runtime.checkpoints>/<fingerprint>/   groups, best/..., checkpoints/... and result as in checkpoint.py

A process trains with the state on its own disk, as ever. What has become whole there is copied, and what is gone there
goes at the address too; whoever starts on another disk takes from the address what it lacks. A folder counts once its
manifest is there, which is written last and names the sha256 of the others: of one that was cut short nothing is used.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stages.params.validation import redact
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import MANIFEST
from stages.train.checkpoint import Position, TrainingState
from stages.train.trials import Trial

KEY = "params.yaml: runtime.checkpoints"
CHECKPOINTS = "checkpoints/"
GROUPS_FOLDER = "groups"
ORDER = (GROUPS_FOLDER, "best/", "result", CHECKPOINTS)  # a checkpoint names best epochs: they are copied before it


@contextmanager
def _named(address: str, may_be_gone: bool = False) -> Iterator[None]:
    """Errors of a file system, whatever their class, become one line about the address.

    may_be_gone: what is not there is no error of the address, but FileNotFoundError.
    """
    try:
        yield
    except ImportError as error:  # fsspec says which package an address of this kind needs
        raise StageError(KEY, f"{redact(address)}: {one_line(str(error))}", "install that package") from None
    except Exception as error:
        if may_be_gone and isinstance(error, FileNotFoundError):
            raise
        found = f"{redact(address)}: {type(error).__name__}: {redact(one_line(str(error)))}"
        raise StageError(KEY, found, "check the address, and the rights to it") from error


class Store:
    """The copy of one training's state; its folders by their names relative to that state."""

    def __init__(self, address: str, fingerprint: str) -> None:
        self.address = address
        with _named(address):
            self.system, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
            self.root = f"{root.rstrip('/')}/{fingerprint}"

    def names(self) -> set[str]:
        """The folders that are whole."""
        with _named(self.address):
            self.system.invalidate_cache()
            found = [path for path in self._files(self.root) if path.endswith(f"/{MANIFEST}")]
            return {path.split(f"{self.root.lstrip('/')}/", 1)[1].removesuffix(f"/{MANIFEST}") for path in found}

    def _files(self, folder: str) -> list[str]:
        """All below a folder. By no pattern, since an address may hold brackets or stars."""
        return [str(path) for path in self.system.find(folder)]

    def push(self, folder: Path, name: str) -> None:
        """Copy a folder there, its manifest last."""
        with _named(self.address):
            self.system.makedirs(f"{self.root}/{name}", exist_ok=True)
            for path in sorted(folder.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
                self.system.put_file(str(path), f"{self.root}/{name}/{path.name}")

    def pull(self, name: str, folder: Path) -> None:
        """Copy a folder here, whole or not at all; whether it is sound its manifest will tell."""
        temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with (
                suppress(FileNotFoundError),
                _named(self.address, may_be_gone=True),
            ):  # another process has just removed it
                for path in self.system.ls(f"{self.root}/{name}", detail=False):
                    self.system.get_file(path, str(temporary / Path(path).name))
                temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, name: str = "") -> None:
        """Remove a folder, or all of the training; manifests first, so that no part of it counts."""
        with suppress(FileNotFoundError), _named(self.address, may_be_gone=True):
            target = f"{self.root}/{name}".rstrip("/")
            for path in sorted(self._files(target), key=lambda path: not path.endswith(MANIFEST)):
                self.system.rm_file(path)
            if isinstance(self.system, LocalFileSystem):  # elsewhere there are no folders without files
                shutil.rmtree(target, ignore_errors=True)


class SharedState(TrainingState):
    """The state of a training on this disk, with a copy in a Store."""

    def __init__(self, root: Path, fingerprint: str, environment: dict[str, Any], address: str) -> None:
        super().__init__(root, fingerprint, environment)
        self.store = Store(address, fingerprint)

    def _own(self) -> list[str]:
        folders = [path.parent.relative_to(self.folder) for path in self.folder.rglob(MANIFEST)]
        names = [path.as_posix() for path in folders if not any(part.startswith(".tmp-") for part in path.parts)]
        return sorted(names, key=lambda name: (next(i for i, kind in enumerate(ORDER) if name.startswith(kind)), name))

    def _copy(self) -> None:
        """Bring the copy up to date; checkpoints newer than these, of a process that was quicker, are left alone."""
        own, there = self._own(), self.store.names()
        for name in own:
            if name not in there:
                self.store.push(self.folder / name, name)
        newest = max((name for name in own if name.startswith(CHECKPOINTS)), default="")
        if not any(name.startswith(CHECKPOINTS) and name > newest for name in there):
            for name in sorted(there - set(own), reverse=True):  # checkpoints before what they name
                self.store.remove(name)

    def _fetch(self, *kinds: str) -> None:
        for name in sorted(self.store.names()):
            if name.startswith(kinds) and not (self.folder / name).exists():
                self.store.pull(name, self.folder / name)

    def has_begun(self, first: int) -> bool:
        """As that of TrainingState, here or where the copy is."""
        self._fetch(*ORDER)
        return super().has_begun(first)

    def write_groups(self, groups: Sequence[Sequence[tuple[int, float]]]) -> None:
        """As that of TrainingState, and copied."""
        super().write_groups(groups)
        self.store.remove(GROUPS_FOLDER)  # those of an earlier split
        self.store.push(self.groups, GROUPS_FOLDER)

    def read_groups(self, groups: Sequence[Sequence[tuple[int, float]]]) -> list[list[tuple[int, float]]]:
        """As that of TrainingState, from the copy where this disk has none."""
        self._fetch(GROUPS_FOLDER)
        return super().read_groups(groups)

    def load(self, trials: Sequence[Trial]) -> Position:
        """As that of TrainingState, from the copy where this disk has less."""
        self._fetch(*ORDER)
        return super().load(trials)

    def save(self, position: Position, trials: Sequence[Trial]) -> None:
        """As that of TrainingState, and copied."""
        super().save(position, trials)
        self._copy()

    def write_result(self, trials: Sequence[Trial], weights: Path | None, units: Sequence[dict[str, Any]]) -> None:
        """As that of TrainingState, and copied."""
        super().write_result(trials, weights, units)
        self._copy()

    def read_result(self) -> list[Trial]:
        """As that of TrainingState, from the copy where this disk has none."""
        self._fetch("result")
        return super().read_result()

    def keep_result_only(self) -> None:
        """As that of TrainingState; nothing of the copy stays."""
        super().keep_result_only()
        self.store.remove()


def state_of(root: Path, fingerprint: str, environment: dict[str, Any], address: str | None) -> TrainingState:
    """The state of a training on this disk; with a copy if there is an address for it."""
    if address is None:
        return TrainingState(root, fingerprint, environment)
    return SharedState(root, fingerprint, environment, address)
