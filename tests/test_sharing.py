"""A committed run: what a fresh clone knows about it, and the recipe for sharing it (stages/grid/README.md)."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers_report import project_with_results, save
from tests.tiny import ROOT, command

METRICS = ["metrics/.gitignore", "metrics/cost/.gitignore", "metrics/curves.json", "metrics/learning_rates.json"]
METRICS += [f"metrics/scores/{name}.json" for name in ("human", "retrieval", "test", "unseen")]
DATA = [
    f"data/{name}"
    for name in ("download/dialogues", "download/model", "pair_extract", "subset", "train", "greedy_generate")
]
DATA += [
    f"metrics/{name}.json" for name in ("cost/greedy_generate", "cost/train", "pairs", "scores", "subset", "train")
]


def recipe() -> tuple[list[str], list[str]]:
    """The commands in stages/grid/README.md: those for the clone that shares, and those for the other."""
    text = (ROOT / "stages/grid/README.md").read_text(encoding="utf-8").partition("## Sharing runs\n")[2]
    lines = [line.partition(" #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    first = next(number for number, line in enumerate(lines) if line.startswith("git pull"))
    return lines[:first], lines[first:]


def shown(project: Path, *words: str) -> Any:
    return json.loads(command(project, "dvc", *words, "--json").stdout)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def clone(origin: Path, folder: Path) -> Path:
    command(origin, "git", "clone", "-q", str(origin), str(folder))
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run is committed and pushed to a Git repository `origin.git`."""
    project = project_with_results(tmp_path_factory.mktemp("published") / "project")
    command(project, "git", "clone", "-q", "--bare", ".", "../origin.git")
    command(project, "git", "remote", "add", "origin", "../origin.git")
    command(project, "git", "push", "-q", "-u", "origin", "main")
    return project


@pytest.fixture(scope="module")
def fresh(published: Path) -> Path:
    """A clone in which nothing has been run or pulled."""
    return clone(published.parent / "origin.git", published.parent / "fresh")


@pytest.fixture(scope="module")
def pulled(published: Path) -> Path:
    """Another clone, after following the recipe in both, with `published` as it was then."""
    here, there = published.parent / "here", clone(published.parent / "origin.git", published.parent / "there")
    shutil.copytree(published, here, symlinks=True)
    sharing, following = recipe()
    for line in sharing:
        if run := re.fullmatch(r"dvc exp run --name (\w+) -S method=(\w+)", line):
            save(here, run[1], quality=0.3, rates=[0.2, 0.1], method=run[2])  # as if it had been run
        else:
            command(here, "sh", "-c", line.replace("/mnt/runs", str(published.parent / "storage")))
    for line in following:
        command(there, "sh", "-c", line)
    return there


def test_a_fresh_clone_prints_the_published_scores(fresh: Path, published: Path) -> None:
    scores = shown(fresh, "metrics", "show")[""]["data"]
    assert len(scores) == 4
    for name, entry in scores.items():
        assert entry["data"] == json.loads((published / name).read_bytes())
    assert [path.name for path in (fresh / "data").iterdir()] == [".gitignore"]
    assert not (fresh / ".dvc/cache").exists()
    assert command(fresh, "git", "status", "--short").stdout == ""


def test_git_has_what_is_small_and_dvc_the_rest(published: Path) -> None:
    kept = command(published, "git", "ls-files", "data", "dvc.lock", "metrics").stdout.split()
    assert kept == ["data/.gitignore", "dvc.lock", *sorted(METRICS)]


def changes(project: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What `dvc status` says about dependencies and about outputs, by path; it must say nothing else."""
    found: dict[str, dict[str, str]] = {"changed deps": {}, "changed outs": {}}
    for change in (each for stage in shown(project, "status").values() for each in stage):
        for kind, paths in change.items():
            found[kind] |= paths
    return found["changed deps"], found["changed outs"]


def test_the_status_of_a_fresh_clone_lacks_the_data_and_nothing_else(fresh: Path) -> None:
    deps, outs = changes(fresh)
    assert outs == dict.fromkeys(DATA, "not in cache")
    assert set(deps.values()) == {"deleted"}
    assert all(path.startswith(tuple(DATA)) for path in deps)


def test_the_status_tells_of_metrics_that_are_not_those_of_the_run(fresh: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(fresh, tmp_path / "project", symlinks=True))
    shown_by_dvc = [name for name in METRICS if name.endswith(".json")]
    for name in shown_by_dvc:
        (project / name).write_text("[]", encoding="utf-8")
    assert changes(project)[1] == dict.fromkeys(DATA, "not in cache") | dict.fromkeys(shown_by_dvc, "modified")


def test_the_other_clone_gets_the_same_bytes_and_has_nothing_to_run(pulled: Path, published: Path) -> None:
    assert contents(pulled / "data") == contents(published / "data")
    repeated = command(pulled, "dvc", "repro").stdout
    assert "Running" not in repeated
    assert repeated.endswith("Data and pipelines are up to date.\n")
    assert command(pulled, "git", "status", "--short").stdout == ""


def table(project: Path) -> list[dict[str, str]]:
    """The rows of `dvc exp show` except the workspace."""
    rows = csv.DictReader(command(project, "dvc", "exp", "show", "--csv").stdout.splitlines())
    return [row for row in rows if row["rev"] != "workspace"]


def test_the_other_clone_shows_the_same_experiments(pulled: Path) -> None:
    rows = table(pulled)
    assert rows == table(pulled.parent / "here")
    assert [(row["Experiment"], row["method"]) for row in rows] == [("", "dynamic"), ("soft", "soft")]


def test_an_experiment_is_applied_in_the_other_clone_and_compared_with_the_published_scores(
    pulled: Path, published: Path, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(pulled, tmp_path / "project", symlinks=True))
    command(project, "dvc", "exp", "apply", "soft")
    for folder in ("data", "metrics"):
        assert contents(project / folder) == contents(pulled.parent / "here" / folder)
    changed = shown(project, "metrics", "diff")["metrics/scores/test.json"]["bleu4"]
    assert changed["old"] == json.loads((published / "metrics/scores/test.json").read_bytes())["bleu4"] > changed["new"]
