"""Signals: a stage that must stop (Ctrl-C, SIGTERM, a closed terminal, a killed DVC) first saves its work."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

SECONDS_BETWEEN_LOOKS = 0.25  # how often to look at the parent processes
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP was received. Like KeyboardInterrupt, no Exception: `except Exception` does not catch it."""


def ignore_signals() -> None:
    """Called at the first signal: a second one must not interrupt the saving and cleaning up."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _heeded() -> list[signal.Signals]:
    """An ignored signal stays ignored: SIGINT in background jobs of a script, SIGHUP under nohup."""
    return [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    ignore_signals()
    _raise(number)


def raise_on_signals() -> None:
    """From now on SIGTERM and SIGHUP raise Terminated and Ctrl-C KeyboardInterrupt."""
    for number in _heeded():
        signal.signal(number, _stop)


def _is_dvc(name: str) -> bool:
    return name.lower().startswith(("dvc", "python"))


def _up_to_dvc() -> list[tuple[int, str]]:
    """Number and name of the processes above this one, from its parent (a shell, or DVC) up to DVC, if it is there."""
    import psutil  # used only under DVC, which needs it too

    chain: list[tuple[int, str]] = []
    number = os.getppid()
    with suppress(psutil.Error):
        while number > 0 and not (chain and _is_dvc(chain[-1][1])):
            process = psutil.Process(number)
            chain.append((number, process.name()))
            number = process.ppid()
    return chain


def _is_orphan() -> bool:
    """Whether the process that started this one is gone: the parent is process 1 or belongs to another session."""
    with suppress(OSError):
        return os.getppid() == 1 or os.getsid(os.getppid()) != os.getsid(0)
    return True


def stop_with_dvc() -> None:
    """If DVC runs this process, stop when DVC dies: it leaves its children running, and the next one starts another.

    A thread sends SIGTERM to this process, which then saves and ends as usual. DVC runs a command in a shell, which
    either replaces itself by the command or is the parent in between. DVC may even have died before this call, while
    libraries were loaded.
    """
    if "DVC_STAGE" not in os.environ:
        return
    chain = _up_to_dvc()
    if not (chain and _is_dvc(chain[-1][1])):  # no DVC: another program uses it as a library, or it died
        chain = [] if _is_orphan() else chain[:1]

    def watch() -> None:
        while chain and _up_to_dvc()[: len(chain)] == chain:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class StopRequest:
    """`with StopRequest() as stop: ...; stop.check()`: a signal raises at the next check, not in the middle of a step.

    At the latest, it raises at the end of the block. A second signal is ignored, so it cannot interrupt the saving
    that the first one caused.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in _heeded()}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number

    def check(self) -> None:
        """Raise Terminated or KeyboardInterrupt if the signal for it was received."""
        if self.received:
            _raise(self.received)

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
