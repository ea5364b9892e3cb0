"""Check that a revision's results come from its parameters, code and data: like `dvc status`, but for a commit.

dvc.lock records what each stage was run with. If a commit has other parameters or sources, or other score files than
the stage wrote, the report would give a wrong origin for its numbers.
"""

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from stages.plumbing.yaml import parse_yaml
from stages.report.revision import Revision

LOCK, MISSING = "dvc.lock", object()


def look_up(table: Any, key: str) -> Any:
    """The value of a dotted key (`methods.soft`) in nested tables, whose names may contain dots; MISSING if absent."""
    if not isinstance(table, dict):
        return MISSING
    if key in table:
        return table[key]
    heads = (key[:place] for place, letter in enumerate(key) if letter == "." and key[:place] in table)
    found = (look_up(table[head], key[len(head) + 1 :]) for head in heads)
    return next((value for value in found if value is not MISSING), MISSING)


def problem(revision: Revision, params: dict[str, Any]) -> str | None:
    """Why a revision's results do not come from `params` (its params.yaml) and its sources; None if they do.

    Raises:
        StageError: its dvc.lock is not YAML.
    """
    stages = _stages(revision)
    if not stages:
        return "it has scores, but no dvc.lock that records how they were made"
    return next(_differences(revision, params, stages), None)


def params_problem(revision: Revision, params: dict[str, Any], names: Collection[str]) -> str | None:
    """Which parameter some stages, by their names, were not run with; None if there is none, or no dvc.lock.

    Raises:
        StageError: its dvc.lock is not YAML.
    """
    chosen = {name: stage for name, stage in _stages(revision).items() if name in names}
    return next(_other_params(params, chosen), None)


def _stages(revision: Revision) -> dict[str, Any]:
    if revision.commit is None:  # without DVC, which takes a second to load
        path = revision.root / LOCK
        content = path.read_bytes() if path.exists() else None
    else:
        content = revision.read(LOCK)
    lock = parse_yaml(content, f"{revision.commit or 'workspace'}:{LOCK}") if content else None
    return (lock or {}).get("stages") or {}


def _other_params(params: dict[str, Any], stages: dict[str, Any]) -> Iterator[str]:
    for name, stage in stages.items():
        for key, used in stage.get("params", {}).get("params.yaml", {}).items():
            if look_up(params, key) != used:
                yield f"the stage {name} was run with a different {key} than in params.yaml"


def _differences(revision: Revision, params: dict[str, Any], stages: dict[str, Any]) -> Iterator[str]:
    made = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    md5_of = cache(revision.md5)
    for name, stage in stages.items():
        yield from _other_params(params, {name: stage})
        for file in stage.get("deps", []):
            path = file["path"]
            found = made.get(path) or md5_of(path)  # a file inside an output folder is not itself an output
            gone = found is None and path.startswith("data/")  # no longer in DVC's cache
            if not gone and found != file["md5"]:
                yield f"the stage {name} was run with a different {path}"
        for file in stage.get("outs", []):
            path = file["path"]
            if path.startswith("metrics/") and md5_of(path) not in (None, file["md5"]):
                yield f"{path} is not the file that the stage {name} wrote"
