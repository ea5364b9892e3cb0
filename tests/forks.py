"""Processes that start at once: forks of one process that has the libraries loaded, where a new one needs seconds."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])
FORKS = sys.platform == "linux"  # elsewhere a process with PyTorch in it cannot be forked


def enter(folder: str, variables: dict[str, str], output: str, errors: str | None = None) -> None:
    """Make this process look as if a shell had started it in `folder`, with its output in files."""
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    for number, path in enumerate((output, errors or output), start=1):
        os.dup2(os.open(path, flags), number)


def run(folder: Path, words: Sequence[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: `dvc ...` and `python -m ...` in a fork, others in a new process."""
    if not (FORKS and (words[0] == "dvc" or list(words[:2]) == ["python", "-m"])):
        return subprocess.run(
            words, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    with TemporaryDirectory() as kept:
        output, errors = Path(kept, "output"), Path(kept, "errors")
        process = SERVER.Process(target=_run, args=(str(folder), words, variables, str(output), str(errors)))
        process.start()
        process.join()
        assert process.exitcode is not None
        printed = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (output, errors)]
        return subprocess.CompletedProcess(list(words), process.exitcode, *printed)


def _run(folder: str, words: Sequence[str], variables: dict[str, str], output: str, errors: str) -> None:
    enter(folder, variables, output, errors)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if words[0] == "dvc":
        from dvc.cli import main

        sys.argv = list(words)
        sys.exit(main(list(words[1:])))
    sys.argv = list(words[2:])
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)
