"""Stopping what a command has started, however deep below it."""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

SECONDS_TO_SAVE = 120.0  # for a stage that was asked to stop
SECONDS_BETWEEN_LOOKS = 0.5


def stop(processes: Sequence[psutil.Process]) -> None:
    """Ask what runs below `processes` to save and stop; returns when that, and they, have ended.

    DVC gets no signal of its own while a stage works below it: it ends with its stage.
    """
    asked: set[psutil.Process] = set()
    left, deadline = list(processes), time.monotonic() + SECONDS_TO_SAVE
    while left and time.monotonic() < deadline:
        for process in list(left):
            below = _below(process)
            for each in below or [process]:
                if each not in asked:
                    asked.add(each)
                    with contextlib.suppress(psutil.Error):
                        each.terminate()
            left += [each for each in below if each not in left]
        _, left = psutil.wait_procs(left, timeout=SECONDS_BETWEEN_LOOKS)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def stages_at_work_in(folder: Path) -> list[psutil.Process]:
    """Processes of DVC and of stages whose working directory is below `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.cwd().startswith(f"{folder}{os.sep}") and ("dvc" in command or "stages." in command):
                found.append(process)
    return found
