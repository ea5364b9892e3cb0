"""Signals: a stage that must stop (Ctrl-C, SIGTERM, a closed terminal, a killed DVC) first saves its work."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

SECONDS_BETWEEN_LOOKS = 0.25  # at the parent processes
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP was received. Like KeyboardInterrupt, no Exception: `except Exception` does not catch it."""


def ignore_signals() -> None:
    """From the first signal on: a second one must not interrupt the saving and cleaning up."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _heeded() -> list[signal.Signals]:
    """An ignored signal stays ignored: SIGINT in background jobs of a script, SIGHUP under nohup."""
    return [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def raise_on_signals() -> None:
    """From now on SIGTERM and SIGHUP raise Terminated and Ctrl-C KeyboardInterrupt."""
    for number in _heeded():
        signal.signal(number, _stop)


def _up_to_dvc() -> list[int]:
    """The processes above this one, from its parent, perhaps a shell, up to DVC.

    Without DVC another program uses the stages as a library, and it is the parent alone, as where the processes of
    other users are hidden; none if DVC has died, and process 1 or one of another session has adopted this one.
    """
    import psutil  # used only under DVC, which needs it too

    chain: list[int] = []
    with suppress(psutil.NoSuchProcess, OSError):
        with suppress(psutil.AccessDenied):
            process = psutil.Process().parent()
            while process is not None:
                chain.append(process.pid)
                if process.name().lower().startswith(("dvc", "python")):
                    return chain
                process = process.parent()
        if os.getppid() != 1 and os.getsid(os.getppid()) == os.getsid(0):
            return [os.getppid()]
    return []


def stop_with_dvc() -> None:
    """If DVC runs this process, stop when DVC dies: it leaves its children running, and the next one starts another.

    A thread sends SIGTERM to this process, which then saves and ends as usual. DVC may even have died before this call.
    """
    if "DVC_STAGE" not in os.environ:
        return
    chain = _up_to_dvc()

    def watch() -> None:
        while chain and _up_to_dvc() == chain:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class StopRequest:
    """`with StopRequest() as stop: ...; stop.check()`: a signal raises at the next check, not in the middle of a step.

    At the latest, it raises at the end of the block. From then on signals are ignored.
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
            _stop(self.received, None)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.received:
            ignore_signals()
        else:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        if kind is None:
            self.check()
