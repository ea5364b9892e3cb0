"""Progress of long work: a bar on a terminal, otherwise a plain line from time to time."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """`with Progress(total, "epoch 1", "pairs") as progress: ... progress.advance(8)`.

    Shows the progress, the speed and the time left, on stderr.
    """

    def __init__(self, total: int, title: str, unit: str, done: int = 0) -> None:
        self.total, self.title, self.unit = total, title, unit
        self.done = self.start = done
        self.note = ""
        self.began = self.last_line = time.monotonic()
        self.bar = (
            tqdm(total=total, initial=done, desc=title, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "Progress":
        return self

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` units as done; `note` (a loss, a score) is shown at the end of the line."""
        self.done += count
        self.note = note or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self.line()

    def line(self) -> None:
        """Print one plain line."""
        self.last_line = time.monotonic()
        elapsed = self.last_line - self.began
        rate = (self.done - self.start) / elapsed if elapsed > 0 else 0.0
        left = f", {duration((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        note = f", {self.note}" if self.note else ""
        print(
            f"{self.title}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {duration(elapsed)}{left}{note}",
            file=sys.stderr,
            flush=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            self.line()
