"""Timing for the benchmark: contenders take turns; results are medians with their spread, and ratios of medians."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from stages.language_model.device import keep_freed_memory, wait_for


def now(device: torch.device) -> float:
    """Seconds of a monotonic clock, read when the device has finished all its work."""
    wait_for(device)
    return time.perf_counter()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long one call takes, in seconds."""
    start = now(device)
    work()
    return now(device) - start


@contextmanager
def as_users_have_it() -> Iterator[None]:
    """Undo the settings of `choose_device`, so that other tools neither pay for determinism nor keep freed memory."""
    asked = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    keep_freed_memory(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=True)
        keep_freed_memory(True)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, spread and every repeat."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": list(values)}


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times faster ours is than theirs: the ratio of the medians, and the spread of the ratios per repeat.

    >>> compare([4.0, 6.0, 5.0], [2.0, 2.0, 2.5])
    {'median': 2.5, 'min': 2.0, 'max': 3.0}
    """
    each = [own / other for own, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ours) / statistics.median(theirs), "min": min(each), "max": max(each)}


def with_peak(work: Callable[[], float], device: torch.device) -> tuple[float, int | None]:
    """What `work` gives, and the most bytes that its tensors took on a GPU beside those that were there."""
    if device.type != "cuda":
        return work(), None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return work(), torch.cuda.max_memory_allocated(device) - before


def take_turns(
    title: str, unit: str, contenders: Mapping[str, Callable[[int], float]], repeats: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Run every contender once per repeat, in turns, so that changes of the machine's speed affect all of them equally.

    contenders: name -> measurement(number of the repeat). Every second repeat runs them in reverse order. Returns the
    summary of each, with `peak_bytes` on a GPU.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, list[int]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name in list(contenders)[:: -1 if repeat % 2 else 1]:
            gc.collect()
            value, peak = with_peak(partial(contenders[name], repeat), device)
            values[name].append(value)
            peaks[name] += [peak] if peak is not None else []
            print(
                f"{title}, {repeat + 1}/{repeats}: {name}: {values[name][-1]:.4g} {unit}", file=sys.stderr, flush=True
            )
    return {
        name: {"label": name, **summary(own), "peak_bytes": max(peaks[name], default=None)}
        for name, own in values.items()
    }


def comparison(subject: str, unit: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a table of rates: ours, theirs, and how many times faster ours is."""
    ratio = compare(ours["repeats"], theirs["repeats"])
    return {"subject": subject, "unit": unit, "ours": dict(ours), "theirs": dict(theirs), "ratio": ratio}
