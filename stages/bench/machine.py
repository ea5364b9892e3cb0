"""On what the benchmark ran."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The day, processor, memory, device and libraries."""
    import accelerate
    import peft  # takes seconds

    libraries = (torch, transformers, peft, accelerate)
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" if gpu else device.type,
        "versions": {"python": platform.python_version()} | {each.__name__: each.__version__ for each in libraries},
    }
