"""A committed run: what a fresh clone knows about it, and the recipe for sharing it (stages/grid/README.md)."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.stage_runs import contents
from tests.tiny import ROOT, command
from tests.trained import save, trained_copy


def recipe() -> tuple[list[str], list[str]]:
    """The commands in stages/grid/README.md: those for the clone that shares, and those for the other."""
    text = (ROOT / "stages/grid/README.md").read_text(encoding="utf-8").partition("## Sharing runs\n")[2]
    lines = [line.partition(" #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    first = next(number for number, line in enumerate(lines) if line.startswith("git pull"))
    return lines[:first], lines[first:]


def shown(project: Path, *words: str) -> Any:
    return json.loads(command(project, "dvc", *words, "--json").stdout)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run is committed and pushed to a Git repository `origin.git`."""
    project = trained_copy(tmp_path_factory)
    command(project, "dvc", "exp", "remove", "softly")
    command(project, "git", "clone", "-q", "--bare", ".", "../origin.git")
    command(project, "git", "remote", "add", "origin", "../origin.git")
    command(project, "git", "push", "-q", "-u", "origin", "main")
    return project


def table(project: Path) -> list[dict[str, str]]:
    """The rows of `dvc exp show` except the workspace."""
    rows = csv.DictReader(command(project, "dvc", "exp", "show", "--csv").stdout.splitlines())
    return [row for row in rows if row["rev"] != "workspace"]


def test_by_the_recipe_another_clone_gets_the_same_bytes_and_experiments(published: Path, tmp_path: Path) -> None:
    fresh, before = tmp_path / "fresh", contents(published / "data")
    command(published, "git", "clone", "-q", str(published.parent / "origin.git"), str(fresh))
    for name, entry in shown(fresh, "metrics", "show")[""]["data"].items():  # before anything is pulled
        assert entry["data"] == json.loads((published / name).read_bytes())
    sharing, following = recipe()
    for line in sharing:
        if run := re.fullmatch(r"dvc exp run --name (\w+) -S method=(\w+)", line):
            save(published, *run.groups())  # as if it had been run
        else:
            command(published, "sh", "-c", line.replace("/mnt/runs", str(published.parent / "storage")))
    for line in following:
        command(fresh, "sh", "-c", line)
    assert contents(fresh / "data") == before
    repeated = command(fresh, "dvc", "repro").stdout
    assert "Running" not in repeated
    assert repeated.endswith("Data and pipelines are up to date.\n")
    assert command(fresh, "git", "status", "--short").stdout == ""
    rows = table(fresh)
    assert rows == table(published)
    assert [(row["Experiment"], row["method"]) for row in rows] == [("", "dynamic"), ("soft", "soft")]
    command(fresh, "dvc", "exp", "apply", "soft")
    assert contents(fresh / "data", fresh / "metrics") == contents(published / "data", published / "metrics")
    changed = shown(fresh, "metrics", "diff")["metrics/scores/test.json"]["bleu4"]
    assert changed["old"] > changed["new"]
