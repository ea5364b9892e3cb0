"""Which processor runs it, in which precision and with how many threads."""

import os

import psutil
import torch

from stages.core.errors import StageError
from stages.core.params import Precision, Runtime

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU_BFLOAT16 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of torch.cpu: products in hardware


def choose_device(runtime: Runtime) -> torch.device:
    """The device that `runtime.device` names; auto is the first of cuda, mps and cpu that there is.

    Also sets the number of CPU threads and asks for deterministic algorithms, so that the same machine gives the same
    bytes.

    Raises:
        StageError: the device that was asked for is not there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True, warn_only=True)
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if runtime.device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there[runtime.device]:
        found = f"{runtime.device}, which this machine does not have"
        raise StageError("params.yaml: runtime.device", found, "use auto")
    return torch.device(runtime.device)


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of the layers' arithmetic; auto is bfloat16 where the processor multiplies it in hardware."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in CPU_BFLOAT16)
    return torch.bfloat16 if native else torch.float32


def free_memory(device: torch.device) -> int:
    """Bytes that a program may still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
