"""Folders that travel to the nodes of a cluster through Ray's object store, and tasks in processes there."""

import fcntl
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stages.plumbing.errors import StageError, describe, is_out_of_memory, one_line
from stages.plumbing.files import MANIFEST, check_folder, fsync_path
from stages.plumbing.signals import Terminated

Result = TypeVar("Result")
Files = dict[str, Any]  # name in the folder -> reference to its bytes


def on_this_node(work: Callable[[str, Callable[[Any], Any]], Result]) -> Result:
    """Work in a process of Ray's; `work` gets the node's address and what fetches from the object store.

    A signal means that the node is told to go: another one goes on with the work.

    Raises:
        StageError: an error that a user can fix, with the node in front.
    """
    import ray  # elsewhere it need not be installed

    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    try:
        return work(node, ray.get)
    except Terminated:  # what can be saved is saved
        os._exit(143)
    except (StageError, OSError, MemoryError, RuntimeError) as error:
        if not isinstance(error, StageError | OSError) and not is_out_of_memory(error):
            raise
        subject, _, rest = describe(error).partition(": ")
        found, _, remedy = rest.rpartition("; ")
        raise StageError(f"node {node}: {subject}", found, remedy) from None


def send(folder: Path, put: Callable[[Any], Any]) -> Files:
    """Put every file of a folder into the object store, from where each node fetches it once."""
    import numpy as np  # an array travels without a copy

    return {
        path.relative_to(folder).as_posix(): put(np.fromfile(path, dtype=np.uint8))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def receive(files: Mapping[str, Any], name: str, get: Callable[[Any], Any]) -> Path:
    """The folder again, on this node: written by the first task that needs it, the same for all that come later.

    One that is damaged, or that a kill cut short, is fetched again.
    """
    folder = scratch() / "inputs" / name
    with _alone(folder):
        if (folder / MANIFEST).exists():
            try:
                check_folder(folder)
                return folder
            except StageError as error:
                print(f"{folder}: damaged ({one_line(error.found)}): fetched again", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        unpack(files, folder, get)
    return folder


def unpack(files: Mapping[str, Any], folder: Path, get: Callable[[Any], Any]) -> None:
    """Write the files of a folder, its manifest last: that says that the rest is there; then check them."""
    for path in sorted(files, key=lambda path: path == MANIFEST):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        get(files[path]).tofile(folder / path)
        fsync_path(folder / path)
    check_folder(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """As long as it takes: another task on this node may be writing hundreds of megabytes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
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
