"""What a container may still take of the machine's memory, where Linux limits it by control groups (cgroups)."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = Path("/proc/self/cgroup")  # the groups of this process, one a line: number:controllers:path
MOUNTED = Path("/sys/fs/cgroup")
# Of each version: the files with limit and usage, and the line of memory.stat with the file pages that can go.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
UNLIMITED = 1 << 62  # version 1 has a number for it too, near 2^63


def memory_left(groups: Path = GROUPS, mounted: Path = MOUNTED) -> int | None:
    """Bytes that this process's groups may still take; None if none of them has a limit.

    The smallest of the group and all groups above it, in version 1 and 2 of the interface. The kernel drops file pages
    that nobody has used for some time before a group exceeds its limit, so these do not count as taken.

    Args:
        groups: the file in which the kernel says which groups these are.
        mounted: the folder in which it shows them.
    """
    left = [each for folder, names in _folders(groups, mounted) if (each := _left(folder, *names)) is not None]
    return min(left, default=None)


def _folders(groups: Path, mounted: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
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


def _left(folder: Path, limit_name: str, usage_name: str, file_pages: str) -> int | None:
    try:
        limit = (folder / limit_name).read_text().strip()
        if limit == "max" or int(limit) >= UNLIMITED:
            return None
        usage = int((folder / usage_name).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - max(0, usage - int(statistics.get(file_pages, 0))))
    except (OSError, ValueError):  # no such group here, or a kernel that counts no memory
        return None
