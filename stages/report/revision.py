"""The files of one revision of the project, wherever they are, and whether they come from its own parameters and code.

dvc.lock records what each stage was run with. If a commit has other parameters or sources, or other score files than
the stage wrote, the report would give a wrong origin for its numbers: `problem` is `dvc status` for a commit.
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml
from stages.records import Dialogue, Pair, Response

Record = TypeVar("Record", Dialogue, Pair, Response)
LOCK, MISSING = "dvc.lock", object()

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem


def unavailable() -> tuple[type[Exception], ...]:
    """What DVC raises for a file that does not exist or is not in its cache."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError

    return FileNotFoundError, IsADirectoryError, DataIndexError, DvcException


class Revision:
    """The project at `root` as it was at a commit (hex), or as it is in the workspace (None)."""

    def __init__(self, root: Path, commit: str | None) -> None:
        self.root, self.commit = root, commit
        self._parsed: dict[str, Any] = {}

    @cached_property
    def _system(self) -> "DVCFileSystem":
        from dvc.api import DVCFileSystem  # takes a second to load, and a chat with the workspace does without

        return DVCFileSystem(str(self.root), rev=self.commit)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if it does not exist, or if DVC tracks it but does not have it in its cache."""
        try:
            return bytes(self._system.read_bytes(path))
        except unavailable():
            return None

    def copy(self, path: str, target: Path) -> bool:
        """Copy a folder to the new folder `target`; False if any of it is not in DVC's cache."""
        try:
            self._system.get(path, str(target), recursive=True)
        except unavailable():
            return False
        return True

    def md5(self, path: str) -> str | None:
        """The hash of a file, or of a folder (ending in `.dir`), as in dvc.lock; None as in `read`."""
        try:
            if not self._system.isdir(path):
                return _md5(self._system.read_bytes(path))
            files = {file.removeprefix(f"{path}/"): self._system.read_bytes(file) for file in self._system.find(path)}
        except unavailable():
            return None
        tree = [{"md5": _md5(content), "relpath": name} for name, content in sorted(files.items())]
        return _md5(json.dumps(tree, sort_keys=True).encode()) + ".dir"

    def json(self, path: str) -> Any:
        """The content of a JSON file, which nobody may change; None if it is not available.

        Raises:
            StageError: it is not JSON.
        """
        if path in self._parsed:
            return self._parsed[path]
        content = self.read(path)
        try:
            found = None if content is None else json.loads(content)
        except ValueError as error:
            raise self._damaged(path, error) from None
        if self.commit:  # the workspace can change
            self._parsed[path] = found
        return found

    def records(self, path: str, kind: type[Record]) -> list[Record] | None:
        """The records of a file of JSON lines; None if it is not available.

        Raises:
            StageError: a line is not such a record.
        """
        content = self.read(path)
        try:
            return None if content is None else [kind(**json.loads(line)) for line in content.splitlines()]
        except (ValueError, TypeError) as error:
            raise self._damaged(path, error) from None

    def _damaged(self, path: str, error: Exception) -> StageError:
        place = f"{self.commit[:10]}:{path}" if self.commit else path
        remedy = "remove it from DVC's cache and run its experiment again"
        return StageError(place, f"damaged ({error})", remedy)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


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


def _look_up(table: Any, key: str) -> Any:
    """The value of a dotted key (`methods.soft`) in nested tables; MISSING if there is none."""
    for part in key.split("."):
        if not isinstance(table, dict) or part not in table:
            return MISSING
        table = table[part]
    return table


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
            if _look_up(params, key) != used:
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
