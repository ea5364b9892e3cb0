"""The most memory that this process has used."""

import resource
import sys


def peak_memory() -> int:
    """Bytes of main memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gpu_memory() -> int | None:
    """Bytes of tensors on the GPU; None if there is no GPU, or nothing has used it."""
    torch = sys.modules.get("torch")  # who has not imported it has nothing on a GPU
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
