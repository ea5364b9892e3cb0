"""One process at a time: a lock that ends with its process, however it ends, and names the one that holds it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.core.errors import StageError

SECONDS_VARIABLE = "DIALOG_PROMPTING_LOCK_SECONDS"
SECONDS = 10.0  # to wait for the lock: a stage whose DVC was killed takes a few to notice and to stop


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for the length of the block.

    Raises:
        StageError: another process holds it; the message names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + float(os.environ.get(SECONDS_VARIABLE, SECONDS))
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    remedy = "wait for it to end, or stop it"
                    raise StageError(path, f"held by process {holder}", remedy) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
