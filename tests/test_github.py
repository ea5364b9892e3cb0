"""The checks before a commit and on GitHub are the ones in the Makefile."""

import re
from typing import Any

from tests.test_dvc_yaml import ROOT, read_yaml


def jobs() -> dict[str, list[str]]:
    """The commands of each job of the workflow."""
    found: dict[str, Any] = read_yaml(".github/workflows/test.yml")["jobs"]
    return {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in found.items()}


def recipe(target: str) -> list[str]:
    """The commands of a Makefile target, without those of its prerequisites."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return [line.strip().replace("$(VENV)", ".venv") for line in lines.splitlines()]


def test_the_hooks_before_a_commit_are_the_commands_of_make_lint() -> None:
    (hooks,) = (repository["hooks"] for repository in read_yaml(".pre-commit-config.yaml")["repos"])
    assert [hook["entry"] for hook in hooks] == recipe("lint")
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}


def test_linux_runs_make_test_and_macos_the_same_without_the_tests_that_need_linux() -> None:
    assert jobs()["linux"] == ["make test"]
    lint, tests = jobs()["macos"]
    command, *left_out = tests.split(" --ignore ")
    assert (lint, [command]) == ("make lint", recipe("test"))
    assert [path for path in left_out if not (ROOT / path).exists()] == []


def test_macos_leaves_out_every_test_that_forks_a_process_with_pytorch_in_it() -> None:
    """Everything in tests/stage_runs.py forks, except `contents`, which hashes files."""
    left_out = tuple(jobs()["macos"][1].split(" --ignore ")[1:])
    for path in (ROOT / "tests").rglob("test_*.py"):
        imported = re.findall(r"^from tests\.stage_runs import (.*)", path.read_text("utf-8"), re.MULTILINE)
        if {name for names in imported for name in names.split(", ")} - {"contents"}:
            assert path.relative_to(ROOT).as_posix().startswith(left_out)
