"""One folder for each process that runs tests: for what they share, and for what libraries would keep at home."""

from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

RUN = TemporaryDirectory(prefix="dialog-prompting-tests-")  # removed by conftest.py: workers of pytest-xdist do not


def new_folder(prefix: str) -> Path:
    """An empty folder that stays until this process has run its last test."""
    return Path(mkdtemp(prefix=prefix, dir=RUN.name))
