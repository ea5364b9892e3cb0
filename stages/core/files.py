"""The one way to write (whole or not at all) and the one way to read what a stage wrote (checked by sha256)."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.errors import StageError

MANIFEST = "manifest.json"


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


def write_manifest(folder: Path, **facts: Any) -> None:
    """Record size and sha256 of every file under `folder` in `folder/manifest.json`, written last and flushed."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        fsync_path(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(folder / MANIFEST, {**facts, "files": files})


def _remove_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".tmp-*-{target.name}"):
        process = path.name.split("-")[1]
        if not (process.isdigit() and Path(f"/proc/{process}").exists()):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def output_folder(target: Path, **facts: Any) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target`, with a manifest, only if the block ends well.

    Until then an earlier `target` stays as it is; after an error the temporary folder is gone. `facts` go into the
    manifest beside the files.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        write_manifest(temporary, **facts)
        old = target.with_name(f".tmp-{os.getpid()}-old-{target.name}")
        if target.exists():
            target.replace(old)
        temporary.replace(target)
        fsync_path(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that a stage wrote.

    Raises:
        StageError: there is none, or it is not a manifest.
    """
    path = folder / MANIFEST
    remedy = f"remove {folder} and run `dvc repro` again"
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StageError(path, "missing", remedy) from None
    except ValueError as error:
        raise StageError(path, f"not JSON ({error})", remedy) from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise StageError(path, "not a manifest", remedy)
    return manifest


def check_folder(folder: Path) -> dict[str, Any]:
    """Compare every file of a stage's output with its manifest and return the manifest.

    DVC does not verify what it checks out of its cache, so each stage checks what it reads.

    Raises:
        StageError: a file is missing, has another size or another sha256; the message says how to heal it.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        remedy = (
            f"the file is damaged, perhaps in DVC's cache too: remove {folder}, then `dvc repro --force` its stage"
        )
        if not path.is_file():
            raise StageError(path, "missing, though its manifest names it", remedy)
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise StageError(path, f"{size} bytes where its manifest says {expected['bytes']}", remedy)
        if sha256_of(path) != expected["sha256"]:
            raise StageError(path, "its sha256 is not the one in its manifest", remedy)
    return manifest
