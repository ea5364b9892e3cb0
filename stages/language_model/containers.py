"""What a container may still take of the machine's memory, where Linux limits it by control groups (cgroups)."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

CGROUPS = Path("/proc/self/cgroup")  # the groups of this process, one a line: number:controllers:path
MOUNTED = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 62  # version 1 has a number for it too, near 2^63


class Names(NamedTuple):
    """What a version of the interface calls its files."""

    limits: tuple[str, ...]
    usage: str
    file_pages: tuple[str, ...]  # the lines of memory.stat with the file pages that can go


VERSION_1 = Names(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
VERSION_2 = Names(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"))


def memory_left(groups: Path = CGROUPS, mounted: Path = MOUNTED) -> int | None:
    """Bytes that this process's groups may still take; None if none of them has a limit.

    The smallest of the group and all groups above it, in version 1 and 2 of the interface. The kernel drops file pages,
    active ones too, before a group exceeds its limit. So they do not count as taken. Above memory.high it slows a group
    down until it hardly moves. So that is a limit too.

    Args:
        groups: the file in which the kernel says which groups these are.
        mounted: the folder in which it shows them.
    """
    left = [each for folder, names in _folders(groups, mounted) if (each := _left(folder, names)) is not None]
    return min(left, default=None)


def _folders(groups: Path, mounted: Path) -> Iterator[tuple[Path, Names]]:
    """The folder of each group from this process's own up to the root, with the names of its version.

    Inside a container the path can be that of the host, which is not there: the container's root is its group then.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            roots, names = (mounted, mounted / "unified"), VERSION_2
        elif "memory" in controllers.split(","):
            roots, names = (mounted / "memory", mounted / controllers), VERSION_1
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for root in roots:
            yield from ((root / group, names) for group in (own, *own.parents) if ".." not in group.parts)


def _left(folder: Path, names: Names) -> int | None:
    try:
        limit = min(_limit(folder / name) for name in names.limits)
        if limit >= UNLIMITED:
            return None
        usage = int((folder / names.usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        can_go = sum(int(statistics.get(name, 0)) for name in names.file_pages)
        return max(0, limit - max(0, usage - can_go))
    except (OSError, ValueError):  # no such group here, or a kernel that counts no memory
        return None


def _limit(path: Path) -> int:
    """The limit in a file; UNLIMITED if it says so, or if there is no such file (the root has none)."""
    text = path.read_text().strip() if path.exists() else "max"
    return UNLIMITED if text == "max" else int(text)
