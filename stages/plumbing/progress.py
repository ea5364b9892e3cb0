"""Progress of long work, and the memory that it took."""

import io
import resource
import sys

from tqdm import tqdm

LINE = "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {elapsed}, {remaining} left{postfix}"


class Progress(tqdm):  # type: ignore[misc]
    """`with Progress(total, "epoch 1", "pairs") as progress: ... progress.advance(8)`.

    tqdm's bar on a terminal; elsewhere, as in a log, a plain line on stderr from time to time and one at the end.
    """

    monitor_interval = 0  # no thread of tqdm's

    def __init__(self, total: int, title: str, unit: str, done: int = 0) -> None:
        self.terminal, self.shown = sys.stderr.isatty(), done
        seconds, line = (0.1, None) if self.terminal else (15.0, LINE)
        file = sys.stderr if self.terminal else io.StringIO()  # for the line breaks that tqdm writes itself
        super().__init__(
            total=total, initial=done, desc=title, unit=f" {unit}", file=file, bar_format=line, mininterval=seconds,
            miniters=1, dynamic_ncols=self.terminal,
        )  # fmt: skip

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` units as done; `note` (a loss, a score) is shown at the end of the line."""
        self.set_postfix_str(note, refresh=False)
        self.update(count)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show it; called by tqdm."""
        if self.terminal:
            super().display(msg, pos)
        elif self.n != self.shown:
            self.shown = self.n
            print(self, file=sys.stderr, flush=True)


def peak_memory() -> int:
    """The most bytes of main memory that this process has used."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gpu_memory() -> int | None:
    """The most bytes of tensors on the GPU; None if there is no GPU, or nothing has used it."""
    torch = sys.modules.get("torch")  # who has not imported it has nothing on a GPU
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
