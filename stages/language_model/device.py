"""Which processor runs it, in which precision and with how many threads; and what each task gets of a cluster."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from stages.params.schema import Precision, Runtime
from stages.plumbing.errors import StageError

KEY = "params.yaml: runtime"
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "gguf", "numpy")  # that make, load or order numbers
RETRIES = 20  # of a task whose node or process died
# What transformers asks before it loads them: for assisted decoding, and for the losses of object detection.
UNUSED = ("is_sklearn_available", "is_scipy_available")


def load_transformers() -> None:
    """Let transformers do without two libraries, which others can load: 1.2 s and 140 MB less."""
    vars(transformers.utils).update(dict.fromkeys(UNUSED, lambda: False))


def choose_device(runtime: Runtime) -> torch.device:
    """The device that `runtime.device` names; auto is the first of cuda, mps and cpu that there is.

    Also sets the number of CPU threads and asks for deterministic algorithms: the same machine gives the same bytes.

    Raises:
        StageError: the device that was asked for is not there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.enable_cudnn_sdp(False)  # its attention sums gradients in any order, and does not say so
    # Nothing reads memory before it is written, and filling all of it took a fifth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if runtime.device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there[runtime.device]:
        raise StageError(f"{KEY}.device", f"{runtime.device}, which this machine does not have", "use auto")
    return torch.device(runtime.device)


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its work, so that a time can be taken."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of the layers' arithmetic; auto is bfloat16 where the processor multiplies it faster than float32."""
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # With AMX a CPU does. AVX512_BF16 alone doubles the speed on AMD's processors and not on Intel's: a step on a Xeon
    # without AMX took 6.8 s in bfloat16 and 4.4 s in float32.
    amx, avx512 = (getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("amx_tile", "avx512_bf16"))
    faster = device.type == "cpu" and (amx or (avx512 and "AuthenticAMD" in _processor()))
    return torch.bfloat16 if faster else torch.float32


def _processor() -> str:
    path = Path("/proc/cpuinfo")  # of Linux
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


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


def library_versions() -> dict[str, str]:
    """What must be the same on every node of a cluster: another version would give other bytes without a word."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


@dataclass(frozen=True)
class Share:
    """What Ray is to keep of one node for a task, and the versions that it needs.

    `cpus` is 0 where a GPU computes, unless `runtime.threads` asks for some; the task then has one thread.
    """

    gpus: float  # at most one
    cpus: int
    versions: dict[str, str] = field(default_factory=library_versions, compare=False)

    def options(self) -> dict[str, Any]:
        """For `ray.remote`."""
        return {"num_gpus": self.gpus, "num_cpus": self.cpus, "max_retries": RETRIES}

    def taken(self, runtime: Runtime, what: str) -> Runtime:
        """How the task `what` runs in the process that Ray gave it; StageError for a library of another version."""
        for name, here in library_versions().items():
            if self.versions[name] != here:
                found = f"{name} {here}, where the command was started {self.versions[name]}"
                raise StageError("software", found, "install the same versions on every node (constraints.txt)")
        print(f"{what}, GPU {os.environ.get('CUDA_VISIBLE_DEVICES') or 'none'}", flush=True)
        if 0 < self.gpus < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(self.gpus)
        return runtime.model_copy(update={"threads": max(self.cpus, 1)})


def share_of(runtime: Runtime, nodes: Sequence[dict[str, Any]], tasks: int) -> Share:
    """The share of a task, if so many are to run on `nodes`, as `ray.nodes()` has them.

    With a GPU anywhere each gets one (`gpus_per_trial` of one). Without, as many CPUs as let all of them run at once,
    or `runtime.threads`.

    Raises:
        StageError: no node has all of what a task is to get; Ray would wait for one for ever.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpus = [each for each in alive if each.get("GPU", 0) >= runtime.gpus_per_trial]
    on_gpus = runtime.device == "cuda" or (runtime.device == "auto" and bool(with_gpus))
    needed = runtime.threads if on_gpus else max(runtime.threads, 1)
    cpus = [int(each.get("CPU", 0)) for each in (with_gpus if on_gpus else alive)]
    if max(cpus, default=-1) < needed:
        gpus = f"{runtime.gpus_per_trial:g} GPU and " if on_gpus else ""
        found = f"a task needs {gpus}{needed} CPUs, and none of {len(alive)} nodes has them"
        raise StageError(KEY, found, "lower threads or gpus_per_trial, or start nodes with --num-cpus, --num-gpus")
    if on_gpus:  # which computes; Python needs no more than a part of a CPU
        return Share(runtime.gpus_per_trial, runtime.threads)
    # The most with which all run at once, on whatever nodes; 1 if there are more tasks than CPUs.
    fitting = (n for n in range(max(cpus), 0, -1) if sum(each // n for each in cpus) >= tasks)
    return Share(0.0, runtime.threads or next(fitting, 1))
