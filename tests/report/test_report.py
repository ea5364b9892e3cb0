"""The report of a project with real DVC and real scores, but with random responses."""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from stages.plumbing.errors import StageError
from stages.plumbing.files import write_json
from stages.report.__main__ import main
from stages.report.document import build
from stages.report.kept import keep
from stages.report.page import to_markdown, write_report
from stages.report.results import Revision, problems
from stages.report.runs import Collection, collect
from tests.tiny import change_params, command, read_yaml, tiny_project
from tests.trained import trained_copy


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an experiment, and its report; tests must not change it."""
    project = trained_copy(tmp_path_factory)
    write_report(build(collect(project)), project / "exported")
    return project


@pytest.fixture
def project(reported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported, tmp_path / "project", symlinks=True))


def test_every_experiment_has_its_scores_and_its_commit_as_dvc_has_them(reported: Path) -> None:
    text = (reported / "exported/report.md").read_text(encoding="utf-8")
    shown = json.loads(command(reported, "dvc", "exp", "show", "--json").stdout)[1:]
    (softly,) = (each for baseline in shown for each in baseline["experiments"])
    (tip, *_) = softly["revs"]
    bleu1 = tip["data"]["metrics"]["metrics/scores/test.json"]["data"]["bleu1"]
    assert f"| {softly['name']} | `{tip['rev'][:10]}` |" in text
    assert f"| {bleu1:.3f} |" in text


def test_the_same_experiments_give_the_same_bytes_and_only_publishing_touches_what_is_published(project: Path) -> None:
    assert not (project / "metrics/report.md").exists()
    command(project, "python", "-m", "stages.report", "--publish", PYTHONHASHSEED="7")
    files = [path.relative_to(project / "exported") for path in (project / "exported").rglob("*.*")]
    assert len(files) >= 2
    for file in files:
        assert (project / "metrics" / file).read_bytes() == (project / "exported" / file).read_bytes(), file


def test_without_the_cache_the_scores_stay_and_comparisons_are_not_tested(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    collection = collect(project)
    text = to_markdown(build(collection))
    run = next(run for run in collection.runs if run.name == "softly")
    assert f"| {run.scores['bleu1']:.3f} |" in text
    assert re.search(r"<summary>Not tested, and why</summary>\n\n(- .*\n)*- .*: responses not in the cache", text)


def test_results_that_are_not_those_of_the_parameters_the_code_or_the_stage_are_left_out(project: Path) -> None:
    def reason() -> str:
        """Why the workspace is to be left out; empty if it is not."""
        return next(problems(Revision(project, None), read_yaml(project / "params.yaml")), "")

    assert reason() == ""
    change_params(project, {"seed": 3})
    assert "with a different seed than in params.yaml" in reason()
    change_params(project, {"seed": 0})
    write_json(project / "metrics/scores/test.json", {"bleu4": 0.9, "pairs": 80})
    assert "metrics/scores/test.json is not the file that the stage score wrote" in reason()
    (project / "metrics/scores/human.json").write_text("{", encoding="utf-8")
    assert [each.state for each in collect(project).absent] == ["not readable"]
    command(project, "git", "checkout", "metrics/scores")
    with (project / "stages/methods/decoding.py").open("a", encoding="utf-8") as file:
        file.write("\n# a comment\n")
    assert "was run with a different stages/methods" in reason()
    assert {each.name: each.reason for each in collect(project).absent} == {"workspace": reason()}


def test_after_the_next_commit_all_experiments_are_there(project: Path) -> None:
    def names() -> list[tuple[str, str]]:
        return [(run.name, run.commit) for run in collect(project).runs if run.commit]

    before = names()
    assert len(before) == 2
    command(project, "git", "commit", "-q", "--allow-empty", "-m", "another")
    assert names() == before


def test_where_nothing_was_run_the_report_says_so(tmp_path: Path) -> None:
    collection = collect(tiny_project(tmp_path / "project"))
    assert collection == Collection((), ())
    assert "No experiment has results yet" in to_markdown(build(collection))


def test_what_draws_may_be_missing(reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep([], tmp_path, set())
    monkeypatch.chdir(reported)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("document", "figures", "page"):
        monkeypatch.delitem(sys.modules, f"stages.report.{name}")
    with pytest.raises(StageError, match="matplotlib: not installed; pip install "):
        main(argparse.Namespace(rated=None, blind=None, keep=False, kept=tmp_path))
