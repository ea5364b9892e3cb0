"""The files of one revision of the project, and whether they come from its own parameters and code.

dvc.lock records what each stage was run with. If a commit has other parameters or sources, or other score files than
the stage wrote, the report would give a wrong origin for its numbers: `problem` is `dvc status` for a commit.
`open_results` gives commands that answer with a model its folders on disk.
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from stages.grid.experiments import experiment_ref, git, params_of
from stages.params.schema import PARAMS_FILE, Params, load_params, parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import files_hash, read_manifest
from stages.plumbing.yaml import parse_yaml
from stages.records import Dialogue, Pair, Response

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

Record = TypeVar("Record", Dialogue, Pair, Response)
WORKSPACE = "workspace"
LOCK, MODEL, TRAINED = "dvc.lock", "data/download/model", "data/train"
UP_TO_TRAIN = ("download", "pair-extract", "subset", "train")


def look_up(table: Any, key: str) -> Any:
    """The value of a dotted key (`methods.soft`) in nested tables; None if there is none."""
    return reduce(lambda inner, name: inner.get(name) if isinstance(inner, dict) else None, key.split("."), table)


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
        """The content of a JSON file, read once, which nobody may change; None if it is not available.

        Raises:
            StageError: it is not JSON.
        """
        if path not in self._parsed:
            content = self.read(path)
            try:
                self._parsed[path] = None if content is None else json.loads(content)
            except ValueError as error:
                raise self._damaged(path, error) from None
        return self._parsed[path]

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

    def stages(self) -> dict[str, Any]:
        """What dvc.lock says of each stage; {} without one.

        Raises:
            StageError: it is not YAML.
        """
        if self.commit is None:  # without DVC, which takes a second to load
            path = self.root / LOCK
            content = path.read_bytes() if path.exists() else None
        else:
            content = self.read(LOCK)
        lock = parse_yaml(content, f"{self.commit or WORKSPACE}:{LOCK}") if content else None
        return (lock or {}).get("stages") or {}

    def _damaged(self, path: str, error: Exception) -> StageError:
        place = f"{self.commit[:10]}:{path}" if self.commit else path
        remedy = "remove it from DVC's cache and run its experiment again"
        return StageError(place, f"damaged ({error})", remedy)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def problem(revision: Revision, params: dict[str, Any]) -> str | None:
    """Why a revision's results do not come from `params` (its params.yaml) and its sources; None if they do."""
    stages = revision.stages()
    if not stages:
        return "it has scores, but no dvc.lock that records how they were made"
    return next(_differences(revision, params, stages), None)


def params_problem(revision: Revision, params: dict[str, Any], names: Collection[str]) -> str | None:
    """Which parameter some stages, by their names, were not run with; None if there is none, or no dvc.lock."""
    chosen = {name: stage for name, stage in revision.stages().items() if name in names}
    return next(_other_params(params, chosen), None)


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


@dataclass(frozen=True)
class Results:
    """The results of an experiment, or those in the workspace."""

    name: str
    params: Params
    raw_params: dict[str, Any]  # the same, as read from params.yaml
    model: Path  # folder of the base model
    trained: Path  # folder of the stage train
    files: Revision

    def check_fresh(self) -> None:
        """Refuse results that do not come from their own parameters, code and data.

        Raises:
            StageError: they do not; the message says what differs.
        """
        if reason := problem(self.files, self.raw_params):
            remedy = "run `dvc repro`" if self.name == WORKSPACE else "run that experiment again"
            raise StageError(self.name, reason, remedy)

    def check_params(self) -> None:
        """Refuse a trained method that params.yaml no longer describes; code may have changed since.

        Raises:
            StageError: they differ; the message says where.
        """
        if reason := params_problem(self.files, self.raw_params, UP_TO_TRAIN):
            raise StageError(self.name, reason, "run `dvc repro`, or set it back")


@contextmanager
def open_results(root: Path, experiment: str | None = None) -> Iterator[Results]:
    """The results of an experiment of the project at `root`, or (None) those in its workspace.

    During the block, the trained weights are copied from DVC's cache, and the base model too if the workspace has a
    different one.

    Raises:
        StageError: there is no such experiment, its trained weights are not in DVC's cache, or nothing was trained.
    """
    here = load_params(root / PARAMS_FILE)
    if experiment is None:
        if not (root / TRAINED).exists():
            raise StageError(TRAINED, "missing, nothing was trained here yet", "run `dvc repro` first")
        raw = parse_yaml((root / PARAMS_FILE).read_bytes(), PARAMS_FILE)
        yield Results(WORKSPACE, here, raw, root / MODEL, root / TRAINED, Revision(root, None))
        return
    commit = commit_of(root, experiment)
    raw, revision = params_of(root, commit), Revision(root, commit)
    with TemporaryDirectory(prefix="dialog-prompting-") as scratch:
        trained, model = Path(scratch, "train"), root / MODEL
        _copy(revision, experiment, TRAINED, trained)
        if _hash_of(model) != json.loads((trained / "method.json").read_bytes())["base_model"]:
            model = Path(scratch, "model")
            _copy(revision, experiment, MODEL, model)
        params = parse_params({**raw, "runtime": here.runtime.model_dump()})  # this machine decides how it runs
        yield Results(experiment, params, raw, model, trained, revision)


def commit_of(root: Path, experiment: str) -> str:
    """The commit (hex) of the experiment with a name; of several, the one that started from HEAD.

    Raises:
        StageError: no experiment has that name, or several have and none of them started from HEAD.
    """
    head, found = git(root, "rev-parse", "HEAD"), list[str]()
    for pattern in (experiment_ref(head, experiment), f"refs/exps/*/*/{experiment}"):
        found = git(root, "for-each-ref", "--format=%(objectname)", pattern).split()
        if len(found) == 1:
            return found[0]
    if not found:
        raise StageError(f"experiment {experiment}", "there is none of that name", "`dvc exp list -A` shows all names")
    remedy = "check out the commit that it started from, or rename one with `dvc exp rename`"
    raise StageError(f"experiment {experiment}", f"{len(found)} commits have one with that name", remedy)


def experiment_names(root: Path) -> list[str]:
    """The names of all experiments, whichever commit they started from, in alphabetical order."""
    return sorted(set(git(root, "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/*").split()))


def _copy(revision: Revision, experiment: str, path: str, target: Path) -> None:
    if not revision.copy(path, target):
        remedy = f"make it again: `dvc exp apply {experiment}` and `dvc repro`"
        raise StageError(f"experiment {experiment}", f"its {path} is not in DVC's cache", remedy)


def _hash_of(folder: Path) -> str | None:
    """The identity of the base model in a folder; None if there is none or its manifest is damaged."""
    try:
        return files_hash(read_manifest(folder))
    except (StageError, OSError):
        return None
