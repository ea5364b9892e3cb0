"""Which processor runs it, in which precision and with how many threads."""

import ctypes
import os
import platform
from functools import cache
from importlib.metadata import version
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from torch import Tensor

from stages.language_model.containers import memory_left
from stages.params.schema import Precision, Runtime
from stages.plumbing.errors import StageError

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # options of glibc's mallopt
MADV_PAGEOUT = 21  # an advice of Linux's madvise
MIB = 1 << 20
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "gguf", "numpy")  # that make, load or order numbers


def choose_device(runtime: Runtime, asked_in: str = "params.yaml: runtime.device") -> torch.device:
    """The device that `runtime.device` names; auto is the first of cuda, mps and cpu that there is.

    Also sets the number of CPU threads, has freed memory kept and asks for deterministic algorithms, so that the same
    machine gives the same bytes. asked_in: where the user named the device, for the message.

    Raises:
        StageError: the device that was asked for is not there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing reads memory before it is written, and filling all of it took a fifth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory(True)
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if runtime.device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there[runtime.device]:
        found = f"{runtime.device}, which this machine does not have"
        raise StageError(asked_in, found, "use auto")
    return torch.device(runtime.device)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_freed_memory(keep: bool) -> None:
    """Whether large blocks of main memory that are freed stay with this process, where the C library is glibc.

    Left alone it gives each block above 32 MiB back to the kernel, which clears it page by page when the next tensor of
    that size is made: a copy of word embeddings then takes five times as long. False: as it is left alone.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_MAX, 0 if keep else 65536)
        library.mallopt(M_TRIM_THRESHOLD, -1 if keep else 64 * MIB)  # -1: never, and not only up to 2 GiB
        library.mallopt(M_MMAP_THRESHOLD, 32 * MIB)
        library.malloc_trim(0)


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its work, so that a time can be taken."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def give_back_freed_memory(beyond: int = 0) -> None:
    """Give the kernel what was freed and kept, if it is more than so many bytes and the C library is glibc."""
    if (library := _glibc()) and (not beyond or _kept(library) > beyond):
        library.malloc_trim(0)


class _HeapOfGlibc(ctypes.Structure):
    """What its mallinfo2 tells, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _kept(library: ctypes.CDLL) -> int:
    """Bytes of main memory that were freed and stay with this process, about; 0 where glibc before 2.33 cannot tell."""
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _HeapOfGlibc
    heap, process = library.mallinfo2(), psutil.Process().memory_info()
    resident = process.rss - process.shared - heap.uordblks - heap.hblkhd  # and what is not the allocator's
    return int(min(heap.fordblks, resident))  # a part of what is free may have been given back before


def page_out(tensor: Tensor) -> None:
    """Tell Linux that a tensor on the CPU is not needed for now.

    What is still as its file has it leaves memory, and is read again when it is needed; the rest stays where it is, or
    goes to a swap partition. Linux before 5.4 keeps all of it, and so does one where other processes use the file.
    """
    if library := _glibc():
        start = -(-tensor.data_ptr() // PAGESIZE) * PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // PAGESIZE * PAGESIZE
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(max(0, end - start)), MADV_PAGEOUT)


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of the layers' arithmetic; auto is bfloat16 where the processor multiplies it faster than float32."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and _multiplies_bfloat16()
    return torch.bfloat16 if native else torch.float32


def _multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32.

    With AMX it does. AVX512_BF16 alone doubles the speed on AMD's processors and not on Intel's: a step of three trials
    of the dynamic prompt on SmolLM2 took 6.8 s in bfloat16 and 4.4 s in float32 on a Xeon without AMX.
    """
    supported = {name: getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("amx_tile", "avx512_bf16")}
    return supported["amx_tile"] or (supported["avx512_bf16"] and "AuthenticAMD" in _processor())


def _processor() -> str:
    """What Linux says of the processors; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return ""


def free_memory(device: torch.device) -> int:
    """Bytes that a program may still take on a device."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device)
        kept = reserved - torch.cuda.memory_allocated(device)  # by PyTorch, to be used again
        free, whole = torch.cuda.mem_get_info(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        allowed = whole * torch.cuda.get_per_process_memory_fraction(index)  # less than the whole if it is shared
        return int(min(free, allowed - reserved)) + kept
    give_back_freed_memory()
    available = int(psutil.virtual_memory().available)  # of the machine, whatever a container may have of it
    left = memory_left()
    return available if left is None else min(available, left)


def versions(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Libraries, machine and threads: sums, and so the last bits of every weight, depend on them."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(dtype).removeprefix("torch."),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def library_versions() -> dict[str, Any]:
    """What must be the same on every node of a cluster: another version would give other bytes without a word."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def check_versions(there: dict[str, Any]) -> None:
    """Refuse to work for a process that has other versions, `there`.

    Raises:
        StageError: one is another; the message names the first.
    """
    for name, here in library_versions().items():
        if there.get(name) != here:
            found = f"{name} {here}, where the command was started {there.get(name)}"
            raise StageError("software", found, "install the same versions on every node (constraints.txt)")
