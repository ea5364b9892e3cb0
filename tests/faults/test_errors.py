"""One rule for all errors: a non-zero exit code and one line; a traceback only on request."""

import os
from pathlib import Path

import pytest

from tests.faults.pipeline import Undisturbed, each_stage, results
from tests.stage_runs import COMMANDS, Run, fails


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize("words", [[], ["--unknown", "x"]])
@each_stage
def test_a_wrong_command_line_is_one_line(stage: str, words: list[str], empty: Path) -> None:
    code, printed = Run(empty, [*(COMMANDS[stage] if words else COMMANDS[stage][:1]), *words], {}).wait()
    assert code == 2
    assert printed.startswith(f"ERROR {stage}: command line: ")
    assert printed.count("\n") == 1


@each_stage
def test_outside_a_project_the_missing_file_is_named(stage: str, empty: Path) -> None:
    assert fails(empty, stage).startswith(f"ERROR {stage}: params.yaml: missing; ")


def test_a_folder_of_data_on_another_disk_is_refused_before_anything_slow(empty: Path) -> None:
    (empty / "data").symlink_to(empty.parent)
    assert fails(empty, "download").startswith(f"ERROR download: data: a link to {empty.parent}, ")


@pytest.mark.parametrize(("words", "value"), [(["--debug"], ""), ([], "1")])
def test_a_traceback_comes_before_the_line_if_asked_for(words: list[str], value: str, empty: Path) -> None:
    code, printed = Run(empty, [*COMMANDS["subset"], *words], {"DIALOG_PROMPTING_DEBUG": value}).wait()
    assert code == 1
    assert "Traceback (most recent call last):" in printed
    assert printed.splitlines()[-1].startswith("ERROR subset: params.yaml: missing; ")
    assert "Traceback" not in fails(empty, "subset", DIALOG_PROMPTING_DEBUG="0")


def full_output() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def test_a_full_disk_below_the_standard_output_is_named(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "full")
    found = "ERROR score: standard output or a file: no space left on the device; "
    assert fails(folder, "score", full_output).startswith(found)
    assert results(folder) == undisturbed.results


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("grid", "git status: fatal: not a git repository"),
        ("grid --jobs 0", "command line: argument --jobs: "),
        ("report", "params.yaml: missing; run this from the top of the project"),
        ("report --unknown", "command line: unrecognized arguments: --unknown; "),
        ("bench", "data/pair_extract: missing; run `dvc repro pair-extract`"),
        ("bench --out bench.md", "--out bench.md: not a name of a JSON file; "),
        ("bench --steps -1", "command line: argument --steps: found -1; it must be from 0 to "),
        ("bench --queries x", "command line: argument --queries: invalid whole number value: 'x'"),
    ],
)
def test_a_command_run_by_hand_with_bad_input_says_so_in_one_line(words: str, found: str, empty: Path) -> None:
    name, *others = words.split()
    code, printed = Run(empty, [f"stages.{name}", *others], {}).wait()
    assert code in (1, 2)
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith(f"ERROR {name}: {found}")
