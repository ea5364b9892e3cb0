"""Disks of any size for one process: a tmpfs over a folder that only this process and its children see.

Needs Linux, and root or user namespaces; `mounts_are_allowed` tells whether this works here.
"""

import ctypes
import json
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.pipeline import results
from tests.stage_runs import COMMANDS, SERVER, enter

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 16384, 1 << 18


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _mount(folder: str, flags: int = 0, size: int | None = None) -> None:
    options = None if size is None else f"size={size}".encode()
    _call("mount", b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(flags), options)


def _own_mounts() -> None:
    """From now on, only this process and its children see its mounts."""
    user, group = os.getuid(), os.getgid()
    if user:
        _call("unshare", NEW_USER | NEW_MOUNTS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    else:
        _call("unshare", NEW_MOUNTS)
    _call("mount", b"none", b"/", None, ctypes.c_ulong(RECURSIVE | PRIVATE), None)


def mounts_are_allowed(folder: Path) -> bool:
    """Whether a process can have its own mounts here."""
    process = SERVER.Process(target=_try, args=(str(folder),))
    process.start()
    process.join()
    return process.exitcode == 0


def _try(folder: str) -> None:
    try:
        _own_mounts()
        _mount(folder, size=1 << 20)
    except (OSError, AttributeError):
        os._exit(1)


def _attempt(folder: str, stage: str, log: str) -> dict[str, object]:
    """Run the stage in a fork; return its exit code, its output, and what is in the folder afterwards."""
    Path(log).unlink(missing_ok=True)
    child = os.fork()
    if not child:
        enter(folder, log, dict(os.environ))
        sys.argv = COMMANDS[stage]
        try:
            runpy.run_module(COMMANDS[stage][0], run_name="__main__")
        except SystemExit as end:
            os._exit(int(end.code or 0))
    _, status = os.waitpid(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "printed": Path(log).read_text(encoding="utf-8"),
        "results": results(Path(folder)),
        "left": [path.name for path in Path(folder).rglob("*") if ".tmp" in path.name],
    }


def _on_a_disk(folder: str, stage: str, room: Sequence[int | None], log: str, report: str) -> None:
    content = f"{folder}-content"
    shutil.copytree(folder, content)
    _own_mounts()
    _mount(folder, size=1 << 30)
    shutil.copytree(content, folder, dirs_exist_ok=True)
    done = []
    for bytes_left in room:
        if bytes_left is None:
            _mount(folder, REMOUNT | READ_ONLY)
        else:
            disk = os.statvfs(folder)
            _mount(folder, REMOUNT, disk.f_frsize * (disk.f_blocks - disk.f_bfree) + bytes_left)
        done.append(_attempt(folder, stage, log))
    Path(report).write_text(json.dumps(done), encoding="utf-8")


def attempts_on_a_disk(folder: Path, stage: str, room: Sequence[int | None]) -> list[dict[str, object]]:
    """Run a stage in `folder` once per entry of `room`: the free bytes on its disk, or None for a read-only disk."""
    log, report = folder.with_name("disk-log"), folder.with_name("disk-report")
    process = SERVER.Process(target=_on_a_disk, args=(str(folder), stage, room, str(log), str(report)))
    process.start()
    process.join()
    assert process.exitcode == 0
    attempts: list[dict[str, object]] = json.loads(report.read_text(encoding="utf-8"))
    return attempts
