"""With the real `dvc`: only DVC is killed, or its cache is damaged; `dvc repro` or the printed advice repairs it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.faults.pipeline import TRAINING, Undisturbed, check_tidy, flip, results
from tests.tiny import ROOT, change_params, command, commit_all

pytestmark = pytest.mark.timeout(600)  # the first test waits for `undisturbed` and for `dvc repro`, twice
SECONDS_TO_PAUSE = 240
PAUSE_IN_THE_THIRD_SAVE = f"""
import os, signal, sys
if os.environ.get("DVC_STAGE") == "train":
    sys.path.append({str(ROOT)!r})
    from tests.stops import Stop
    Stop(1, "-000004-00000000", "os.mkdir", signal.SIGSTOP)()
"""


@dataclass(frozen=True)
class Killed:
    """A project in which only `dvc` was killed, in the middle of `dvc repro`; then `dvc repro` ran again."""

    project: Path
    first: str  # output of the killed `dvc repro` and of the stage that went on without it
    second: str


def kill_when_its_stage_pauses(dvc: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Kill only DVC and let the stage go on; return the processes below DVC."""
    below: list[psutil.Process] = []
    paused, deadline = False, time.monotonic() + SECONDS_TO_PAUSE
    try:
        while not paused:
            assert dvc.poll() is None, "it ended before the third save"
            assert time.monotonic() < deadline, f"no third save within {SECONDS_TO_PAUSE} seconds"
            time.sleep(0.1)
            with suppress(psutil.NoSuchProcess):  # a child that has just ended
                below = [each for each in psutil.Process(dvc.pid).children(recursive=True) if each.is_running()]
                paused = any(each.status() == psutil.STATUS_STOPPED for each in below)
    finally:
        dvc.kill()
        dvc.wait()
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)
    return below


@pytest.fixture(scope="module")
def killed(project: Path, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    root = tmp_path_factory.mktemp("dvc")
    folder = Path(shutil.copytree(project, root / "project", symlinks=True))
    shutil.copy(undisturbed.folder / "params.yaml", folder)
    (root / "injected").mkdir()
    (root / "injected/sitecustomize.py").write_text(PAUSE_IN_THE_THIRD_SAVE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(root / "injected")}
    with (root / "log").open("wb") as log:
        dvc = subprocess.Popen(["dvc", "repro"], cwd=folder, env=variables, stdout=log, stderr=log)
    left = kill_when_its_stage_pauses(dvc)
    second = command(folder, "dvc", "repro")  # at once: the stage may still be running
    psutil.wait_procs(left, timeout=60)
    return Killed(folder, (root / "log").read_text(encoding="utf-8"), second.stdout + second.stderr)


def test_if_only_dvc_dies_the_next_one_goes_on_and_ends_with_the_same_bytes(
    killed: Killed, undisturbed: Undisturbed
) -> None:
    assert "epoch 3 of at most 4, learning rate 0.001" in killed.first
    assert "Running stage 'train'" in killed.second
    assert "epoch 1 of at most 4, learning rate 0.001" not in killed.second
    assert results(killed.project) == undisturbed.results
    check_tidy(killed.project)


def flip_in_the_cache(project: Path, name: str) -> None:
    """Flip one bit of a file in DVC's cache and leave the file as read-only as it was."""
    md5 = hashlib.md5((project / name).read_bytes()).hexdigest()
    cached = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    mode = cached.stat().st_mode
    cached.chmod(0o644)
    flip(cached)
    cached.chmod(mode)


def test_the_advice_for_a_damaged_cache_followed_word_for_word_brings_the_same_bytes(
    killed: Killed, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(killed.project, tmp_path / "project", symlinks=True))
    flip_in_the_cache(project, "data/pair_extract/train.jsonl")
    shutil.rmtree(project / "data/pair_extract")
    command(project, "dvc", "checkout")
    assert results(project) != undisturbed.results, "DVC checks out a damaged file without noticing"
    refused = command(project, "dvc", "repro", "--force", "--single-item", "subset", fails=True)
    (line,) = [each for each in refused.stderr.splitlines() if each.startswith("ERROR subset: ")]
    assert "data/pair_extract/train.jsonl: its sha256 is not the one in its manifest; " in line
    command(project, "sh", "-c", line.partition("produce it again: ")[2])
    assert results(project) == undisturbed.results


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            "protocols.tiny.training.batch_size=0",
            "params.yaml: protocols.tiny.training.batch_size: found 0; it must be ",
        ),
        ("method=sfot", "methods.sfot"),  # DVC's own words
    ],
)
def test_after_a_wrong_value_the_readme_s_way_back_brings_the_outputs(
    wrong: str, said: str, killed: Killed, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(killed.project, tmp_path / "project", symlinks=True))
    commit_all(project)
    done = command(project, "dvc", "exp", "run", "-S", wrong, fails=True)
    assert said in done.stdout + done.stderr
    way_back = "git checkout . && dvc checkout"
    assert f"`{way_back}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    command(project, "sh", "-c", way_back)
    assert results(project) == undisturbed.results
    assert "Stage 'train' didn't change" in command(project, "dvc", "repro").stdout


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which `make repro` finds an environment, with a stand-in for DVC."""
    (tmp_path / "made/.venv/bin").mkdir(parents=True)
    (tmp_path / "made/.dvc/tmp").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / "made")
    for name, command_line in (("python", f'{sys.executable} "$@"'), ("dvc", "true")):
        (tmp_path / "made/.venv/bin" / name).write_text(f"#!/bin/sh\nexec {command_line}\n")
        (tmp_path / "made/.venv/bin" / name).chmod(0o755)
    for name in (".created", ".installed"):
        (tmp_path / "made/.venv" / name).touch()
    return tmp_path / "made"


HELD = {"data": {"write": {"pid": os.getpid(), "cmd": "dvc repro"}}}


@pytest.mark.parametrize("left", [json.dumps(HELD), json.dumps(HELD)[:9], ""], ids=["number", "cut", "empty"])
def test_make_repro_removes_the_lock_of_a_killed_dvc_whoever_has_its_number_now(left: str, made: Path) -> None:
    lock = made / ".dvc/tmp/rwlock"
    lock.write_text(left)
    assert "rwlock: left by a DVC that was killed; removed" in command(made, "make", "repro").stdout
    assert not lock.exists()


def test_make_repro_leaves_the_lock_of_a_dvc_that_runs_here(made: Path) -> None:
    lock, script = made / ".dvc/tmp/rwlock", made.parent / "dvc"
    lock.write_text("x")
    script.write_text("import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, script, "repro"], cwd=made) as running:
        assert "removed" not in command(made, "make", "repro").stdout
        running.kill()
    assert lock.read_text() == "x"


def paused_in(folder: Path) -> psutil.Process:
    """The training in one of DVC's temporary folders below `folder`: stopped, once it has written a checkpoint."""
    deadline = time.monotonic() + SECONDS_TO_PAUSE
    while not [*folder.glob(".state/train/*/checkpoints/*/manifest.json")]:
        assert time.monotonic() < deadline, "no checkpoint in the workspace"
        time.sleep(0.05)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            there = process.cwd().startswith(f"{folder}/.dvc/tmp/exps/")
            if there and process.cmdline()[1:3] == ["-m", "stages.train"]:
                process.suspend()
                return process
    raise AssertionError("it does not run")


@pytest.mark.parametrize("how", ["--temp", "--queue"])
def test_what_is_finished_in_a_temporary_folder_is_kept_when_dvc_removes_it(
    how: str, project: Path, tmp_path: Path
) -> None:
    """Ctrl-C in `dvc exp run --temp`, and `dvc queue kill`."""
    folder = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    epochs = {"num_train_epochs": 12, "early_stopping_patience": 12, "learning_rates.trials": 1}
    change_params(folder, {f"protocols.tiny.training.{name}": value for name, value in (TRAINING | epochs).items()})
    commit_all(folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if how == "--temp":
        words = ["dvc", "exp", "run", "--temp", "-S", "method=soft"]
        run = subprocess.Popen(words, cwd=folder, env={**os.environ, "PATH": path}, start_new_session=True)
        stage = paused_in(folder)
        os.killpg(run.pid, signal.SIGINT)
    else:
        command(folder, "dvc", "exp", "run", "--queue", "--name", "queued", "-S", "method=soft")
        assert command(folder, "git", "status", "--porcelain").stdout == "", "the queue leaves the workspace alone"
        words = ["dvc", "queue", "start"]  # the worker keeps what it gets as its output, so that is no pipe
        subprocess.run(words, cwd=folder, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, check=True)
        stage = paused_in(folder)
        command(folder, "dvc", "queue", "kill", "queued")
    temporary = Path(stage.cwd())
    stage.resume()
    deadline = time.monotonic() + SECONDS_TO_PAUSE
    while temporary.exists():
        assert time.monotonic() < deadline, "DVC did not remove the temporary folder"
        time.sleep(0.1)
    again = command(folder, "dvc", "exp", "run", "--temp", "-S", "method=soft")
    assert "epoch 12 " in again.stdout + again.stderr
    assert "epoch 1 " not in again.stdout + again.stderr
