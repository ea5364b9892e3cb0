"""What a training has cost. Times differ from run to run, so they stand in a file of their own that no stage reads."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from stages.plumbing.progress import peak_gpu_memory, peak_memory


@dataclass
class Cost:
    """Of all processes that worked on a training together. What was lost in a kill is not counted."""

    seconds: float = 0.0  # in training steps
    validation_seconds: float = 0.0
    pairs: int = 0  # that were trained on: once for each trial and epoch
    stopped: int = 0  # how often it went on from a checkpoint
    peak_memory_bytes: int = 0  # of the process, with everything that it had loaded
    peak_gpu_bytes: int | None = None  # None on a CPU

    @contextmanager
    def timed(self, part: Literal["seconds", "validation_seconds"]) -> Iterator[None]:
        """Add the time of a block, however it ends, and look at the peaks of memory."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.monotonic() - began)
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory())
            self.peak_gpu_bytes = max(filter(None, (self.peak_gpu_bytes, peak_gpu_memory())), default=None)


def together(costs: Sequence[Cost]) -> Cost:
    """Of units that were trained one by one or side by side: sums, and the highest of the peaks."""
    whole = Cost()
    for field in fields(Cost):
        own = [value for cost in costs if (value := getattr(cost, field.name)) is not None]
        if own:
            setattr(whole, field.name, max(own) if field.name.startswith("peak") else sum(own))
    return whole


def report(cost: Cost, trained_parameters: int, size: int) -> dict[str, Any]:
    """For the file: also pairs a second, how many numbers a trial trains, and the bytes of those on disk."""
    speed = round(cost.pairs / cost.seconds, 3) if cost.pairs and cost.seconds else None
    own = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(cost).items()}
    return {**own, "pairs_per_second": speed, "trained_parameters": trained_parameters, "bytes": size}
