"""A grid on a Ray cluster: the grid starts or finds it, the stages of its experiments submit to it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from stages.params.schema import Runtime
from stages.plumbing.cluster import ADDRESS, cluster
from stages.plumbing.errors import StageError


def check_jobs(runtime: Runtime, jobs: int) -> None:
    """Refuse several experiments at a time if all of them would train on the first of some GPUs.

    CUDA_VISIBLE_DEVICES with a single card says that they are to share it: a small model leaves most of it idle.
    """
    gpu = runtime.device in ("cuda", "mps") or (runtime.device == "auto" and shutil.which("nvidia-smi") is not None)
    cards = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    if jobs > 1 and runtime.engine == "local" and gpu and len(cards) != 1:
        found = "with runtime.engine=local all of them would train on the same device"
        remedy = "name the card that they are to share (CUDA_VISIBLE_DEVICES=0), or add -S runtime.engine=ray or "
        raise StageError(f"--jobs {jobs}", found, f"{remedy}-S runtime.device=cpu")


@contextmanager
def engine(runtime: Runtime) -> Iterator[int]:
    """How many experiments can be at work at once: 1 here; on Ray as many as it has GPUs (or nodes, without GPUs).

    For the length of the block RAY_ADDRESS leads the stages to the cluster, which ends with the grid if the grid has
    started it: so several experiments on one machine ask one Ray for its GPUs, and no two get the same.
    """
    if runtime.engine == "local":
        yield 1
        return
    with cluster(runtime.address) as ray:
        os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(each.get("GPU", 0) for each in alive) if runtime.device in ("auto", "cuda") else 0
        yield max(1, int(gpus / runtime.gpus_per_trial) or len(alive))
