"""No test depends on what the switches of params.yaml are set to: a user sets them, and runs the tests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dvc.utils.hydra import apply_overrides

from tests.tiny import ROOT, SWITCHES, read_yaml, shipped_params

OTHERS = {
    "dataset": "dailydialog", "model": "gpt2", "method": "soft", "regime": 30, "protocol": "paper", "seed": 7,
    "drop_overlap": True,
}  # fmt: skip
READ_IT = ("tests/params", "tests/test_readme.py", "tests/test_dvc_yaml.py")  # themselves, not by shipped_params


def test_the_shipped_switches_are_those_of_the_file_or_the_user_s() -> None:
    """Every plain value on top of the file is a switch, so that a new one is not forgotten here."""
    params = read_yaml(ROOT / "params.yaml")
    assert {key for key, value in params.items() if not isinstance(value, dict)} == SWITCHES.keys() == OTHERS.keys()
    assert all(OTHERS[key] != value for key, value in SWITCHES.items())


def test_with_every_switch_set_to_another_value_the_tests_that_read_it_pass(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".git", ".venv", ".state", "cache", "tmp", "data", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=ignored, symlinks=True)
    (tmp_path / "copy/data").mkdir()
    shutil.copy(ROOT / "data/.gitignore", tmp_path / "copy/data")
    apply_overrides(tmp_path / "copy/params.yaml", [f"{key}={json.dumps(value)}" for key, value in OTHERS.items()])
    assert read_yaml(tmp_path / "copy/params.yaml") == shipped_params() | OTHERS
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *READ_IT]
    variables = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tmp_path / "copy", env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
