"""The report of a small grid, with real DVC and real scores, but with random responses."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from stages.plumbing.files import write_json
from stages.report.document import build
from stages.report.results import Revision, problem
from stages.report.runs import Collection, collect
from tests.helpers_report import project_with_results, save, switch, write_results
from tests.tiny import ROOT, command, commit_all, read_yaml, tiny_project, write_yaml


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a small grid, with its report; tests must not change it."""
    project = project_with_results(tmp_path_factory.mktemp("grid") / "project", quality=0.8)
    save(project, "gpt2-soft-30", 0.3, [0.1, 0.2, 0.1], method="soft", regime=30)
    save(project, "gpt2-soft-100", 0.3, [0.1, 0.2, 0.3], regime=100)
    save(project, "gpt2-fine-tune-100", 0.5, [0.1, 0.2, 0.3, 0.0], diverged=1, method="fine-tune")
    save(project, "smollm2-soft-100", 0.3, [0.2, 0.1, 0.1], method="soft", model="smollm2", protocol="quick")
    command(project, "python", "-m", "stages.report")
    return project


@pytest.fixture
def project(grid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grid, tmp_path / "project", symlinks=True))


def test_every_experiment_has_its_scores_and_its_commit_as_dvc_has_them(grid: Path) -> None:
    text = (grid / "exported/report.md").read_text(encoding="utf-8")
    shown = json.loads(command(grid, "dvc", "exp", "show", "--json").stdout)[1:]
    experiments = [each for baseline in shown for each in baseline["experiments"]]
    assert len(experiments) == 4
    for each in experiments:
        (tip, *_) = each["revs"]
        bleu4 = tip["data"]["metrics"]["metrics/scores/test.json"]["data"]["bleu4"]
        assert f"| {each['name']} | `{tip['rev']}` |" in text
        assert f"| {bleu4:.6f} |" in text


def test_the_same_experiments_give_the_same_bytes_and_the_published_report_stays(grid: Path, tmp_path: Path) -> None:
    assert not (grid / "metrics/report.md").exists()
    command(grid, "python", "-m", "stages.report", "--out", str(tmp_path), PYTHONHASHSEED="7")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) > 4
    for file in files:
        assert (tmp_path / file).read_bytes() == (grid / "exported" / file).read_bytes(), file


def test_publishing_replaces_the_published_report(project: Path) -> None:
    command(project, "python", "-m", "stages.report", "--publish")
    assert (project / "metrics/report.md").read_bytes() == (project / "exported/report.md").read_bytes()


def test_kept_runs_make_the_same_report_in_a_clone_without_experiments(project: Path, tmp_path: Path) -> None:
    said = command(project, "python", "-m", "stages.report", "--keep").stdout
    assert said.startswith("metrics/runs: 5 runs, 0.0")
    command(project, "git", "checkout", "-q", "params.yaml")
    commit_all(project)
    command(tmp_path, "git", "clone", "-q", "project", "clone")
    command(tmp_path / "clone", "python", "-m", "stages.report", "--from", "metrics/runs")
    for name in ("report.md", "report.html"):
        assert (tmp_path / "clone/exported" / name).read_bytes() == (project / "exported" / name).read_bytes()


def test_without_the_cache_the_scores_stay_and_comparisons_are_not_tested(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    collection = collect(project)
    text = build(collection).markdown("report")
    run = next(run for run in collection.runs if run.name == "gpt2-soft-30")
    assert f"{run.scores['bleu4']:.6f}" in text
    assert "**not tested**: responses not in the cache" in text


def test_results_that_are_not_those_of_the_parameters_the_code_or_the_stage_are_left_out(project: Path) -> None:
    def reason() -> str:
        """Why the workspace is to be left out; empty if it is not."""
        return problem(Revision(project, None), read_yaml(project / "params.yaml")) or ""

    assert reason() == ""
    switch(project, seed=3)
    assert "with a different seed than in params.yaml" in reason()
    switch(project, seed=0)
    write_json(project / "metrics/scores/test.json", {"bleu4": 0.9, "pairs": 80})
    assert "metrics/scores/test.json is not the file that the stage score wrote" in reason()
    command(project, "git", "checkout", "metrics/scores/test.json")
    with (project / "stages/methods/decoding.py").open("a", encoding="utf-8") as file:
        file.write("\n# a comment\n")
    assert "was run with a different stages/methods" in reason()
    assert {each.name: each.reason for each in collect(project).absent} == {"workspace": reason()}


def test_results_of_a_stage_that_was_run_with_other_data_are_left_out(project: Path) -> None:
    switch(project, regime=10)
    write_results(project, 0.3, [0.2, 0.1, 0.1])
    command(project, "dvc", "commit", "--force", "subset", "greedy-generate", "score")
    reasons = {each.name: each.reason for each in collect(project).absent}
    assert reasons == {"workspace": "the stage train was run with a different data/subset"}


def test_whatever_a_stage_was_run_with_is_compared_with_what_there_is(project: Path) -> None:
    lock, params = (read_yaml(project / name) for name in ("dvc.lock", "params.yaml"))
    here = Revision(project, None)  # one for all, because DVC takes a second to find out what there is
    assert problem(here, params) is None
    for name, stage in lock["stages"].items():
        dep = stage["deps"][0]
        was, dep["md5"] = dep["md5"], "0" * 32
        write_yaml(project / "dvc.lock", lock)
        assert problem(here, params) == f"the stage {name} was run with a different {dep['path']}"
        dep["md5"] = was


def test_experiments_that_wait_are_listed_and_after_the_next_commit_all_are_there(project: Path) -> None:
    def names() -> list[tuple[str, str]]:
        return [(run.name, run.commit) for run in collect(project).runs if run.commit]

    before = names()
    assert len(before) == 5
    command(project, "dvc", "exp", "run", "--queue", "--name", "waits", "-S", "seed=5")
    assert [(each.name, each.state) for each in collect(project).absent if each.state == "queued"] == [
        ("waits", "queued")
    ]
    command(project, "git", "commit", "-q", "--allow-empty", "-m", "another")
    assert names() == before


def test_where_nothing_was_run_the_report_says_so(tmp_path: Path) -> None:
    collection = collect(tiny_project(tmp_path / "project"))
    assert collection == Collection((), ())
    assert "No experiment has results yet" in build(collection).markdown("report")


def test_what_draws_may_be_missing(project: Path) -> None:
    (project / "matplotlib.py").write_text("raise ModuleNotFoundError(name='matplotlib')", encoding="utf-8")
    done = command(project, "python", "-m", "stages.report", fails=True)
    assert done.stderr.splitlines()[-1].startswith("ERROR report: matplotlib: not installed; pip install ")


def test_outside_a_project_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, sys.executable, "-m", "stages.report", fails=True, PYTHONPATH=str(ROOT))
    assert done.stderr.splitlines() == ["ERROR report: params.yaml: missing; run this from the top of the project"]
