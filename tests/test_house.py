"""The rules of the folder tree: which folder may import which, and what a `__main__.py` is for."""

import ast
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.order import LONGEST
from tests.test_dvc_yaml import ROOT, STAGES, local_imports, rooms, stage_folder

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


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """The chains of imports that lead from a file back to itself, found depth first."""
    done: set[str] = set()

    def visit(path: list[str]) -> Iterator[list[str]]:
        for other in sorted(graph[path[-1]]):
            if other in path:
                yield [*path[path.index(other) :], other]
            elif other not in done:
                yield from visit([*path, other])
        done.add(path[-1])

    for start in sorted(graph):
        if start not in done:
            yield from visit([start])


def test_no_file_imports_itself_by_a_detour() -> None:
    found = list(circles({path: local_imports(path) & set(FILES) for path in FILES}))
    assert not found, " -> ".join(found[0])


def test_a_circle_would_be_found() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == [["b", "c", "b"]]


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
    """A `__main__.py` has only `main` and its command line; logic has its own module."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert named in (["main"], ["main", "arguments_of"]), named
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert (main.end_lineno or 0) - main.lineno < 50


def test_the_tests_that_are_put_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


def test_files_are_short_enough_to_read_in_one_go() -> None:
    for path in FILES:
        assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 400, path


def test_the_order_of_the_shared_rooms_is_one_of_use() -> None:
    """Each shared folder is used by one above it; otherwise the order would claim something false."""
    imported = {here: set[str]() for here in SHARED}
    for path in FILES:
        for other in rooms(local_imports(path)):
            if other in imported:
                imported[other].add(room(path))
    assert all(imported.values())
    assert all(upper != lower for upper, lower in pairwise(SHARED))
