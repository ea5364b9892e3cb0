"""The grid with the real DVC and real kills, on a pipeline of the same shape whose stages are quick."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.grid.clones import at_work
from stages.grid.configurations import Configuration, wanted
from stages.grid.experiments import check_configurations, check_jobs, experiment_ref, finished_experiments, git
from stages.params.schema import load_params
from stages.plumbing.errors import StageError
from tests.tiny import command, commit_all, read_yaml, tiny_project, write_yaml

GRID = ["--models", "tiny-gpt2", "tiny-llama", "--methods", "soft", "--regimes", "100", "50", "--jobs", "2"]
NAMES = {f"tiny-{family}-soft-{regime}" for family in ("gpt2", "llama") for regime in (50, 100)}
STEPS = 8

TOY = '''"""python toy.py STAGE OUTPUT KEY...: writes the values of some parameters, slowly if STAGE is train."""
import json, os, pathlib, signal, sys, time
import yaml

stage, output, *keys = sys.argv[1:]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
values = {key: params[key] for key in keys}
name = "-".join([stage, *map(str, values.values())])
with open(os.environ["TOY_LOG"], "a") as log:
    log.write(name + "\\n")
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved"), sys.exit(143)))
if stage == "train":
    if os.environ.get("TOY_FAILS") == name:
        sys.exit("ERROR train: every trial diverged; lower the learning rates")
    state = pathlib.Path(os.environ["DIALOG_PROMPTING_STATE"], "toy", name)
    state.parent.mkdir(parents=True, exist_ok=True)
    for step in range(int(state.read_text()) if state.exists() else 0, STEPS):
        print(f"step {step}", flush=True)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0.15")))
        state.with_suffix(".new").write_text(str(step + 1))
        state.with_suffix(".new").replace(state)
pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(output).write_text(json.dumps(values))
'''.replace("STEPS", str(STEPS))

PIPELINE: dict[str, Any] = {
    "download": {"params": ["model"], "outs": ["data/model"]},
    "pair_extract": {"params": ["dataset"], "outs": ["data/pairs"]},
    "subset": {"params": ["regime"], "deps": ["data/pairs"], "outs": ["data/subset"]},
    "train": {
        "params": ["method", "model", "regime", "seed"],
        "deps": ["data/subset", "data/model"],
        "outs": ["data/train"],
    },
    "score": {"params": ["method", "model", "regime"], "deps": ["data/train"], "metrics": ["metrics/score.json"]},
}


def toy_stage(name: str, stage: dict[str, Any]) -> dict[str, Any]:
    output = (stage.get("outs") or stage["metrics"])[0]
    made = {**stage, "cmd": " ".join(["python", "toy.py", name, output, *stage["params"]])}
    made["deps"] = ["toy.py", *stage.get("deps", [])]
    return {**made, "metrics": [{output: {"cache": False}}]} if "metrics" in stage else made


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the toy pipeline, committed; nothing has run yet."""
    project = tiny_project(tmp_path_factory.mktemp("toy") / "project")
    (project / "toy.py").write_text(TOY, encoding="utf-8")
    pipeline = {"stages": {name: toy_stage(name, stage) for name, stage in PIPELINE.items()}}
    write_yaml(project / "dvc.yaml", pipeline)
    commit_all(project)
    return project


@pytest.fixture
def project(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "toy.log"))
    return Path(shutil.copytree(toy, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="module")
def undisturbed(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after a complete grid."""
    folder = tmp_path_factory.mktemp("undisturbed")
    project = Path(shutil.copytree(toy, folder / "project", symlinks=True))
    command(project, "python", "-m", "stages.grid", *GRID, TOY_LOG=str(folder / "toy.log"))
    return project


def start(project: Path, *words: str) -> subprocess.Popen[str]:
    """Start a grid in its own process group."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["python", "-m", "stages.grid", *words],
        cwd=project,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def trees(project: Path) -> dict[str, str]:
    """The name of each experiment, and the hash of its whole tree."""
    finished = finished_experiments(project, git(project, "rev-parse", "HEAD"))
    return {name: git(project, "rev-parse", f"{commit}^{{tree}}") for name, commit in finished.items()}


def stages_in(log: Path) -> list[str]:
    return sorted(log.read_text(encoding="utf-8").split())


def wait_for(condition: Any, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_experiment_is_made_and_what_they_share_runs_once(undisturbed: Path) -> None:
    assert set(trees(undisturbed)) == NAMES
    ran = stages_in(undisturbed.parent / "toy.log")
    shared = ["download-tiny-gpt2", "download-tiny-llama", "pair_extract-tiny", "subset-100", "subset-50"]
    each = [
        f"{stage}-soft-tiny-{model}-{regime}{seed}"
        for stage, seed in (("train", "-0"), ("score", ""))
        for model in ("gpt2", "llama")
        for regime in (50, 100)
    ]
    assert ran == sorted(shared + each)
    for name in NAMES:
        score = json.loads(git(undisturbed, "show", f"{trees(undisturbed)[name]}:metrics/score.json"))
        assert "-".join([score["model"], score["method"], str(score["regime"])]) == name


def test_the_workspace_of_the_user_stays_as_it_was(undisturbed: Path) -> None:
    assert git(undisturbed, "status", "--porcelain") == ""
    assert git(undisturbed, "for-each-ref", "refs/stash", "refs/exps/exec", "refs/exps/stash") == ""
    assert [path.name for path in (undisturbed / "data").iterdir()] == [".gitignore"]
    assert not (undisturbed / ".state/grid/clones").exists()


def test_what_is_done_is_skipped_and_shown(undisturbed: Path) -> None:
    before = (undisturbed.parent / "toy.log").read_bytes()
    again = command(undisturbed, "python", "-m", "stages.grid", *GRID, TOY_LOG=str(undisturbed.parent / "toy.log"))
    assert again.stdout.strip() == "4 experiments: 4 done"
    assert (undisturbed.parent / "toy.log").read_bytes() == before
    words = [*GRID, "--status", "--methods", "soft", "dynamic"]
    *lines, last = command(undisturbed, "python", "-m", "stages.grid", *words).stdout.splitlines()
    others = {f"waiting: {name.replace('soft', 'dynamic')}" for name in NAMES}
    assert set(lines) == {f"done: {name}" for name in NAMES} | others
    assert last == "8 experiments: 4 done, 4 waiting"


def test_the_status_without_a_choice_is_that_of_all_that_was_started(
    undisturbed: Path, project: Path, tmp_path: Path
) -> None:
    assert command(project, "python", "-m", "stages.grid", "--status").stdout == ""
    project = Path(shutil.copytree(undisturbed, tmp_path / "later", symlinks=True))
    first = git(project, "rev-parse", "HEAD")
    (project / "params.yaml").write_text((project / "params.yaml").read_text("utf-8") + "\n# a comment\n", "utf-8")
    commit_all(project)
    grid = start(project, "--models", "tiny-gpt2", "--methods", "soft", "dynamic", "--regimes", "20")
    second = git(project, "rev-parse", "HEAD")
    wait_for((project / f".state/grid/logs/{second}/tiny-gpt2-dynamic-20.log").exists)
    os.killpg(grid.pid, signal.SIGKILL)
    grid.wait()
    shown = command(project, "python", "-m", "stages.grid", "--status").stdout
    for expected in (first[:10], second[:10], "waiting: tiny-gpt2-dynamic-20", *(f"done: {name}" for name in NAMES)):
        assert expected in shown
    assert "4 experiments: 4 done" in shown


def test_a_grid_killed_again_and_again_ends_equal_to_an_undisturbed_one(
    undisturbed: Path, project: Path, tmp_path: Path
) -> None:
    for seconds in (1.5, 3.0, 5.0):
        grid = start(project, *GRID)
        time.sleep(seconds)
        os.killpg(grid.pid, signal.SIGKILL)
        grid.wait()
    command(project, "python", "-m", "stages.grid", *GRID)
    assert trees(project) == trees(undisturbed)
    assert git(project, "status", "--porcelain") == ""


def test_what_is_at_work_is_stopped_by_a_stop_or_by_the_next_grid_and_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--models", "tiny-gpt2", "--methods", "soft", "--regimes", "50"]
    log = project / f".state/grid/logs/{git(project, 'rev-parse', 'HEAD')}/tiny-gpt2-soft-50.log"

    def printed_by_train() -> list[str]:
        """What each attempt to train has printed."""
        return log.read_text(encoding="utf-8").split("Running stage 'train'")[1:] if log.exists() else []

    monkeypatch.setenv("TOY_SECONDS", "2")  # a step: longer than what comes between
    grid = start(project, *words)
    wait_for(lambda: "step 1" in "".join(printed_by_train()))
    grid.kill()  # it alone
    grid.wait()
    assert at_work(project / ".state/grid/clones") != []
    status = command(project, "python", "-m", "stages.grid", *words, "--status").stdout.splitlines()
    assert status[0] == "running: tiny-gpt2-soft-50"
    assert any(line.startswith("    step ") for line in status)  # the last lines of its log
    grid = start(project, *words)
    wait_for(lambda: len(printed_by_train()) == 2 and "step" in printed_by_train()[1])
    os.kill(grid.pid, signal.SIGTERM)
    printed, _ = grid.communicate(timeout=150)
    assert grid.returncode == 143
    assert "stopping what an earlier grid left at work" in printed
    assert ["saved" in each for each in printed_by_train()] == [True, True]
    assert at_work(project / ".state/grid/clones") == []
    assert command(project, "python", "-m", "stages.grid", *words, "--status").stdout.startswith("stopped: tiny")
    monkeypatch.delenv("TOY_SECONDS")
    command(project, "python", "-m", "stages.grid", *words)
    steps = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("step ")]
    assert len(steps) <= STEPS + 2, "finished steps ran again"
    assert set(trees(project)) == {"tiny-gpt2-soft-50"}


def test_one_that_fails_is_named_and_tried_again_and_the_others_are_run(project: Path) -> None:
    """Here the others are another seed, which is an experiment of its own."""
    words = ["--models", "tiny-gpt2", "--methods", "soft", "--regimes", "50", "--seeds", "0", "7"]
    failed = command(project, "python", "-m", "stages.grid", *words, fails=True, TOY_FAILS="train-soft-tiny-gpt2-50-0")
    assert failed.stderr.splitlines()[-1].startswith("ERROR grid: 1 experiments: failed: tiny-gpt2-soft-50-seed-0; ")
    assert set(trees(project)) == {"tiny-gpt2-soft-50-seed-7"}
    status = command(project, "python", "-m", "stages.grid", *words, "--status").stdout
    assert "failed with exit code 255: tiny-gpt2-soft-50-seed-0\n" in status
    assert "    ERROR train: every trial diverged; lower the learning rates\n" in status
    assert "2 experiments: 1 done, 1 failed" in status
    command(project, "python", "-m", "stages.grid", *words)
    assert set(trees(project)) == {"tiny-gpt2-soft-50-seed-0", "tiny-gpt2-soft-50-seed-7"}
    assert len(set(trees(project).values())) == 2


def test_two_grids_at_once_are_refused(project: Path) -> None:
    first = start(project, *GRID)
    wait_for((project / ".state/grid/lock").exists)
    second = command(project, "python", "-m", "stages.grid", *GRID, fails=True, DIALOG_PROMPTING_LOCK_SECONDS="0")
    assert f"held by process {first.pid}" in second.stderr
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "softly"], "'softly' is not an entry of methods"),
        (["--regimes", "0"], "regime"),
        (["-S", "protocol=papers"], "'papers' is not an entry of protocols"),
        (["-S", "protokoll=paper"], "-S protokoll=paper: params.yaml has no such key"),
        (["-S", "seed"], "-S seed: not of the form key=value"),
        (["-S", "model=gpt2"], "-S model=gpt2: set by the grid itself"),
    ],
)
def test_a_grid_that_cannot_run_is_refused_before_it_starts(project: Path, words: list[str], message: str) -> None:
    refused = command(project, "python", "-m", "stages.grid", "--models", "tiny-gpt2", *words, fails=True)
    assert message in refused.stderr.splitlines()[-1]
    assert not (project / ".state/grid").exists()


def test_uncommitted_parameters_are_refused(project: Path) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text("utf-8") + "\n# a comment\n", "utf-8")
    refused = command(project, "python", "-m", "stages.grid", *GRID, fails=True)
    assert "ERROR grid: params.yaml: changed since the last commit; " in refused.stderr


def test_an_experiment_of_the_same_name_with_other_parameters_is_no_result(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    head = git(project, "rev-parse", "HEAD")
    wanted = Configuration("tiny-gpt2", "soft", 100)
    check_configurations(project, head, [wanted])
    git(project, "update-ref", experiment_ref(head, wanted.name), head)
    with pytest.raises(StageError, match="it was made with another method"):
        check_configurations(project, head, [wanted])


@pytest.mark.parametrize("entry", ["source", "references", "checkpoints"])
def test_a_relative_folder_is_refused(entry: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    params = read_yaml(project / "params.yaml")
    if entry == "checkpoints":
        params["runtime"]["checkpoints"] = "kept"
    elif entry == "references":
        more = {"source": "file:kept", "path": "r.jsonl", "sha256": "0" * 64}
        params["datasets"]["tiny"]["files"]["references"] = more
    else:
        params["datasets"]["tiny"]["source"] = "file:kept"
    write_yaml(project / "params.yaml", params)
    commit_all(project)
    with pytest.raises(StageError, match=r"params\.yaml: kept: relative, "):
        check_configurations(project, git(project, "rev-parse", "HEAD"), [Configuration("tiny-gpt2", "soft", 100)])


def test_names_are_readable_and_tell_settings_apart() -> None:
    assert Configuration("gpt2", "fine-tune", 100.0).name == "gpt2-fine-tune-100"
    assert (
        Configuration("gpt2", "soft", 12.5, ("protocol=paper", "seed=1")).name == "gpt2-soft-12.5-protocol-paper-seed-1"
    )
    assert Configuration("gpt2", "soft", 10, ("runtime.threads=1",)).name == "gpt2-soft-10"
    assert Configuration("gpt2", "soft", 10, ("drop_overlap=true",)).overrides[-1] == "drop_overlap=true"


def test_a_long_name_stays_a_file_name_and_tells_settings_apart() -> None:
    settings = tuple(f"protocols.paper.training.learning_rates.{key}=1" for key in ("low", "high", "trials") * 3)
    names = [Configuration("gpt2", "soft", 10, (*settings, f"regime={end}")).name for end in (1, 2)]
    assert names[0] != names[1] and max(map(len, names)) <= 200
    assert all(name.startswith("gpt2-soft-10-protocols.paper") for name in names)


def test_seeds_are_an_axis() -> None:
    def names(*seeds: int, settings: tuple[str, ...] = ()) -> list[str]:
        return [each.name for each in wanted(["gpt2"], ["soft"], [10.0], settings, seeds)]

    assert names() == ["gpt2-soft-10"]
    assert names(3, 1, 3) == ["gpt2-soft-10-seed-3", "gpt2-soft-10-seed-1"]
    assert names(1, settings=("protocol=paper",)) == ["gpt2-soft-10-protocol-paper-seed-1"]
    with pytest.raises(StageError, match="-S seed=2: set by the grid itself"):
        names(1, settings=("seed=2",))


def test_several_at_a_time_are_left_to_ray_where_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = load_params().runtime
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("stages.grid.experiments.shutil.which", lambda name: name)  # a driver that lists GPUs
    with pytest.raises(StageError, match=r"--jobs 2: with runtime\.engine=local all of them"):
        check_jobs(auto, 2)
    check_jobs(auto, 1)
    check_jobs(auto.model_copy(update={"engine": "ray"}), 2)
    check_jobs(auto.model_copy(update={"device": "cpu"}), 2)
    monkeypatch.setattr("stages.grid.experiments.shutil.which", lambda name: None)
    check_jobs(auto, 2)
    cuda = auto.model_copy(update={"device": "cuda"})
    for several in ("", "0,1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", several)
        with pytest.raises(StageError, match="--jobs 2"):
            check_jobs(cuda, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # one card was chosen, for all of them
    check_jobs(cuda, 2)
