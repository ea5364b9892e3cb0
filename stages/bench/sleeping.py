"""Units that only sleep, to see how Ray itself behaves: nothing is imported here that a worker would have to load."""

import time
from collections.abc import Sequence
from typing import Any

PROCESSES = 8  # slots that are processes, as on a machine with so many GPUs
THREADS = 64  # slots of one process beyond that: a process each would take more memory and cores than machines have


def sleep(seconds: float, order: bytes = b"") -> None:
    """A unit; `order` is as large as what a real one is told."""
    time.sleep(seconds)


class Node:
    """A process with THREADS slots."""

    def sleep(self, seconds: float) -> None:
        """A unit."""
        time.sleep(seconds)


def wait_for_all(ray: Any, references: Sequence[Any]) -> None:
    """Wait as the engine does: for one at a time, and forget it."""
    left = list(references)
    while left:
        ready, left = ray.wait(left, num_returns=1)
        ray.get(ready)


def in_processes(ray: Any, slots: int, waves: int, seconds: float) -> float:
    """Seconds that `waves` units for each slot take, a slot being a process; their start is not counted."""
    task = ray.remote(sleep).options(num_cpus=1)
    wait_for_all(ray, [task.remote(seconds) for _ in range(slots)])  # starts them
    began = time.monotonic()
    wait_for_all(ray, [task.remote(seconds) for _ in range(slots * waves)])
    return time.monotonic() - began


def in_threads(ray: Any, slots: int, waves: int, seconds: float) -> float:
    """The same with threads as slots: each asks for its next unit when one is done, through the driver."""
    made = ray.remote(Node).options(num_cpus=0, max_concurrency=THREADS)
    nodes = [made.remote() for _ in range(slots // THREADS)]
    wait_for_all(ray, [node.sleep.remote(0.0) for node in nodes])
    began = time.monotonic()
    waiting, at_work = slots * (waves - 1), {node.sleep.remote(seconds): node for node in nodes * THREADS}
    while at_work:
        (ready,), _ = ray.wait([*at_work], num_returns=1)
        ray.get(ready)
        node = at_work.pop(ready)
        if waiting:
            waiting -= 1
            at_work[node.sleep.remote(seconds)] = node
    return time.monotonic() - began
