"""Stopping at a safe point: SIGTERM and Ctrl-C are noted, what is under way is saved, then the stage ends."""

import signal
from types import FrameType, TracebackType

from stages.core.errors import Terminated, ignore_signals


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
