"""How much memory a program may still take, and what of it stays with this process on a CPU."""

import ctypes
import platform
import sys
from collections.abc import Iterator
from functools import cache
from mmap import PAGESIZE
from pathlib import Path, PurePosixPath

import psutil
import torch
from torch import Tensor

CGROUPS = Path("/proc/self/cgroup")  # the control groups of this process, one a line: number:controllers:path
MOUNTED = Path("/sys/fs/cgroup")  # the folder in which the kernel shows them
# In the folder of a group, as version 1 and as version 2 of the interface call it.
TAKEN = ("memory.usage_in_bytes", "memory.current")
LIMITS = ("memory.limit_in_bytes", "memory.max", "memory.high")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # options of glibc's mallopt
MADV_PAGEOUT = 21  # an advice of Linux's madvise

_resident = [0]  # bytes of this process when it last gave something back


def free_memory(device: torch.device) -> int:
    """Bytes that a program may still take on a device."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device)
        kept = reserved - torch.cuda.memory_allocated(device)  # by PyTorch, to be used again
        free, whole = torch.cuda.mem_get_info(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        allowed = whole * torch.cuda.get_per_process_memory_fraction(index)  # less than the whole if it is shared
        return int(min(free, allowed - reserved)) + kept
    available = int(psutil.virtual_memory().available)  # of the machine, whatever a container may have of it
    return min(available, memory_left())


def memory_left(groups: Path = CGROUPS, mounted: Path = MOUNTED) -> int:
    """Bytes that this process's control groups may still take; sys.maxsize if none has a limit, or not on Linux.

    The smallest of the group and all groups above it. The kernel drops file pages, active ones too, before a group
    exceeds its limit. So they do not count as taken. Above memory.high it slows a group down until it hardly moves. So
    that is a limit too.
    """
    return min(map(_left, _folders(groups, mounted)), default=sys.maxsize)


def _folders(groups: Path, mounted: Path) -> Iterator[Path]:
    """Where each group may be, from this process's own up to the root.

    Inside a container the path can be that of the host, which is not there: the container's root is its group then.
    """
    lines = groups.read_text(encoding="utf-8").splitlines() if groups.exists() else []
    for number, controllers, path in (line.split(":", 2) for line in lines):
        if number == "0" or "memory" in controllers.split(","):
            roots = ("", "unified") if number == "0" else ("memory", controllers)
            own = PurePosixPath(path.lstrip("/"))
            yield from (mounted / root / one for root in roots for one in (own, *own.parents) if ".." not in one.parts)


def _left(folder: Path) -> int:
    try:
        files = {name: path.read_text().strip() for name in (*TAKEN, *LIMITS) if (path := folder / name).exists()}
        limits = [int(files[name]) for name in LIMITS if files.get(name, "max") != "max"]
        pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:  # no such group here, or a kernel that counts no memory
        return sys.maxsize
    # With those of the groups below it; version 1 has lines of the group alone beside them.
    can_go = sum(int(pages.get(f"total_{name}", pages.get(name, 0))) for name in ("inactive_file", "active_file"))
    taken = sum(int(files[name]) for name in TAKEN if name in files)
    return max(0, min(limits, default=sys.maxsize) - max(0, taken - can_go))


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_freed_memory(keep: bool) -> None:
    """Whether memory that is freed stays with this process, where the C library is glibc.

    Left alone it gives each large block back to the kernel, which clears it page by page when the next tensor of that
    size is made: 55 steps of the dynamic prompt on SmolLM2 in bfloat16 took 74 s, and 59 s with all of it kept. Not to
    keep it is to have the thresholds at which glibc itself arrives.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_MAX, 0 if keep else 65536)
        library.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(M_TRIM_THRESHOLD, -1 if keep else 64 << 20)  # -1: never


def give_back_freed_memory(beyond: int = 0) -> None:
    """Give the kernel what was freed and kept, once this process has grown by so many bytes since the last time.

    The pieces that a step leaves do not fit the rows of the next: with all kept, a second trial took a GiB more.
    """
    if (library := _glibc()) and psutil.Process().memory_info().rss > _resident[0] + beyond:
        library.malloc_trim(0)
        _resident[0] = psutil.Process().memory_info().rss


def page_out(tensor: Tensor) -> None:
    """Tell Linux that a tensor on the CPU is not needed for now: 445 MiB less at the peak of training SmolLM2.

    What is still as its file has it leaves memory, and is read again when it is needed; the rest stays, or goes to a
    swap partition. Linux before 5.4 keeps all of it.
    """
    if library := _glibc():
        start = -(-tensor.data_ptr() // PAGESIZE) * PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // PAGESIZE * PAGESIZE
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(max(0, end - start)), MADV_PAGEOUT)
