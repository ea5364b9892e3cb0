"""What each unit gets of a cluster: one GPU or a share of one, or threads of a node that has none."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from stages.params.schema import Runtime
from stages.plumbing.errors import StageError

KEY = "params.yaml: runtime"


@dataclass(frozen=True)
class Share:
    """Of one node: GPUs (at most one) and CPU threads."""

    gpus: float
    threads: int


def share_of(runtime: Runtime, nodes: Sequence[dict[str, Any]], units: int) -> Share:
    """The share of a unit, if `units` of them are to be trained on `nodes`, as `ray.nodes()` has them.

    With a GPU anywhere each unit gets one (`gpus_per_unit` of one). Without, the threads of the largest node are
    divided among the units that it is to train at once, unless `runtime.threads` says how many a unit gets.

    Raises:
        StageError: no node has what a unit is to get; Ray would wait for one for ever.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cores = int(max((each.get("CPU", 0) for each in resources), default=0))
    with_gpus = [each for each in resources if each.get("GPU", 0) >= runtime.gpus_per_unit]
    if runtime.threads > cores:
        found = f"{runtime.threads}, and the largest of {len(resources)} nodes has {cores}"
        raise StageError(f"{KEY}.threads", found, "lower it")
    if runtime.device == "cuda" and not with_gpus:
        found = f"cuda, and none of {len(resources)} nodes has {runtime.gpus_per_unit:g} GPU"
        raise StageError(f"{KEY}.device", found, "add a node that has one (ray start --num-gpus), or use auto")
    if with_gpus and runtime.device in ("auto", "cuda"):
        gpus = sum(each["GPU"] for each in with_gpus)
        of_each = int(sum(each.get("CPU", 0) for each in with_gpus) * runtime.gpus_per_unit // gpus)
        return Share(runtime.gpus_per_unit, runtime.threads or max(1, of_each))
    at_once = ceil(units / max(1, len(resources)))
    return Share(0.0, runtime.threads or max(1, cores // at_once))
