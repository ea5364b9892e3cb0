"""One folder for each process that runs tests: for what they share, and for what libraries would keep at home."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

RUN = TemporaryDirectory(prefix="dialog-prompting-tests-")  # removed by conftest.py: workers of pytest-xdist do not


def new_folder(prefix: str) -> Path:
    """An empty folder that stays until this process has run its last test."""
    return Path(mkdtemp(prefix=prefix, dir=RUN.name))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of all processes that run tests makes and fills, with `make`; the others find it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # then that is the process's own folder, beside those of the others
        folder = folder.parent
    made = folder / name
    with (folder / f"{name}.lock").open("a+") as done:
        fcntl.flock(done, fcntl.LOCK_EX)
        done.seek(0)
        if not done.read():
            shutil.rmtree(made, ignore_errors=True)  # of one that failed
            made.mkdir()
            make(made)
            done.write("done")
    return made
