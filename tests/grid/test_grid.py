"""The grid with the real DVC and real kills, on a pipeline of the same shape whose stages are quick."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stages.grid.configurations import Configuration, wanted
from stages.grid.experiments import check_configurations, check_jobs, experiment_ref, finished_experiments, git
from stages.grid.pool import Pool, at_work
from stages.params.schema import load_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import lock
from tests.stage_runs import Run, wait_for
from tests.tiny import change_params, commit_all, tiny_project, write_yaml

GRID = ["--models", "tiny-gpt2", "--methods", "soft", "--regimes", "100", "50", "--jobs", "2"]
NAMES = ["tiny-gpt2-soft-100", "tiny-gpt2-soft-50"]
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

PIPELINE = {  # stage -> its parameters, deps and output
    "download": ("model", "", "data/model"),
    "pair_extract": ("dataset", "data/model", "data/pairs"),
    "subset": ("regime", "data/pairs", "data/subset"),
    "train": ("method model regime seed", "data/subset data/model", "data/train"),
    "score": ("method model regime", "data/train", "metrics/score.json"),
}


def toy_stage(name: str, params: str, deps: str, output: str) -> dict[str, Any]:
    made = {"metrics": [{output: {"cache": False}}]} if name == "score" else {"outs": [output]}
    read = {"params": params.split(), "deps": ["toy.py", *deps.split()]}
    return {"cmd": f"python toy.py {name} {output} {params}", **read, **made}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the toy pipeline, committed; nothing has run yet."""
    project = tiny_project(tmp_path_factory.mktemp("toy") / "project")
    (project / "toy.py").write_text(TOY, encoding="utf-8")
    write_yaml(project / "dvc.yaml", {"stages": {name: toy_stage(name, *each) for name, each in PIPELINE.items()}})
    commit_all(project)
    return project


@pytest.fixture
def project(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "toy.log"))
    return Path(shutil.copytree(toy, tmp_path / "project", symlinks=True))


class Finished(NamedTuple):
    """A project after a grid in which one of two experiments failed, and after the same grid again."""

    project: Path
    log: Path  # the stages that ran
    printed: list[str]  # by the first
    status: list[str]  # between the two


@pytest.fixture(scope="module")
def finished(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    project, log = Path(shutil.copytree(toy, folder / "project", symlinks=True)), folder / "toy.log"
    printed = grid(project, *GRID, code=1, TOY_LOG=str(log), TOY_FAILS="train-soft-tiny-gpt2-50-0")
    assert sorted(trees(project)) == NAMES[:1]
    status = grid(project, *GRID, "--status")
    grid(project, *GRID, TOY_LOG=str(log))
    return Finished(project, log, printed, status)


def grid(project: Path, *words: str, code: int = 0, **variables: str) -> list[str]:
    """Run a grid to its end; return the lines that it printed."""
    found, printed = Run(project, ["stages.grid", *words], variables).wait()
    assert found == code, printed
    return printed.splitlines()


def trees(project: Path) -> dict[str, str]:
    """The name of each experiment, and the hash of its whole tree."""
    finished = finished_experiments(project, git(project, "rev-parse", "HEAD"))
    return {name: git(project, "rev-parse", f"{commit}^{{tree}}") for name, commit in finished.items()}


def test_each_experiment_is_made_what_they_share_runs_once_and_the_workspace_stays(finished: Finished) -> None:
    ran = sorted(finished.log.read_text(encoding="utf-8").split())
    shared = ["download-tiny-gpt2", "pair_extract-tiny", "subset-100", "subset-50"]
    each = [f"score-soft-tiny-gpt2-{regime}" for regime in (100, 50)]
    each += [f"train-soft-tiny-gpt2-{regime}-0" for regime in (100, 50, 50)]  # one failed, and was tried again
    assert ran == sorted([*shared, *each])
    assert sorted(trees(finished.project)) == NAMES
    for name, tree in trees(finished.project).items():
        score = json.loads(git(finished.project, "show", f"{tree}:metrics/score.json"))
        assert "-".join([score["model"], score["method"], str(score["regime"])]) == name
    assert git(finished.project, "status", "--porcelain") == ""
    assert git(finished.project, "for-each-ref", "refs/stash", "refs/exps/exec", "refs/exps/stash") == ""
    assert [path.name for path in (finished.project / "data").iterdir()] == [".gitignore"]
    assert not (finished.project / ".state/grid/clones").exists()
    assert grid(finished.project, *GRID, TOY_LOG=str(finished.log)) == ["2 experiments: 2 done"]
    assert sorted(finished.log.read_text(encoding="utf-8").split()) == ran, "what is done is skipped"


def test_one_that_fails_is_named_and_shown_with_the_end_of_its_log(finished: Finished) -> None:
    assert finished.printed[-1].startswith(f"ERROR grid: 1 experiments: failed: {NAMES[1]}; ")
    assert f"failed with exit code 255: {NAMES[1]}" in finished.status
    assert "    ERROR train: every trial diverged; lower the learning rates" in finished.status
    assert finished.status[-1] == "2 experiments: 1 done, 1 failed"


def test_the_status_is_that_of_all_that_was_started(finished: Finished, tmp_path: Path) -> None:
    project = Path(shutil.copytree(finished.project, tmp_path / "later", symlinks=True))
    first = git(project, "rev-parse", "HEAD")
    change_params(project, {"seed": 1})
    commit_all(project)
    second = git(project, "rev-parse", "HEAD")
    (project / f".state/grid/logs/{second}").mkdir()
    (project / f".state/grid/logs/{second}/x.log").touch()  # started, and killed at once
    earlier = [f"from commit {first[:10]}", *(f"done: {name}" for name in NAMES), "2 experiments: 2 done"]
    later = [f"from commit {second[:10]}", "waiting: x", "1 experiments: 1 waiting"]
    assert grid(project, "--status") == [*earlier, *later]


def test_a_killed_grid_goes_on_to_its_end(finished: Finished, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, words = NAMES[1], ["--models", "tiny-gpt2", "--methods", "soft", "--regimes", "50"]
    log = project / f".state/grid/logs/{git(project, 'rev-parse', 'HEAD')}/{name}.log"

    def printed_by(stage: str) -> list[str]:
        """What each attempt to run a stage has printed."""
        return log.read_text(encoding="utf-8").split(f"Running stage '{stage}'")[1:] if log.exists() else []

    def grid_until(condition: Callable[[], object]) -> Run:
        run = Run(project, ["stages.grid", *words], {})
        wait_for(condition)
        return run

    run = grid_until(lambda: printed_by("subset"))  # a stage that experiments share
    run.signal(signal.SIGKILL)
    run.wait()
    monkeypatch.setenv("TOY_SECONDS", "2")  # a step: longer than what comes between
    run = grid_until(lambda: "step 1" in "".join(printed_by("train")))
    os.kill(run.pid, signal.SIGKILL)  # it alone
    run.wait()
    assert at_work(project / ".state/grid/clones") != []
    status = grid(project, "--status")
    assert status[1] == f"running: {name}"
    assert Pool(project, project / ".state", "f" * 40).standing([name])[name][0] == "waiting", "not of another commit"
    assert any(line.startswith("    step ") for line in status)  # the last lines of its log
    run = grid_until(lambda: len(printed_by("train")) == 2 and "step" in printed_by("train")[1])
    os.kill(run.pid, signal.SIGTERM)
    code, printed = run.wait()
    assert code == 143
    assert "stopping what an earlier grid left at work" in printed
    assert ["saved" in each for each in printed_by("train")] == [True, True]
    assert at_work(project / ".state/grid/clones") == []
    assert grid(project, "--status")[1].startswith("stopped: tiny")
    monkeypatch.delenv("TOY_SECONDS")
    grid(project, *words)
    assert "".join(printed_by("train")).count("step ") <= STEPS + 2, "finished steps ran again"
    assert trees(project) == {name: trees(finished.project)[name]}
    assert git(project, "status", "--porcelain") == ""


def test_two_grids_at_once_are_refused(project: Path) -> None:
    with lock(project / ".state/grid/lock"):
        *_, last = grid(project, *GRID, code=1, DIALOG_PROMPTING_LOCK_SECONDS="0")
    assert f"held by process {os.getpid()}" in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "softly"], "'softly' is not an entry of methods"),
        (["--regimes", "0"], "regime"),
        (["-S", "seed"], "-S seed: no such key, or not of the form key=value ("),
        (["-S", "model=gpt2"], "-S model=gpt2: set by the grid itself"),
    ],
)
def test_a_grid_that_cannot_run_is_refused_before_it_starts(project: Path, words: list[str], message: str) -> None:
    assert message in grid(project, "--models", "tiny-gpt2", *words, code=1)[-1]
    assert not (project / ".state/grid").exists()


def test_uncommitted_parameters_are_refused(project: Path) -> None:
    change_params(project, {"seed": 1})
    assert "ERROR grid: params.yaml: changed since the last commit; " in grid(project, *GRID, code=1)[-1]


def test_an_experiment_with_other_parameters_is_no_result(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    head = git(project, "rev-parse", "HEAD")
    wanted = Configuration("tiny-gpt2", "soft", 100)
    check_configurations(project, head, [wanted])
    git(project, "update-ref", experiment_ref(head, wanted.name), head)
    with pytest.raises(StageError, match="it was made with another method"):
        check_configurations(project, head, [wanted])


@pytest.mark.parametrize(
    "change",
    [
        {"runtime.checkpoints": "kept"},
        {"datasets.tiny.files.references": {"source": "file:kept", "path": "r.jsonl", "sha256": "0" * 64}},
    ],
)
def test_a_relative_folder_is_refused(change: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    change_params(project, change)
    commit_all(project)
    with pytest.raises(StageError, match=r"params\.yaml: kept: relative, "):
        check_configurations(project, git(project, "rev-parse", "HEAD"), [Configuration("tiny-gpt2", "soft", 100)])


def test_names_are_readable_and_tell_settings_apart() -> None:
    for regime, settings, name in (
        (100.0, (), "gpt2-soft-100"),
        (12.5, ("protocol=paper", "seed=1"), "gpt2-soft-12.5-protocol-paper-seed-1"),
        (10, ("runtime.threads=1",), "gpt2-soft-10"),
    ):
        assert Configuration("gpt2", "soft", regime, settings).name == name
    assert Configuration("gpt2", "soft", 10, ("drop_overlap=true",)).overrides[-1] == "drop_overlap=true"
    long = tuple(f"protocols.paper.training.learning_rates.{key}=1" for key in ("low", "high", "trials") * 3)
    names = [Configuration("gpt2", "soft", 10, (*long, f"regime={end}")).name for end in (1, 2)]
    assert names[0] != names[1] and max(map(len, names)) <= 200, "a long name stays a file name"


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
    with pytest.raises(StageError, match="--jobs 2"):
        check_jobs(cuda, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # one card was chosen, for all of them
    check_jobs(cuda, 2)
