"""Timing for the benchmark: contenders take turns; results are medians with their spread, and ratios of medians."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import truediv
from typing import Any

import torch

from stages.language_model.device import wait_for
from stages.language_model.memory import keep_freed_memory

Contender = Callable[[int], float]  # number of the repeat -> things per second


def now(device: torch.device) -> float:
    """Seconds of a monotonic clock, read when the device has finished all its work."""
    wait_for(device)
    return time.perf_counter()


@contextmanager
def as_users_have_it() -> Iterator[None]:
    """Undo the settings of `choose_device`, so that other tools neither pay for determinism nor keep freed memory."""
    asked = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    keep_freed_memory(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=True)  # and a Learner keeps freed memory again


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the lowest and the highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def take_turns(title: str, contenders: Mapping[str, Contender], repeats: int) -> list[dict[str, Any]]:
    """Run every contender once per repeat, in turns, so that changes of the machine's speed affect all of them equally.

    Every second repeat runs them in reverse order. Returns a line of a table for each but the first one, which is ours:
    the rates of both, and how many times faster ours is: the ratio of the medians, with the spread of the ratios
    within one repeat.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name in list(contenders)[:: -1 if repeat % 2 else 1]:
            gc.collect()
            values[name].append(contenders[name](repeat))
            print(f"{title}, {repeat + 1}/{repeats}: {name}: {values[name][-1]:.4g}/s", file=sys.stderr, flush=True)
    rates: list[dict[str, Any]] = [{"name": name, **spread(own), "repeats": own} for name, own in values.items()]
    ours, *others = rates
    lines = []
    for theirs in others:
        each = list(map(truediv, ours["repeats"], theirs["repeats"]))
        ratio = {**spread(each), "median": ours["median"] / theirs["median"]}
        lines.append({"ours": ours, "theirs": theirs, "ratio": ratio})
    return lines
