"""How all stages write files (completely or not at all), lock them, and read what a stage wrote (after a check)."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.plumbing.errors import StageError, system_error

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"  # begins the name of what is not whole yet. Who writes holds a lock: what is there, a kill left
NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # what file systems answer that cannot flush a directory
STATE = Path(".state")
STATE_VARIABLE = "DIALOG_PROMPTING_STATE"
LOCK_VARIABLE = "DIALOG_PROMPTING_LOCK_SECONDS"
LOCK_SECONDS = 10.0  # to wait for a lock: a stage whose DVC was killed needs a few to notice and stop
# DVC checks the hash of a file in its cache only if the file is writable and DVC does not know its modification time.
REPAIR = (
    "it is damaged, perhaps in DVC's cache too: make DVC check its cache and produce it again: rm -rf {folder}; "
    'find "$(dvc cache dir)" -type f -exec chmod u+w {{}} + -exec touch {{}} +; dvc repro'
)


def state_folder() -> Path:
    """Where a stopped command keeps the state from which it goes on: DIALOG_PROMPTING_STATE, or else .state.

    Its owner alone can read it, since it may hold dialogues. `dvc exp run --temp` and the queue run in folders below
    .dvc/tmp/exps, which DVC removes however a run ends: there it is the .state of the workspace that they belong to.
    """
    temporary = [folder for folder in Path.cwd().parents if folder.parts[-3:] == (".dvc", "tmp", "exps")]
    workspace = temporary[0].parents[2] if temporary else Path()
    folder = Path(os.environ.get(STATE_VARIABLE) or workspace / STATE)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder under `state_folder` for what is too large for memory; removed at the end, or at the next start.

    Its user holds a lock in it, which ends with the process, and between containers holds too: what can be locked was
    left by a killed one.
    """
    state = state_folder()
    with lock(state / "scratch.lock"):
        for held in state.glob("scratch-*/.held"):
            with suppress(BlockingIOError, FileNotFoundError), held.open("ab") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(held.parent, ignore_errors=True)
        folder = TemporaryDirectory(prefix="scratch-", dir=state, ignore_cleanup_errors=True)
        user = (Path(folder.name) / ".held").open("wb")
        fcntl.flock(user, fcntl.LOCK_EX)
    with folder, user, naming(Path(folder.name)):  # `datasets` names no file
        yield Path(folder.name)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file or a directory entry to the disk; some file systems have no flush for a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by temporary name, fsync and rename: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with naming(path):
            temporary.write_bytes(content)
            fsync_path(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system inside names this path if it names none, and a file by its final name."""
    try:
        yield
    except Exception as error:
        if (number := system_error(error)) is None:  # or a library's own, as pyarrow's about a file that is no Parquet
            raise
        name = str(getattr(error, "filename", None) or path).replace(TEMPORARY, "")
        raise OSError(number, os.strerror(number), name) from error


def to_json(value: Any) -> str:
    """JSON in the form that all files here have: indented, keys in the order given, no NaN, a final line break."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with `write_bytes`."""
    write_bytes(path, to_json(value).encode())


def _own_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(manifest).encode()).hexdigest()


def write_manifest(folder: Path, **facts: Any) -> None:
    """Record `facts`, and size and sha256 of every file under `folder`, in `folder/manifest.json`; write it last.

    The manifest contains its own sha256 too, so damage to a fact is found like damage to a file.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        fsync_path(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {**facts, "files": files}
    write_json(folder / MANIFEST, {**manifest, "sha256": _own_hash(manifest)})


@contextmanager
def output_folder(target: Path, **facts: Any) -> Iterator[Path]:
    """Yield a temporary folder; if the block ends without an error, add a manifest and rename the folder to `target`.

    Until then an earlier `target` stays as it is. After an error the temporary folder is removed. `facts` go into the
    manifest, a table among them as it is when the block ends. An error of the system names files as `naming` does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (target.with_name(f"{TEMPORARY}{word}{target.name}") for word in ("", "old-"))
    for left in filter(Path.exists, (temporary, old)):
        shutil.rmtree(left)
    try:
        with naming(target):
            temporary.mkdir()
            yield temporary
            write_manifest(temporary, **facts)
            if target.exists():
                target.replace(old)
            temporary.replace(target)
            fsync_path(target.parent)
    finally:
        if old.exists() and not target.exists():  # stopped between the two renames
            old.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that a stage wrote.

    Raises:
        StageError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest.pop("sha256") != _own_hash(manifest):
            raise StageError(path, "its sha256 differs from the one recorded in it", REPAIR.format(folder=folder))
    except FileNotFoundError:
        raise StageError(path, "missing", "run `dvc repro`, which makes it") from None
    except (ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise StageError(path, f"no manifest ({error})", REPAIR.format(folder=folder)) from None
    return manifest


def check_folder(folder: Path) -> dict[str, Any]:
    """Compare every file of a stage's output with its manifest and return the manifest.

    DVC does not verify what it checks out of its cache, so each stage checks what it reads.

    Raises:
        StageError: a file is missing, damaged, or was not written by the stage.
    """
    manifest, remedy = read_manifest(folder), REPAIR.format(folder=folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise StageError(path, "missing, though the manifest names it", remedy)
        if (size := path.stat().st_size) != expected["bytes"]:
            raise StageError(path, f"{size} bytes, but the manifest has {expected['bytes']}", remedy)
        if sha256_of(path) != expected["sha256"]:
            raise StageError(path, "its sha256 is not the one in its manifest", remedy)
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in {MANIFEST, *manifest["files"]}:
            raise StageError(path, "not written by the stage", "remove it")
    return manifest


def files_hash(manifest: dict[str, Any]) -> str:
    """Hex sha256 over the names and sha256 of all files in a manifest: identifies a model or a data set."""
    files = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path` during the block; it names its holder and ends with it, however that process ends.

    Raises:
        StageError: another process holds it; the message names that process and its machine.
        OSError: the lock cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + float(os.environ.get(LOCK_VARIABLE, LOCK_SECONDS))
    with path.open("ab+", buffering=0) as file:
        with naming(path):
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() >= deadline:
                    holder = path.read_text(errors="replace").strip() or "unknown"
                    raise StageError(path, f"held by process {holder}", "wait for it to end, or stop it")
                time.sleep(0.2)
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n".encode())
        yield
