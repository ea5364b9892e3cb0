"""What each unit gets of a cluster: one GPU or a share of one, or threads of a node that has none."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import torch

from stages.params.schema import Runtime
from stages.plumbing.errors import StageError

KEY = "params.yaml: runtime"
SMALLEST = 10_000  # Ray counts in parts of so many
RETRIES = 20  # of a task whose node or process died


@dataclass(frozen=True)
class Share:
    """What Ray is to keep of one node for a unit, and how many threads the unit then uses.

    `cpus` is less than a thread where GPUs share a CPU, and 0 where the nodes that have GPUs offer none.
    """

    gpus: float  # at most one
    cpus: float
    threads: int

    def options(self) -> dict[str, Any]:
        """For `ray.remote`."""
        return {
            "num_gpus": self.gpus, "num_cpus": self.cpus, "max_retries": RETRIES, "retry_exceptions": False,
            # A process that has used a GPU keeps memory of it, and would use it again when given another one.
            "max_calls": 1 if self.gpus else 0,
        }  # fmt: skip

    def taken(self, runtime: Runtime) -> Runtime:
        """How a task that has this share runs, in the process that Ray has given it."""
        if 0 < self.gpus < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(self.gpus)
        return runtime.model_copy(update={"threads": self.threads})


def share_of(runtime: Runtime, nodes: Sequence[dict[str, Any]], units: int) -> Share:
    """The share of a unit, if `units` of them are to run on `nodes`, as `ray.nodes()` has them.

    With a GPU anywhere each unit gets one (`gpus_per_unit` of one). Without, a unit gets as many threads as let all of
    them run at once; or `runtime.threads`.

    Raises:
        StageError: no node has all of what a unit is to get; Ray would wait for one for ever.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpus = [each for each in alive if each.get("GPU", 0) >= runtime.gpus_per_unit]
    if runtime.device == "cuda" and not with_gpus:
        found = f"cuda, and none of {len(alive)} nodes has {runtime.gpus_per_unit:g} GPU"
        raise StageError(f"{KEY}.device", found, "add a node that has one (ray start --num-gpus), or use auto")
    on_gpus = bool(with_gpus) and runtime.device in ("auto", "cuda")
    usable = with_gpus if on_gpus else alive
    largest = int(max((each.get("CPU", 0) for each in usable), default=0))
    if runtime.threads > largest:
        kind = "nodes with a GPU" if on_gpus else "nodes"
        found = f"{runtime.threads}, and the largest of {len(usable)} {kind} has {largest}"
        raise StageError(f"{KEY}.threads", found, "lower it")
    if not on_gpus and not largest:
        found = f"none of the cluster's {len(alive)} nodes has a CPU or a GPU for units"
        raise StageError(f"{KEY}.address", found, "add a node that has some (ray start --num-cpus)")
    if not on_gpus:
        threads = runtime.threads or _threads_for_all([each.get("CPU", 0) for each in alive], units)
        return Share(0.0, threads, threads)
    if runtime.threads:
        return Share(runtime.gpus_per_unit, runtime.threads, runtime.threads)
    cpus = min(each.get("CPU", 0) / _units_on(each["GPU"], runtime.gpus_per_unit) for each in with_gpus)
    cpus = floor(cpus) if cpus >= 1 else floor(cpus * SMALLEST) / SMALLEST
    return Share(runtime.gpus_per_unit, cpus, max(1, floor(cpus)))


def _units_on(gpus: float, share: float) -> int:
    """How many units the GPUs of a node take: none lies on two of them."""
    return int(gpus) * int(1 / share + 1e-9) or 1


def _threads_for_all(cpus: Sequence[float], units: int) -> int:
    """The most threads with which all units run at once, on whatever nodes; 1 if there are more units than CPUs."""
    candidates = range(int(max(cpus)), 0, -1)
    return next((each for each in candidates if sum(int(cpu // each) for cpu in cpus) >= units), 1)


def gpus_given() -> str:
    """The numbers of the GPUs that Ray has given to this process; empty if none."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")
