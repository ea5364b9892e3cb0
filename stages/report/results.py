"""The results of one experiment as folders on disk, for commands that load its model and answer with it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.grid.experiments import git, params_of
from stages.params.schema import PARAMS_FILE, Params, load_params, parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import files_hash, read_manifest
from stages.plumbing.yaml import parse_yaml
from stages.report.revision import Revision, params_problem, problem

WORKSPACE = "workspace"
MODEL, TRAINED = "data/download/model", "data/train"
UP_TO_TRAIN = ("download", "pair-extract", "subset", "train")


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
    if experiment is None:
        params, files = load_params(root / PARAMS_FILE), Revision(root, None)
        if not (root / TRAINED).exists():
            raise StageError(TRAINED, "missing, nothing was trained here yet", "run `dvc repro` first")
        raw = parse_yaml((root / PARAMS_FILE).read_bytes(), PARAMS_FILE)
        yield Results(WORKSPACE, params, raw, root / MODEL, root / TRAINED, files)
        return
    commit = commit_of(root, experiment)
    raw, revision = params_of(root, commit), Revision(root, commit)
    with TemporaryDirectory(prefix="dialog-prompting-") as scratch:
        trained, model = Path(scratch, "train"), root / MODEL
        _copy(revision, experiment, TRAINED, trained)
        if _hash_of(model) != json.loads((trained / "method.json").read_bytes())["base_model"]:
            model = Path(scratch, "model")
            _copy(revision, experiment, MODEL, model)
        here = load_params(root / PARAMS_FILE).runtime  # this machine decides how it runs
        params = parse_params({**raw, "runtime": here.model_dump()})
        yield Results(experiment, params, raw, model, trained, revision)


def commit_of(root: Path, experiment: str) -> str:
    """The commit (hex) of the experiment with a name; of several, the one that started from HEAD.

    Raises:
        StageError: no experiment has that name, or several have and none of them started from HEAD.
    """
    named = [each for each in _experiments(root) if each[1].endswith(f"/{experiment}")]
    head = git(root, "rev-parse", "HEAD")
    from_head = [commit for commit, ref in named if ref.split("/")[2:4] == [head[:2], head[2:]]]
    found = from_head or [commit for commit, _ in named]
    if not found:
        raise StageError(f"experiment {experiment}", "there is none of that name", "`dvc exp list -A` shows all names")
    if len(found) > 1:
        remedy = "check out the commit that it started from, or rename one with `dvc exp rename`"
        raise StageError(f"experiment {experiment}", f"{len(found)} commits have one with that name", remedy)
    return found[0]


def experiment_names(root: Path) -> list[str]:
    """The names of all experiments, whichever commit they started from, in alphabetical order."""
    return sorted({ref.split("/")[4] for _, ref in _experiments(root)})


def _experiments(root: Path) -> list[tuple[str, str]]:
    """The commit (hex) and the ref of every experiment: refs/exps/ab/cdef.../NAME."""
    lines = git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    found = [line.split(" ", 1) for line in lines if line.count("/") == 4]
    return [(commit, ref) for commit, ref in found]


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
