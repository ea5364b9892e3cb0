"""The tables in the README of this folder name only tests that exist."""

import re
from pathlib import Path

from tests.tiny import ROOT


def test_the_tables_of_faults_name_tests_that_exist() -> None:
    here = Path(__file__).parent
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (here / "README.md").read_text(encoding="utf-8"))
    assert len(named) > 80
    for file, test in named:
        path = ROOT / file if "/" in file else here / file
        assert f"\ndef {test}(" in path.read_text(encoding="utf-8"), f"{file}::{test}"
