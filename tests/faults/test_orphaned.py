"""If only DVC is killed, the stage that it started notices and stops within seconds, however DVC started it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stages.plumbing.signals import _up_to_dvc
from tests.faults.pipeline import stopped_line
from tests.stage_runs import wait_for
from tests.tiny import ROOT

STAGE = """
import argparse, os, pathlib, time
while {wait_for_go} and not pathlib.Path("go").exists():
    time.sleep(0.02)  # stands for loading libraries
from stages.plumbing.command import run_stage

def main(arguments):
    pathlib.Path("main").touch()
    time.sleep(60)

run_stage("toy", argparse.ArgumentParser(), main)
"""
PARENT = """#!{python}
import os, subprocess, sys
with open("log", "w") as log:
    process = subprocess.Popen(["/bin/sh", "-c", {command!r}], stdout=log, stderr=log)
    process.wait()
"""
STARTED_BY_SH = "echo $$ > pid; exec {python} stage.py"
BELOW_SH = "{python} stage.py & echo $! > pid; wait $!; true"


class Orphan:
    """A program that starts a stage as DVC does, and can be killed."""

    def __init__(self, folder: Path, name: str, command: str, wait_for_go: bool = False, **variables: str) -> None:
        self.folder = folder
        (folder / "stage.py").write_text(STAGE.format(wait_for_go=wait_for_go))
        program = folder / name
        program.write_text(PARENT.format(python=sys.executable, command=command.format(python=sys.executable)))
        program.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        self.parent = subprocess.Popen([program], cwd=folder, env=environment, start_new_session=True)
        wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().endswith("\n"))
        self.stage = psutil.Process(int((folder / "pid").read_text()))

    def ended(self) -> bool:
        return not self.stage.is_running() or self.stage.status() == psutil.STATUS_ZOMBIE

    def kill_parent(self) -> None:
        self.parent.kill()
        self.parent.wait()

    def check_stopped(self) -> None:
        wait_for(self.ended)
        assert (self.folder / "log").read_text() == f"{stopped_line('toy')}\n"


@pytest.mark.parametrize(("error", "found"), [(psutil.AccessDenied, True), (None, True), (psutil.NoSuchProcess, False)])
def test_where_other_users_processes_are_hidden_the_parent_is_watched(
    error: type[psutil.Error] | None, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parent(process: psutil.Process) -> None:
        if error:
            raise error(process.pid)

    monkeypatch.setattr(psutil.Process, "parent", parent)
    monkeypatch.setattr(os, "getsid", lambda pid: 7)
    monkeypatch.setattr(os, "getppid", lambda: 5)
    assert _up_to_dvc() == [5] * found


@pytest.mark.parametrize("command", [STARTED_BY_SH, BELOW_SH], ids=["in place of the shell", "below the shell"])
def test_a_stage_stops_when_its_dvc_is_killed(command: str, tmp_path: Path) -> None:
    orphan = Orphan(tmp_path, "dvc", command, DVC_STAGE="toy")
    wait_for((tmp_path / "main").exists)
    orphan.kill_parent()
    orphan.check_stopped()


def test_a_stage_stops_if_its_dvc_was_killed_while_it_loaded_its_libraries(tmp_path: Path) -> None:
    orphan = Orphan(tmp_path, "dvc", STARTED_BY_SH, wait_for_go=True, DVC_STAGE="toy")
    orphan.kill_parent()
    (tmp_path / "go").touch()
    orphan.check_stopped()


@pytest.mark.parametrize(("name", "variables"), [("dvc", {}), ("make", {"DVC_STAGE": "toy"})])
def test_a_stage_that_was_not_left_alone_goes_on(name: str, variables: dict[str, str], tmp_path: Path) -> None:
    orphan = Orphan(tmp_path, name, STARTED_BY_SH, False, **variables)
    wait_for((tmp_path / "main").exists)
    if not variables:  # started by hand, perhaps with nohup: no second one will be started
        orphan.kill_parent()
    time.sleep(1.5)
    assert not orphan.ended()
    orphan.stage.kill()
    orphan.parent.wait()
