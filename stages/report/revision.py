"""The files of one revision of the project, whether they are in Git, in DVC's cache or in the workspace."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, Response

Record = TypeVar("Record", Dialogue, Pair, Response)

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
