"""The checks before a commit and on GitHub are the Makefile's."""

import re
from typing import Any

from tests.test_dvc_yaml import ROOT, read_yaml


def test_the_hooks_before_a_commit_are_the_commands_of_make_lint() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    (hooks,) = (repository["hooks"] for repository in read_yaml(".pre-commit-config.yaml")["repos"])
    assert [hook["entry"] for hook in hooks] == recipe.replace("\t", "").replace("$(VENV)", ".venv").splitlines()
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}


def jobs() -> dict[str, list[str]]:
    """The commands of each job of the workflow."""
    found: dict[str, Any] = read_yaml(".github/workflows/test.yml")["jobs"]
    return {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in found.items()}


def test_linux_runs_make_test_and_macos_its_commands_without_the_tests_that_need_linux() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert jobs()["linux"] == ["make test"]
    lint, tests = jobs()["macos"]
    assert lint == "make lint"
    command, *left_out = tests.split(" --ignore ")
    assert set(command.replace(".venv", "$(VENV)").split()) <= set(makefile.split())
    assert [path for path in left_out if not (ROOT / path).exists()] == []


def test_what_macos_leaves_out_is_what_forks_a_process_with_pytorch_in_it() -> None:
    """tests/stage_runs.py does, and whatever imports it or what imports it."""
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")
    }
    forking = {
        path for path, source in sources.items() if re.search(r"from tests(\.| import )(stage|training)_runs", source)
    }
    left_out = tuple(path.rstrip("/") for path in jobs()["macos"][1].split(" --ignore ")[1:])
    collected = {path for path in forking if "/test_" in path}
    assert {path for path in collected if not path.startswith(left_out)} == set()
