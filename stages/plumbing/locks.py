"""One process at a time: a lock that names its holder and ends with it, however that process ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stages.plumbing.errors import StageError

SECONDS_VARIABLE = "DIALOG_PROMPTING_LOCK_SECONDS"
SECONDS = 10.0  # to wait for the lock: a stage whose DVC was killed needs a few to notice and stop


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path` during the block.

    Raises:
        StageError: another process holds it; the message names that process and its machine.
        OSError: the lock cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        try:
            _take(path, file)
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield


def _take(path: Path, file: IO[bytes]) -> None:
    deadline = time.monotonic() + float(os.environ.get(SECONDS_VARIABLE, SECONDS))
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "unknown"
                raise StageError(path, f"held by process {holder}", "wait for it to end, or stop it") from None
            time.sleep(0.2)
