"""The real `dvc repro` and `dvc exp run` on a dozen dialogues: scores, what DVC shows, a killed DVC, a damaged cache.

Tests share runs that are made once; a test that changes something gets a copy of the project.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from dvc.repo import Repo

from tests.faults.pipeline import STAGES, Undisturbed, check_tidy, flip, results
from tests.stage_runs import wait_for
from tests.tiny import ROOT, SWITCHES, change_params, command, commit_all, read_yaml, shipped_params, write_yaml

pytestmark = pytest.mark.timeout(600)  # the first test waits for `undisturbed` and for DVC, three times
SIX = ["bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity"]
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


def stages_run(printed: str) -> list[str]:
    return re.findall(r"^Running stage '(.+)':", printed, re.MULTILINE)


def copy(project: Path, folder: Path) -> Path:
    return Path(shutil.copytree(project, folder / "project", symlinks=True))


@pytest.fixture(scope="module")
def killed(project: Path, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A project after its first run, with the parameters of the undisturbed one, committed."""
    root = tmp_path_factory.mktemp("dvc")
    folder = copy(project, root)
    shutil.copy(undisturbed.folder / "params.yaml", folder)
    (root / "injected").mkdir()
    (root / "injected/sitecustomize.py").write_text(PAUSE_IN_THE_THIRD_SAVE)
    variables = {**WITH_DVC, "PYTHONPATH": str(root / "injected")}
    with (root / "log").open("wb") as log:
        dvc = subprocess.Popen(["dvc", "repro"], cwd=folder, env=variables, stdout=log, stderr=log)
    left = kill_when_its_stage_pauses(dvc)
    second = command(folder, "dvc", "repro")  # at once: the stage may still be running
    psutil.wait_procs(left, timeout=60)
    commit_all(folder)
    return Killed(folder, (root / "log").read_text(encoding="utf-8"), second.stdout + second.stderr)


@pytest.fixture(scope="module")
def softly(killed: Killed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project after an experiment named `softly`, with method soft and half of the dialogues."""
    project = copy(killed.project, tmp_path_factory.mktemp("softly"))
    done = command(project, "dvc", "exp", "run", "--name", "softly", "-S", "method=soft", "-S", "regime=50")
    assert stages_run(done.stdout) == STAGES[2:]
    return project


def test_if_only_dvc_dies_the_next_one_goes_on(killed: Killed, undisturbed: Undisturbed) -> None:
    assert stages_run(killed.first) == STAGES[:4]
    assert "epoch 3 of at most 4, learning rate 0.001" in killed.first
    assert stages_run(killed.second) == STAGES[3:]
    assert "epoch 1 of at most 4, learning rate 0.001" not in killed.second
    assert results(killed.project) == undisturbed.results
    check_tidy(killed.project)


def test_the_advice_for_a_damaged_cache_helps(killed: Killed, undisturbed: Undisturbed, tmp_path: Path) -> None:
    project = copy(killed.project, tmp_path)
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
    project = copy(killed.project, tmp_path)
    way_back = "git checkout . && dvc repro"
    assert f"`{way_back}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    for wrong in ("protocols.tiny.training.batch_size=0", "method=sfot"):  # a stage refuses it, or DVC itself
        done = command(project, "dvc", "exp", "run", "-S", wrong, fails=True)
        assert wrong.split("=")[0 if "." in wrong else 1] in done.stdout + done.stderr
        command(project, "sh", "-c", way_back)
        assert results(project) == undisturbed.results
    assert "Stage 'train' didn't change" in command(project, "dvc", "repro").stdout


def to_rerun(project: Path) -> set[str]:
    """The stages that `dvc status` names."""
    with Repo(str(project)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}  # behind the path of dvc.yaml


def test_a_run_and_an_experiment_are_scored_and_leave_nothing_to_do(killed: Killed, softly: Path) -> None:
    for project in (killed.project, softly):
        scores = json.loads((project / "metrics/scores.json").read_bytes())
        assert list(scores)[:6] == SIX
        assert scores["subset"]["test"]["pairs"] == scores["pairs"] > 0
        assert scores["unended"] == round(scores["generation"]["unended_responses"] / scores["pairs"], 6)
        assert to_rerun(project) == set()


def test_the_way_back_comes_from_the_cache(killed: Killed, softly: Path, tmp_path: Path) -> None:
    project = copy(softly, tmp_path)
    assert stages_run(command(project, "dvc", "exp", "run", "-S", "method=dynamic", "-S", "regime=100").stdout) == []
    for name in ("scores.json", "curves.json", "scores/test.json", "train.json"):
        assert (project / "metrics" / name).read_bytes() == (killed.project / "metrics" / name).read_bytes()
        assert (project / "metrics" / name).read_bytes() != (softly / "metrics" / name).read_bytes()


def test_new_entries_rerun_nothing_and_a_corpus_s_format_downloads_nothing(killed: Killed, tmp_path: Path) -> None:
    project = copy(killed.project, tmp_path)
    params = read_yaml(project / "params.yaml")
    for table in ("datasets", "models", "methods", "protocols"):
        params[table]["another"] = next(iter(params[table].values()))
    change_params(project, {**params, "runtime": {**params["runtime"], "generation_batch_size": 3}})
    assert to_rerun(project) == set()
    params["datasets"][params["dataset"]] |= {"format": "jsonl", "license": "MIT", "messages": "one"}
    change_params(project, params)
    assert to_rerun(project) == {"pair-extract"}


def test_what_dvc_shows_of_the_test_pairs_fits_a_terminal(softly: Path) -> None:
    shown = json.loads(command(softly, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    told = {*shown["metrics/scores/test.json"]["data"]}
    assert told | {*SIX[:4]} == {*SIX, "relevance", "loss", "pairs"}  # BLEU as far as n-grams match
    widest = max(map(len, command(softly, "dvc", "metrics", "show").stdout.splitlines()))
    assert widest <= 120, "dvc metrics show does not fit a terminal"


def test_the_readme_has_a_command_that_shows_the_switches_and_the_scores_that_count(softly: Path) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shell = next(line.partition("  #")[0].strip() for line in lines if line.startswith("    dvc exp show "))
    shown = command(softly, "sh", "-c", f"{shell} --csv").stdout
    columns = csv.DictReader(shown.splitlines()).fieldnames or []
    scores = [f"metrics/scores/test.json:{key}" for key in ("novelty", "diversity", "relevance", "loss")]
    assert columns == ["Experiment", "rev", "typ", "Created", "parent", *scores, *SWITCHES]


def test_plots_of_two_revisions_are_drawn_with_the_templates_of_the_project(softly: Path) -> None:
    page = Path(command(softly, "dvc", "plots", "diff", "HEAD", "softly").stdout.strip().removeprefix("file://"))
    html = page.read_text(encoding="utf-8")
    specs = [json.JSONDecoder().raw_decode(html, found.end())[0] for found in re.finditer(r"var spec = ", html)]
    by_title = {spec["title"]["text"]: spec for spec in specs}
    assert set(by_title) == {"validation", "validation loss", "training loss", "learning rates"}
    for spec in specs:
        assert "DVC_METRIC" not in json.dumps(spec), "an anchor of the template was not filled"
        drawn = {(row["rev"], row["trial"]) for row in spec["data"]["values"]}
        assert drawn == {("HEAD", 0), ("HEAD", 1), ("softly", 0), ("softly", 1)}
    curves = by_title["validation"]["spec"]["encoding"]
    assert (curves["detail"]["field"], curves["x"]["field"], curves["y"]["field"]) == ("trial", "epoch", "selection")
    rates = by_title["learning rates"]
    assert rates["encoding"]["x"]["scale"]["type"] == "log"
    assert rates["transform"][0] == {"filter": "datum['learning_rate'] > 0"}, "zero-shot's 0 has no place there"


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
    folder = copy(project, tmp_path)
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
