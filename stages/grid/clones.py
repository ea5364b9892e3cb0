"""Clones, in which experiments run beside the user's workspace, and the processes in them.

A clone is a clone of the repository that shares its Git objects and DVC's cache, and nothing else: no lock, no
workspace and no half-made experiment of one clone can be seen from another, or from the project. An experiment becomes
one of the project's when it is whole, by one `git fetch` of its ref.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from stages.grid.experiments import dvc, dvc_command, git
from stages.plumbing.files import STATE_VARIABLE

SECONDS_TO_SAVE = 120.0  # for a stage that was asked to stop
SECONDS_BETWEEN_LOOKS = 0.5
LOCAL = Path(".dvc") / "config.local"  # the user's remotes and their passwords


def make_clones(root: Path, folder: Path, count: int, baseline: str) -> list[Path]:
    """Make `count` clones of the project below `folder`, at a commit; what an earlier run left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    clones = [folder / str(number) for number in range(count)]
    for clone in clones:
        git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(clone))
        git(clone, "checkout", "--quiet", "--detach", baseline)
        if (root / LOCAL).is_file():
            shutil.copy(root / LOCAL, clone / LOCAL)
        dvc(clone, "config", "--local", "cache.dir", dvc(root, "cache", "dir"))
        # A base model is hundreds of megabytes: the clones get links to the one in the cache, not copies.
        dvc(clone, "config", "--local", "cache.type", "reflink,hardlink,copy")
    return clones


def start(clone: Path, state: Path, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a DVC command in a clone, as it was cloned; all that it prints is added to `log`.

    state: the folder of the training state, shared by all clones: a training that was stopped in one goes on in
    another.
    """
    git(clone, "reset", "--quiet", "--hard")
    git(clone, "clean", "--quiet", "--force", "-d")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, STATE_VARIABLE: str(state)}
    nothing, same = subprocess.DEVNULL, subprocess.STDOUT
    with log.open("ab") as file:
        return subprocess.Popen(
            dvc_command(*words), cwd=clone, env=environment, stdin=nothing, stdout=file, stderr=same
        )


def at_work(folder: Path) -> list[tuple[psutil.Process, list[str]]]:
    """Processes of DVC and of stages whose working directory is below `folder`, and the words of their commands."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            known = any("dvc" in word or "stages." in word for word in words)
            if known and process.cwd().startswith(f"{folder}{os.sep}"):
                found.append((process, words))
    return found


def stop(folder: Path) -> None:
    """Ask the stages that run below `folder` to save and stop; returns when they, and their DVC, have ended.

    DVC gets no signal of its own while a stage works below it: it ends with its stage.
    """
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + SECONDS_TO_SAVE
    while left := at_work(folder):
        for process, _ in left:
            with contextlib.suppress(psutil.Error):
                for each in set(process.children(recursive=True) or [process]) - asked:
                    asked.add(each)
                    each.terminate()
                if time.monotonic() > deadline:
                    process.kill()
        time.sleep(SECONDS_BETWEEN_LOOKS)
