"""The one way to write (whole or not at all) and the one way to read what a stage wrote (checked by sha256)."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.plumbing.errors import StageError, system_error

MANIFEST = "manifest.json"
STATE_VARIABLE = "DIALOG_PROMPTING_STATE"
# DVC trusts a file of its cache that is read-only, or of which it knows the time; of all others it checks the hash.
HEAL = (
    "it is damaged, perhaps in DVC's cache too: let DVC check that, then make it anew: rm -rf {folder}; "
    'find "$(dvc cache dir)" -type f -exec chmod u+w {{}} + -exec touch {{}} +; dvc repro'
)


def state_folder() -> Path:
    """Where what was stopped has left what it goes on from: .state, or the folder that DIALOG_PROMPTING_STATE names."""
    return Path(os.environ.get(STATE_VARIABLE) or ".state")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole: temporary name, fsync, rename. A reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def to_json(value: Any) -> str:
    """JSON as every file here has it: indented, keys in the order given, no NaN, a final line break."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole."""
    write_bytes(path, to_json(value).encode())


def _own_hash(manifest: dict[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def write_manifest(folder: Path, **facts: Any) -> None:
    """Record size and sha256 of every file under `folder` in `folder/manifest.json`, written last and flushed.

    The manifest's own sha256 stands in it too: a damaged fact is found like a damaged file.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        fsync_path(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {**facts, "files": files}
    write_json(folder / MANIFEST, {**manifest, "sha256": _own_hash(manifest)})


def remove_leftovers(target: Path) -> None:
    """Remove what processes that were killed have left of `target` under temporary names."""
    for path in target.parent.glob(f".tmp-*-{glob.escape(target.name)}"):
        process = path.name.split("-")[1]  # in a container the new process often has the number of the old one
        if process != str(os.getpid()) and Path("/proc", process).exists():
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def output_folder(target: Path, **facts: Any) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target`, with a manifest, only if the block ends well.

    Until then an earlier `target` stays as it is; after an error the temporary folder is gone. `facts` go into the
    manifest beside the files.

    Raises:
        OSError: named after `target` where the system gave no name, or that of the temporary folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    old = target.with_name(f".tmp-{os.getpid()}-old-{target.name}")
    try:
        temporary.mkdir()
        yield temporary
        write_manifest(temporary, **facts)
        if target.exists():
            target.replace(old)
        temporary.replace(target)
        fsync_path(target.parent)
    except Exception as error:
        if (number := system_error(error)) is None:
            raise
        name = str(getattr(error, "filename", None) or target).replace(str(temporary), str(target))
        raise OSError(number, os.strerror(number), name) from error
    finally:
        if old.exists() and not target.exists():  # a signal came between the two renames
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
        manifest = json.loads(path.read_bytes())
        sound = isinstance(manifest, dict) and manifest.pop("sha256", None) == _own_hash(manifest)
    except FileNotFoundError:
        raise StageError(path, "missing", "run `dvc repro`, which makes it") from None
    except (ValueError, RecursionError) as error:
        raise StageError(path, f"not JSON ({error})", HEAL.format(folder=folder)) from None
    if not sound:
        raise StageError(path, "its sha256 is not the one that it says", HEAL.format(folder=folder))
    checked: dict[str, Any] = manifest
    return checked


def check_folder(folder: Path) -> dict[str, Any]:
    """Compare every file of a stage's output with its manifest and return the manifest.

    DVC does not verify what it checks out of its cache, so each stage checks what it reads.

    Raises:
        StageError: a file is missing, has another size or another sha256, or is none of the stage's; the message says
            how to heal it.
    """
    manifest, heal = read_manifest(folder), HEAL.format(folder=folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise StageError(path, "missing, though its manifest names it", heal)
        if (size := path.stat().st_size) != expected["bytes"]:
            raise StageError(path, f"{size} bytes where its manifest says {expected['bytes']}", heal)
        if sha256_of(path) != expected["sha256"]:
            raise StageError(path, "its sha256 is not the one in its manifest", heal)
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in {MANIFEST, *manifest["files"]}:
            raise StageError(path, "no file that its stage wrote", "remove it")
    return manifest


def files_hash(manifest: dict[str, Any]) -> str:
    """Hex sha256 of the names and sha256 of the files in a stage's manifest: the identity of a model or a data set."""
    files = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
