"""A configuration at work: the process of its experiment and what that prints."""

import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.grid.clones import Clone
from stages.grid.configurations import Configuration

STAGE = "Running stage '"  # as DVC prints it
AT_WORK = re.compile(r"(unit of trials? \d[\d to]*|greedy-generate): on node (\S+), GPU (\S+)")  # as nodes print it
OVER = re.compile(r"(unit of trials? \d[\d to]*): done, ")


def lines_of(log: Path, start: int = 0) -> list[str]:
    """The lines of a log from byte `start` on, blank ones left out."""
    text = log.read_bytes()[start:].decode("utf-8", "replace") if log.exists() else ""
    return [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]


def error_in(log: Path, start: int) -> str:
    """The error of a stage in a log from byte `start` on; if there is none, the last line."""
    lines = lines_of(log, start)
    errors = [line for line in lines if line.startswith("ERROR ")]  # DVC's own begin with `ERROR:`
    return (errors or lines or ["no output"])[-1]


def units_at_work(lines: Sequence[str]) -> list[str]:
    """The units on a Ray cluster that have begun and are not back, each with its node and GPU, from a log."""
    found: dict[str, str] = {}
    for line in lines:
        if STAGE in line:  # whatever an earlier attempt or stage had at work is over
            found = {}
        elif began := AT_WORK.search(line):
            name, node, gpu = began.groups()
            found[name] = f"{name}: node {node}, GPU {gpu}"
        elif over := OVER.search(line):
            found.pop(over[1], None)
    return list(found.values())


@dataclass
class Job:
    """A configuration at work in a clone."""

    clone: Clone
    configuration: Configuration
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int  # bytes that earlier attempts wrote
    began: float
    seconds_before: float  # of earlier attempts

    @property
    def seconds(self) -> float:
        """Time spent on the configuration, earlier attempts included."""
        return self.seconds_before + time.monotonic() - self.began


def size_of(log: Path) -> int:
    """Bytes of a log, 0 if there is none."""
    return log.stat().st_size if log.exists() else 0
