"""A stage as a user runs it, `python -m stages.<name> <the words in dvc.yaml>`: run, killed and compared.

Each run is a fork of one process that has the libraries loaded, which costs a moment where an interpreter of its own
costs seconds. It is a real process with a process group, an exit code, limits and mounts of its own.

A moment to kill it at is best told by what it does with files (tests/stops.py): on a busy machine a test that looks
from outside until a file is there can look too late.
"""

import hashlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from tests.stops import Stop
from tests.tiny import ROOT

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([f"stages.{name}.__main__" for name in ("download", "train", "greedy_generate", "score")])
COMMANDS: dict[str, list[str]] = {
    name: stage["cmd"].split()[2:]
    for name, stage in YAML(typ="safe", pure=True)
    .load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    .items()
}
Preparation = Callable[[], None]  # done in the new process before the stage starts: a limit, a mount, a Stop


class Run:
    """A stage that was started, in a process group of its own."""

    def __init__(
        self, folder: Path, words: list[str], variables: dict[str, str], prepare: Preparation | None = None
    ) -> None:
        logs = folder.with_name(f"{folder.name}-logs")
        logs.mkdir(exist_ok=True)
        self.log = logs / f"{len(list(logs.iterdir()))}"
        arguments = (str(folder), str(self.log), words, {**os.environ, **variables}, prepare)
        self.process = SERVER.Process(target=_run, args=arguments)
        self.process.start()
        while self.process.is_alive() and not self.log.exists():  # from then on it has a process group of its own
            time.sleep(0.002)

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """To the process group, as a terminal's Ctrl-C or `kill -9 -- -PID`."""
        os.killpg(self.pid, number)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.is_alive()

    def wait_until_paused(self) -> None:
        """Until a SIGSTOP has stopped it."""
        while self.running() and psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.005)

    def wait(self) -> tuple[int, str]:
        """Exit code (negative: the signal) and everything that it printed."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.log.read_text(encoding="utf-8")


def enter(folder: str, log: str, variables: dict[str, str]) -> None:
    """Make this process one that a shell has started in `folder`, with its output in `log`."""
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _run(folder: str, log: str, words: list[str], variables: dict[str, str], prepare: Preparation | None) -> None:
    enter(folder, log, variables)
    if prepare is not None:
        prepare()
    sys.argv = words
    sys.modules.pop(f"{words[0]}.__main__", None)  # preloaded, which runpy would warn of
    runpy.run_module(words[0], run_name="__main__")


def start(folder: Path, stage: str, prepare: Preparation | None = None, **variables: str) -> Run:
    """Start a stage of dvc.yaml in `folder`."""
    return Run(folder, COMMANDS[stage], variables, prepare)


def finish(folder: Path, stage: str, **variables: str) -> str:
    """Run a stage to its end; what it printed."""
    code, printed = start(folder, stage, None, **variables).wait()
    assert code == 0, printed
    return printed


def fails(folder: Path, stage: str, prepare: Preparation | None = None, **variables: str) -> str:
    """Run a stage that fails as every stage does: exit code 1, one last line, no traceback. Returns that line."""
    code, printed = start(folder, stage, prepare, **variables).wait()
    assert code == 1, f"{code}: {printed}"
    assert "Traceback" not in printed
    last = printed.splitlines()[-1]
    assert last.startswith(f"ERROR {stage}: ")
    assert ": " in last.removeprefix(f"ERROR {stage}: ") and "; " in last
    return last


def stopped(folder: Path, stage: str, stop: Stop, **variables: str) -> tuple[int, str]:
    """Run a stage until it is stopped; its exit code (negative: the signal) and what it printed."""
    code, printed = start(folder, stage, stop, **variables).wait()
    assert code != 0, f"ended before it could be stopped: {printed}"
    return code, printed


def contents(*folders: Path) -> dict[str, str]:
    """sha256 of every file below some folders, by its name there: of results that must be the same bytes."""
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
