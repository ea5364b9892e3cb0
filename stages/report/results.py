"""The files of one revision of the project, and whether they come from its own parameters and code.

dvc.lock records what each stage was run with. If a commit has other parameters or sources, or other score files than
the stage wrote, the report would give a wrong origin for its numbers: `problems` is `dvc status` for a commit.
`open_results` gives commands that answer with a model its folders on disk.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from stages.grid.experiments import git
from stages.params.schema import PARAMS_FILE, Params, load_params, parse_params
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import check_folder, files_hash, read_manifest
from stages.plumbing.yaml import parse_yaml
from stages.records import Record

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

Content = TypeVar("Content")
WORKSPACE = "workspace"
LOCK, MODEL, TRAINED = "dvc.lock", "data/download/model", "data/train"
UP_TO_TRAIN = ("download", "pair-extract", "subset", "train")


def look_up(table: Any, key: str) -> Any:
    """The value of a dotted key (`methods.soft`) in nested tables; None if there is none."""
    return reduce(lambda inner, name: inner.get(name) if isinstance(inner, dict) else None, key.split("."), table)


def unavailable() -> tuple[type[Exception], ...]:
    """What DVC raises for a file that does not exist, or that neither its cache has nor a remote that it can ask."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError

    return FileNotFoundError, IsADirectoryError, DataIndexError, DvcException, ImportError


@dataclass(eq=False)
class Revision:
    """The project at `root` as it was at a commit (hex), or as it is in the workspace (None)."""

    root: Path
    commit: str | None

    @cached_property
    def system(self) -> "DVCFileSystem":
        """Its files, those in DVC's cache too."""
        from dvc.api import DVCFileSystem  # takes a second to load, and a chat with the workspace does without

        return DVCFileSystem(str(self.root), rev=self.commit)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if it does not exist, or if DVC tracks it but does not have it in its cache."""
        try:
            return bytes(self.system.read_bytes(path))
        except unavailable():
            return None

    def md5(self, path: str) -> str | None:
        """The hash of a file, or of a folder (ending in `.dir`), as in dvc.lock; None as in `read`."""
        try:
            if not self.system.isdir(path):
                return _md5(self.system.read_bytes(path))
            names = self.system.find(path)
            return _folder_md5({name.removeprefix(f"{path}/"): _md5(self.system.read_bytes(name)) for name in names})
        except unavailable():
            return None

    def json(self, path: str) -> Any:
        """The content of a JSON file; None as in `read`. It raises StageError if it is not JSON."""
        return self._parsed(path, json.loads)

    def records(self, path: str, kind: type[Record]) -> list[Record] | None:
        """The records of a file of JSON lines; None as in `read`. It raises StageError if a line is not one."""
        return self._parsed(path, lambda content: [kind(**json.loads(line)) for line in content.splitlines()])

    def _parsed(self, path: str, parse: Callable[[bytes], Content]) -> Content | None:
        content = self.read(path)
        try:
            return None if content is None else parse(content)
        except (ValueError, TypeError) as error:
            place = f"{self.commit[:10]}:{path}" if self.commit else path
            remedy = "remove it from DVC's cache and run its experiment again"
            raise StageError(place, f"damaged ({error})", remedy) from None

    def yaml(self, path: str | Path) -> dict[str, Any]:
        """The content of a YAML file that Git keeps; {} without one. It raises StageError if it is not YAML."""
        if self.commit is None:  # without DVC, which takes a second to load
            file = self.root / path
            content = file.read_bytes() if file.exists() else None
        else:
            content = self.read(str(path))
        return (parse_yaml(content, f"{self.commit or WORKSPACE}:{path}") if content else None) or {}

    def stages(self) -> dict[str, Any]:
        """What dvc.lock says of each stage; {} without one."""
        return self.yaml(LOCK).get("stages") or {}


def _folder_md5(files: dict[str, str]) -> str:
    """The hash of a folder as DVC has it, from those of its files."""
    tree = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return _md5(json.dumps(tree, sort_keys=True).encode()) + ".dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _other_params(params: dict[str, Any], name: str, stage: dict[str, Any]) -> Iterator[str]:
    for key, used in stage.get("params", {}).get("params.yaml", {}).items():
        if look_up(params, key) != used:
            yield f"the stage {name} was run with a different {key} than in params.yaml"


def problems(revision: Revision, params: dict[str, Any]) -> Iterator[str]:
    """Why a revision's results do not come from `params` (its params.yaml) and its sources."""
    stages = revision.stages()
    if not stages:
        yield "it has scores, but no dvc.lock that records how they were made"
    made = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    md5_of = cache(revision.md5)
    for name, stage in stages.items():
        yield from _other_params(params, name, stage)
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
        """Raise StageError if they do not come from their own parameters, code and data; it says what differs."""
        for reason in problems(self.files, self.raw_params):
            remedy = "run `dvc repro`" if self.name == WORKSPACE else "run that experiment again"
            raise StageError(self.name, reason, remedy)

    def check_params(self) -> None:
        """Raise StageError if params.yaml no longer describes what was trained; code may have changed since."""
        stages = self.files.stages()
        for name, stage in stages.items():
            if name in UP_TO_TRAIN:
                for reason in _other_params(self.raw_params, name, stage):
                    raise StageError(self.name, reason, "run `dvc repro`, or set it back")
        recorded = {out["path"]: out["md5"] for out in stages.get("train", {}).get("outs", [])}
        if self.name == WORKSPACE and recorded:  # Git may have brought another dvc.lock
            check_folder(self.trained)
            found = {}
            for path in self.trained.iterdir():
                with path.open("rb") as file:
                    found[path.name] = hashlib.file_digest(file, "md5").hexdigest()
            if recorded[TRAINED] != _folder_md5(found):
                remedy = "run `dvc checkout`; if it was made by hand, `dvc commit`"
                raise StageError(TRAINED, f"not what {LOCK} records", remedy)


def experiments_of(root: Path) -> list[tuple[str, str, str]]:
    """The name of each experiment, its commit and the one that it started from (both hex), the newest first."""
    wanted = "--sort=refname", "--sort=-creatordate", "--format=%(objectname)/%(refname:lstrip=2)", "refs/exps/*/*/*"
    found = (line.split("/", 3) for line in git(root, "for-each-ref", *wanted).splitlines())
    return [(name, commit, first + rest) for commit, first, rest, name in found]


def commit_of(root: Path, experiment: str) -> str:
    """The commit (hex) of the experiment with a name; of several, the one that started from HEAD, or StageError."""
    found = {baseline: commit for name, commit, baseline in experiments_of(root) if name == experiment}
    if not found:
        raise StageError(f"experiment {experiment}", "there is none of that name", "`dvc exp list -A` shows all names")
    head = git(root, "rev-parse", "HEAD")
    if len(found) > 1 and head not in found:
        remedy = "check out the commit that it started from, or rename one with `dvc exp rename`"
        raise StageError(f"experiment {experiment}", f"{len(found)} commits have one with that name", remedy)
    return found.get(head) or next(iter(found.values()))


@contextmanager
def open_results(root: Path, experiment: str | None = None) -> Iterator[Results]:
    """The results of an experiment of the project at `root`, or (None) those in its workspace.

    During the block, the trained weights are copied from DVC's cache, and the base model too if the workspace has a
    different one.

    Raises:
        StageError: there is no such experiment, its trained weights are not in DVC's cache, or nothing was trained.
    """
    here = load_params(root / PARAMS_FILE, to_run=False)
    if experiment is None:
        if not (root / TRAINED).exists():
            raise StageError(TRAINED, "missing, nothing was trained here yet", "run `dvc repro` first")
        revision = Revision(root, None)
        yield Results(WORKSPACE, here, revision.yaml(PARAMS_FILE), root / MODEL, root / TRAINED, revision)
        return
    revision = Revision(root, commit_of(root, experiment))
    raw = revision.yaml(PARAMS_FILE)
    with TemporaryDirectory(prefix="dialog-prompting-") as scratch:
        trained, model = Path(scratch, "train"), root / MODEL
        try:
            params = parse_params({**raw, "runtime": here.runtime.model_dump()})  # this machine decides how it runs
        except StageError as error:
            said = f"made by another version ({error.subject}: {error.found})"
            raise StageError(f"experiment {experiment}", said, "check out its commit, or run it again") from None
        _copy(revision, experiment, TRAINED, trained)
        wanted, found = json.loads((trained / "method.json").read_bytes())["base_model"], None
        with suppress(StageError, OSError):  # there is none, or its manifest is damaged
            found = files_hash(read_manifest(model))
        if found != wanted:
            model = Path(scratch, "model")
            _copy(revision, experiment, MODEL, model)
        yield Results(experiment, params, raw, model, trained, revision)


def _copy(revision: Revision, experiment: str, path: str, target: Path) -> None:
    try:
        revision.system.get(path, str(target), recursive=True)
    except ImportError as error:
        found = f"its {path} is on a remote, and {one_line(str(error))}"
        raise StageError(f"experiment {experiment}", found, "install that, or `dvc pull` where it is") from None
    except unavailable():
        remedy = f"make it again: `dvc exp apply {experiment}` and `dvc repro`"
        raise StageError(f"experiment {experiment}", f"its {path} is not in DVC's cache", remedy) from None
