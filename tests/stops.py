"""Stop a process at a file event: unlike a time, that is the same moment on a busy machine.

Works in any Python process that calls it early: a fork (tests/stage_runs.py), or an interpreter with a sitecustomize
(tests/faults/test_dvc.py). It imports only the standard library, so it does not slow the process down.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def watch_files(seen: Callable[[str, str], object]) -> None:
    """Call `seen(event, path)` before each file event of this process in its working directory."""
    busy = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or event not in FILE_EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(os.getcwd()):
            return
        busy = True  # `seen` causes file events too
        try:
            seen(event, path)
        finally:
            busy = False

    sys.addaudithook(watch)


@dataclass(frozen=True)
class Stop:
    """Send the process a signal just before its `nth` file event on a path that contains `path`.

    `event` restricts this to one of FILE_EVENTS. With `again`, the process also gets SIGTERM and SIGINT before every
    later file event.
    """

    nth: int = 1
    path: str = ""
    event: str = ""
    number: int = signal.SIGKILL
    again: bool = False

    def __call__(self) -> None:
        """Start watching this process."""
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


def tally(log: str) -> None:
    """Write a byte to `log` for each file event of this process, to count the moments at which it can be stopped."""
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    watch_files(lambda event, path: os.write(file, b"."))
