"""The rules of the folder tree: which folder may import which, and what a `__main__.py` is for."""

import ast
from graphlib import TopologicalSorter

import pytest

from tests.test_dvc_yaml import STAGES, local_imports, rooms, stage_folder
from tests.tiny import ROOT

STAGE_FOLDERS = {stage_folder(name) for name in STAGES}
BY_HAND = {  # run by hand, over many runs: what each may import besides the shared rooms
    "stages/grid": set(),
    "stages/report": {"stages/grid", "stages/score"},
    "stages/export": {"stages/report"},
    "stages/chat": {"stages/report", "stages/score"},
    "stages/bench": {"stages/train"},
}
# From the top down: each of these imports only from those after it.
SHARED = (
    "stages/methods", "stages/language_model", "stages/overlap.py", "stages/bootstrap.py", "stages/similarity",
    "stages/records.py",
    "stages/params", "stages/plumbing",
)  # fmt: skip
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py"))


def room(path: str) -> str:
    (found,) = rooms({path})
    return found


def test_every_folder_is_a_stage_a_command_or_a_shared_room() -> None:
    found = {room(path) for path in FILES} - {"stages/__init__.py"}
    assert found == STAGE_FOLDERS | BY_HAND.keys() | set(SHARED)


@pytest.mark.parametrize("path", FILES)
def test_imports_go_down_and_never_sideways(path: str) -> None:
    here = room(path)
    others = rooms(local_imports(path)) - {here, "stages/__init__.py"}
    if here in SHARED:
        assert others <= set(SHARED[SHARED.index(here) + 1 :])
    else:
        assert others <= set(SHARED) | BY_HAND.get(here, set())


def test_no_file_imports_itself_by_a_detour() -> None:
    TopologicalSorter({path: local_imports(path) & set(FILES) for path in FILES}).prepare()  # names the circle


def test_what_one_stage_uses_lies_in_its_folder() -> None:
    """A file of a shared folder is used from more than one place; otherwise it belongs to its only user."""
    users: dict[str, set[str]] = {path: set() for path in FILES}
    for path in FILES:
        for other in local_imports(path):
            users[other].add(room(path))
    for path in FILES:
        if room(path) in SHARED and not path.endswith("__init__.py"):
            assert users[path], f"{path}: nobody uses it"
            inside = room(path) in users[path]
            assert inside or len(users[path]) > 1, f"{path}: used by {users[path]} alone"


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith("__main__.py")])
def test_a_main_reads_calls_and_writes(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert named in (["main"], ["main", "arguments_of"]), named
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert (main.end_lineno or 0) - main.lineno < 50
