"""Run stages as a user does, with the command in dvc.yaml; kill them and compare their results.

Each run is a fork of one process that has the libraries loaded, and these modules too: a fork takes hundredths of a
second, a new interpreter seconds. It is a real process, with its own process group, exit code, limits and mounts.

To kill it at a certain moment, use a file event (tests/stops.py): a test that waits from outside for a file to appear
can be too late on a busy machine.
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

from tests.stops import Stop
from tests.tiny import ROOT, read_yaml

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([  # so that no fork has to load them
    "stages.download.fetch", "stages.greedy_generate.generation", "stages.language_model.device",
    "stages.pair_extract.pairs", "stages.pair_extract.references", "stages.plumbing.command", "stages.score.scorer",
    "stages.subset.regime", "stages.train.search", "tests.faults.disks",
])  # fmt: skip
COMMANDS: dict[str, list[str]] = {
    name: stage["cmd"].split()[2:] for name, stage in read_yaml(ROOT / "dvc.yaml")["stages"].items()
}
Preparation = Callable[[], None]  # called in the new process before the stage starts: a limit, a mount, a Stop


class Run:
    """A started stage, in its own process group."""

    def __init__(
        self, folder: Path, words: list[str], variables: dict[str, str], prepare: Preparation | None = None
    ) -> None:
        logs = folder.with_name(f"{folder.name}-logs")
        logs.mkdir(exist_ok=True)
        self.log = logs / f"{len(list(logs.iterdir()))}"
        arguments = (str(folder), str(self.log), words, {**os.environ, **variables}, prepare)
        self.process = SERVER.Process(target=_run, args=arguments)
        self.process.start()
        while self.process.is_alive() and not self.log.exists():  # then it has its own process group
            time.sleep(0.002)

    @property
    def pid(self) -> int:
        """Number of the process and of its group."""
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the process group, like Ctrl-C in a terminal or `kill -9 -- -PID`."""
        os.killpg(self.pid, number)

    def running(self) -> bool:
        """Whether it is still running."""
        return self.process.is_alive()

    def wait_until_paused(self) -> None:
        """Wait until a SIGSTOP has paused it."""
        while self.running() and psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.005)

    def wait(self) -> tuple[int, str]:
        """Wait for its end; return the exit code (negative: the signal) and everything it printed."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.log.read_text(encoding="utf-8")


def enter(folder: str, log: str, variables: dict[str, str]) -> None:
    """Make this process look as if a shell had started it in `folder`, with its output in `log`."""
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _run(folder: str, log: str, words: list[str], variables: dict[str, str], prepare: Preparation | None) -> None:
    enter(folder, log, variables)
    if prepare is not None:
        prepare()
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__")


def start(folder: Path, stage: str, prepare: Preparation | None = None, **variables: str) -> Run:
    """Start a stage of dvc.yaml in `folder`."""
    return Run(folder, COMMANDS[stage], variables, prepare)


def finish(folder: Path, stage: str, prepare: Preparation | None = None, **variables: str) -> str:
    """Run a stage to its end; return what it printed."""
    code, printed = start(folder, stage, prepare, **variables).wait()
    assert code == 0, printed
    return printed


def fails(folder: Path, stage: str, prepare: Preparation | None = None, **variables: str) -> str:
    """Run a stage that must fail as all do (exit code 1, an error line, no traceback); return that line."""
    code, printed = start(folder, stage, prepare, **variables).wait()
    assert code == 1, f"{code}: {printed}"
    assert "Traceback" not in printed
    last = printed.splitlines()[-1]
    assert last.startswith(f"ERROR {stage}: ")
    assert ": " in last.removeprefix(f"ERROR {stage}: ") and "; " in last
    return last


def stopped(folder: Path, stage: str, stop: Stop, **variables: str) -> tuple[int, str]:
    """Run a stage until it is stopped; return its exit code (negative: the signal) and what it printed."""
    code, printed = start(folder, stage, stop, **variables).wait()
    assert code != 0, f"ended before it could be stopped: {printed}"
    return code, printed


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def contents(*folders: Path) -> dict[str, str]:
    """sha256 of every file below some folders, by its path there, to compare results byte by byte."""
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
