"""The tables in the README of this folder name only tests that exist, and every test of this folder."""

import ast
import re
from pathlib import Path

from tests.tiny import ROOT

IN_NO_ROW = {
    ("test_table.py", "test_the_table_of_faults_names_tests_that_exist_and_forgets_none_of_this_folder"),
    ("test_errors.py", "test_a_traceback_comes_before_the_line_if_asked_for"),
    ("test_killed.py", "test_a_signal_that_nobody_looked_at_raises_at_the_end_of_the_block"),
}
HERE = Path(__file__).parent


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_table_of_faults_names_tests_that_exist_and_forgets_none_of_this_folder() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", (HERE / "README.md").read_text(encoding="utf-8")))
    assert len(named) > 80
    for file, test in sorted(named):
        path = ROOT / file if "/" in file else HERE / file
        assert test in names_in(path), f"{file}::{test}"
    here = {(path.name, test) for path in HERE.glob("test_*.py") for test in names_in(path)}
    assert sorted(here - named) == sorted(IN_NO_ROW)
