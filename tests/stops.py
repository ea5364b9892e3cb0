"""Where a process is stopped: by what it does with files, which no busy machine can shift.

Works in any Python process that runs it early: a fork (tests/stage_runs.py), or an interpreter whose sitecustomize does
(tests/faults/test_dvc.py). Only the standard library, so that it costs such a process nothing.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def watch_files(seen: Callable[[str, str], object]) -> None:
    """Call `seen(event, path)` before each thing that this process does to a file of its working directory."""
    busy = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or event not in FILE_EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(os.getcwd()):
            return
        busy = True  # what is done in there does things to files too
        try:
            seen(event, path)
        finally:
            busy = False

    sys.addaudithook(watch)


@dataclass(frozen=True)
class Stop:
    """The process gets a signal just before it does its `nth` thing to a file whose path contains `path`.

    `event` narrows the things down to one of FILE_EVENTS. With `again` it gets both SIGTERM and SIGINT before each
    later one, whatever the file.
    """

    nth: int = 1
    path: str = ""
    event: str = ""
    number: int = signal.SIGKILL
    again: bool = False

    def __call__(self) -> None:
        """Start to watch this process."""
        left = self.nth

        def seen(event: str, path: str) -> None:
            nonlocal left
            if left == 0:
                for number in (signal.SIGTERM, signal.SIGINT) if self.again else ():
                    os.kill(os.getpid(), number)
            elif self.path in path and event.startswith(self.event):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), self.number)

        watch_files(seen)


@dataclass(frozen=True)
class Tally:
    """The process writes a byte to `log` for each thing that it does to a file: as many moments there are to stop."""

    log: str

    def __call__(self) -> None:
        """Start to watch this process."""
        file = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def tally(event: str, path: str) -> None:
            os.write(file, b".")

        watch_files(tally)
