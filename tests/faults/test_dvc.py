"""With the real `dvc`: only DVC is killed, or its cache is damaged; `dvc repro` or the printed advice repairs it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.faults.pipeline import STAGES, Undisturbed, check_tidy, flip, results
from tests.stage_runs import wait_for
from tests.tiny import ROOT, command, commit_all, shipped_params, write_yaml

pytestmark = pytest.mark.timeout(600)  # the first test waits for `undisturbed` and for DVC, three times
WITH_DVC = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
PAUSE_IN_THE_THIRD_SAVE = f"""
import os, signal, sys
if os.environ.get("DVC_STAGE") == "train":
    sys.path.append({str(ROOT)!r})
    from tests.stops import Stop
    Stop(1, "-000004-00000000", "os.mkdir", signal.SIGSTOP)()
"""


class Killed(NamedTuple):
    """A project in which only `dvc` was killed, in the middle of `dvc repro`; then `dvc repro` ran again."""

    project: Path
    first: str  # output of the killed `dvc repro` and of the stage that went on without it
    second: str


def kill_when_its_stage_pauses(dvc: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Kill only DVC and let the stage go on; return the processes below DVC."""
    below: list[psutil.Process] = []

    def paused() -> bool:
        assert dvc.poll() is None, "it ended before the third save"
        with suppress(psutil.NoSuchProcess):  # a child that has just ended
            below[:] = [each for each in psutil.Process(dvc.pid).children(recursive=True) if each.is_running()]
            return any(each.status() == psutil.STATUS_STOPPED for each in below)
        return False

    try:
        wait_for(paused)
    finally:
        dvc.kill()
        dvc.wait()
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)
    return below


@pytest.fixture(scope="module")
def killed(project: Path, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """All stages but train have run, as in the undisturbed workspace."""
    root = tmp_path_factory.mktemp("dvc")
    folder = Path(shutil.copytree(project, root / "project", symlinks=True))
    for name in ("params.yaml", "data", "metrics"):
        command(undisturbed.folder, "cp", "-r", name, str(folder))
    command(folder, "dvc", "commit", "--force", *(stage for stage in STAGES if stage != "train"))
    (root / "injected").mkdir()
    (root / "injected/sitecustomize.py").write_text(PAUSE_IN_THE_THIRD_SAVE)
    variables = {**WITH_DVC, "PYTHONPATH": str(root / "injected")}
    with (root / "log").open("wb") as log:
        dvc = subprocess.Popen(["dvc", "repro"], cwd=folder, env=variables, stdout=log, stderr=log)
    left = kill_when_its_stage_pauses(dvc)
    second = command(folder, "dvc", "repro")  # at once: the stage may still be running
    psutil.wait_procs(left, timeout=60)
    return Killed(folder, (root / "log").read_text(encoding="utf-8"), second.stdout + second.stderr)


def test_if_only_dvc_dies_the_next_one_goes_on(killed: Killed, undisturbed: Undisturbed) -> None:
    assert "epoch 3 of at most 4, learning rate 0.001" in killed.first
    assert "Running stage 'train'" in killed.second
    assert "epoch 1 of at most 4, learning rate 0.001" not in killed.second
    assert results(killed.project) == undisturbed.results
    check_tidy(killed.project)


def test_the_advice_for_a_damaged_cache_helps(killed: Killed, undisturbed: Undisturbed, tmp_path: Path) -> None:
    project = Path(shutil.copytree(killed.project, tmp_path / "project", symlinks=True))
    md5 = hashlib.md5((project / "data/pair_extract/train.jsonl").read_bytes()).hexdigest()
    cached = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    mode = cached.stat().st_mode
    cached.chmod(0o644)
    flip(cached)
    cached.chmod(mode)  # as read-only as DVC left it
    shutil.rmtree(project / "data/pair_extract")
    command(project, "dvc", "checkout")
    assert results(project) != undisturbed.results, "DVC checks out a damaged file without noticing"
    refused = command(project, "dvc", "repro", "--force", "--single-item", "subset", fails=True)
    (line,) = [each for each in refused.stderr.splitlines() if each.startswith("ERROR subset: ")]
    assert "data/pair_extract/train.jsonl: its sha256 is not the one in its manifest; " in line
    command(project, "sh", "-c", line.partition("produce it again: ")[2])
    assert results(project) == undisturbed.results


def test_the_readme_has_a_way_back_from_a_wrong_value(killed: Killed, undisturbed: Undisturbed, tmp_path: Path) -> None:
    project = Path(shutil.copytree(killed.project, tmp_path / "project", symlinks=True))
    commit_all(project)
    way_back = "git checkout . && dvc repro"
    assert f"`{way_back}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    for wrong in ("protocols.tiny.training.batch_size=0", "method=sfot"):  # a stage refuses it, or DVC itself
        done = command(project, "dvc", "exp", "run", "-S", wrong, fails=True)
        assert wrong.split("=")[0 if "." in wrong else 1] in done.stdout + done.stderr
        command(project, "sh", "-c", way_back)
        assert results(project) == undisturbed.results
    assert "Stage 'train' didn't change" in command(project, "dvc", "repro").stdout


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which `make repro` finds an environment, with a stand-in for DVC."""
    folder = tmp_path / "made"
    (folder / ".dvc/tmp").mkdir(parents=True)
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / ".venv/bin/python").chmod(0o755)
    (folder / ".venv/bin/dvc").symlink_to("/bin/true")
    for name in (".created", ".installed"):
        (folder / ".venv" / name).touch()
    (folder / "stages").symlink_to(ROOT / "stages")
    write_yaml(folder / "params.yaml", shipped_params())
    return folder


def test_make_repro_removes_the_lock_of_a_killed_dvc_alone_whoever_has_its_number_now(made: Path) -> None:
    lock, script = made / ".dvc/tmp/rwlock", made.parent / "dvc"
    for left in (json.dumps({"data": {"write": {"pid": os.getpid(), "cmd": "dvc repro"}}}), ""):
        lock.write_text(left)
        assert "rwlock: left by a DVC that was killed; removed" in command(made, "make", "repro").stdout
        assert not lock.exists()
    lock.write_text("x")
    script.write_text("import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, script, "repro"], cwd=made) as running:
        assert "removed" not in command(made, "make", "repro").stdout
        running.kill()
    assert lock.read_text() == "x"


def test_make_repro_names_a_remedy_where_dvc_has_none(made: Path) -> None:
    params = shipped_params()
    write_yaml(made / "params.yaml", params | {"models": {"a.b": params["models"]["gpt2"]}})
    said = command(made, "make", "repro", fails=True).stderr
    assert "ERROR make: params.yaml: models.a.b: DVC finds no name with a dot or a bracket in it; name it a-b\n" in said


KEEPS = """
import signal, time
from pathlib import Path
from stages.plumbing.files import state_folder

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a script started with &
(state_folder() / "new").write_text(str(Path.cwd()))
(state_folder() / "new").rename(state_folder() / "kept")
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["--temp", "--queue"])
def test_what_is_finished_in_a_temporary_folder_is_kept(how: str, project: Path, tmp_path: Path) -> None:
    """Ctrl-C in `dvc exp run --temp`, and `dvc queue kill`, with a stage that keeps something and goes on."""
    folder = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    (folder / "keeps.py").write_text(KEEPS)
    write_yaml(folder / "dvc.yaml", {"stages": {"keeps": {"cmd": f"{sys.executable} keeps.py", "deps": ["keeps.py"]}}})
    commit_all(folder)
    words = ["queue", "start"]
    if how == "--queue":
        command(folder, "dvc", "exp", "run", "--queue", "--name", "queued")
    else:
        words = ["exp", "run", "--temp"]
    # The worker of the queue keeps what it gets as its output, so that is no pipe.
    quiet = subprocess.DEVNULL
    run = subprocess.Popen(["dvc", *words], cwd=folder, env=WITH_DVC, stdout=quiet, start_new_session=True)
    kept = folder / ".state/kept"
    wait_for(kept.exists)
    if how == "--queue":
        command(folder, "dvc", "queue", "kill", "queued")
    else:
        os.killpg(run.pid, signal.SIGINT)
    run.wait()
    temporary = Path(kept.read_text())
    assert temporary.is_relative_to(folder / ".dvc/tmp/exps")
    wait_for(lambda: not temporary.exists())
    assert kept.exists()
