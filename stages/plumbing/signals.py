"""Signals: a stage that is told to stop, by Ctrl-C, SIGTERM or the death of its DVC, first saves what is under way."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

SECONDS_BETWEEN_LOOKS = 0.25  # at the processes above this one


class Terminated(BaseException):
    """SIGTERM was received. Like KeyboardInterrupt it is no Exception, so that no handler swallows it."""


def ignore_signals() -> None:
    """From the first signal on: a second one must not interrupt the saving and tidying that the first one started."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def raise_on_signals() -> None:
    """From now on SIGTERM raises Terminated and Ctrl-C KeyboardInterrupt; a signal that is ignored stays ignored."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is for what a script runs in the background
            signal.signal(number, _stop)


def _is_dvc(name: str) -> bool:
    return name.lower().startswith(("dvc", "python"))


def _up_to_dvc() -> list[tuple[int, str]]:
    """Number and name of the processes above this one, from its parent (a shell, or DVC) to DVC; if it is there."""
    import psutil  # only under DVC, which needs it itself

    chain: list[tuple[int, str]] = []
    number = os.getppid()
    with suppress(psutil.Error):
        while number > 0 and not (chain and _is_dvc(chain[-1][1])):
            process = psutil.Process(number)
            chain.append((number, process.name()))
            number = process.ppid()
    return chain


def _is_orphan() -> bool:
    """Whether the parent is none that runs commands: the first of all processes, or one of another session."""
    with suppress(OSError):
        return os.getppid() == 1 or os.getsid(os.getppid()) != os.getsid(0)
    return True


def stop_with_dvc() -> None:
    """Under DVC, stop when it has died: it does not supervise its children, and the next `dvc repro` starts another.

    Sends this process SIGTERM, so that it saves and ends as on any other request to stop. DVC runs a command in a
    shell, which replaces itself by the command or stands between the two; and DVC may have died before this is called,
    while libraries were loaded.
    """
    if "DVC_STAGE" not in os.environ:
        return
    chain = _up_to_dvc()
    if not (chain and _is_dvc(chain[-1][1])):  # another program that uses DVC as a library, or none
        chain = [] if _is_orphan() else chain[:1]

    def watch() -> None:
        while chain and _up_to_dvc()[: len(chain)] == chain:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class StopRequest:
    """`with StopRequest() as stop: ...; stop.check()`: a signal raises at the next check, not in the middle of a step.

    It raises at the end of the block at the latest. A second signal changes nothing, so that it cannot interrupt the
    saving that the first one caused.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopRequest":
        heeded = (number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN)
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number

    def check(self) -> None:
        """Raise Terminated or KeyboardInterrupt if such a signal has come."""
        if self.received == signal.SIGTERM:
            raise Terminated
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.received:
            ignore_signals()
        else:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        if kind is None:
            self.check()
