"""The benchmark's results on disk: runs, each with its facts and its rows; a row stands in the run that measured it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.plumbing.errors import StageError

Run = dict[str, Any]  # what was true of a run: machine, model, data and so on, and its `rows` by their letters


def read_runs(path: Path) -> list[Run]:
    """The runs in a file of results; none if there is no such file.

    Raises:
        StageError: the file is something else.
    """
    try:
        runs: list[Run] = json.loads(path.read_bytes())["runs"]
        return [{**run, "rows": dict(run["rows"])} for run in runs]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        found = f"no results of this benchmark ({type(error).__name__}: {error})"
        raise StageError(path, found, "remove it, or write elsewhere with --out") from None


def sizes_before(runs: list[Run], machine: Mapping[str, Any], row: str) -> list[dict[str, Any]]:
    """The lines of a row that has one for each size, if a machine like this one measured them; else none."""
    alike = [run for run in runs if row in run["rows"] and run["machine"]["processor"] == machine["processor"]]
    return [line for run in alike for line in run["rows"][row]["sizes"]]


def with_run(runs: list[Run], new: Mapping[str, Any]) -> list[Run]:
    """The runs with a new one, whose rows take the place of older ones; a run without rows of its own is dropped."""
    older = [
        {**run, "rows": {row: found for row, found in run["rows"].items() if row not in new["rows"]}} for run in runs
    ]
    return sorted([*(run for run in older if run["rows"]), dict(new)], key=lambda run: min(run["rows"]))
