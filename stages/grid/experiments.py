"""The experiments that DVC keeps in the project's Git repository, and what must be true before new ones start."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.grid.configurations import Configuration
from stages.params.schema import PARAMS_FILE, Runtime, load_params, parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml

DVC = (sys.executable, "-m", "dvc")  # of the environment that this runs in


def _printed(folder: Path, command: list[str], name: str, remedy: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(name, done.stderr or "failed", remedy)
    return done.stdout.rstrip("\n")


def git(folder: Path, *words: str) -> str:
    """What a Git command prints; it raises StageError with Git's message."""
    return _printed(folder, ["git", *words], f"git {words[0]}", "repair the repository")


def dvc(folder: Path, *words: str) -> str:
    """What a DVC command prints on stdout; it raises StageError with DVC's message."""
    return _printed(folder, [*DVC, *words], f"dvc {words[0]}", "repair the project's .dvc folder")


def experiment_ref(baseline: str, name: str) -> str:
    """Where DVC keeps an experiment that started from the commit `baseline`."""
    return f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"


def finished_experiments(root: Path, baseline: str) -> dict[str, str]:
    """The experiments that started from `baseline`: name -> commit."""
    found = git(root, "for-each-ref", "--format=%(objectname) %(refname:lstrip=4)", experiment_ref(baseline, ""))
    return {name: commit for commit, name in map(str.split, found.splitlines())}


def check_committed(root: Path) -> str:
    """The last commit, as hex.

    Raises:
        StageError: this is no Git repository, or what experiments are made of has changed since.
    """
    changed = git(root, "status", "--porcelain", "--", "stages", "dvc.yaml", str(PARAMS_FILE), ".dvc/config")
    if changed:
        name = changed.splitlines()[0][3:]
        raise StageError(name, "changed since the last commit", "experiments start from a commit: commit it or undo it")
    return git(root, "rev-parse", "HEAD")


def check_configurations(root: Path, baseline: str, configurations: Sequence[Configuration]) -> Runtime:
    """Refuse, before anything slow, what would fail or mix results; returns how all of them are run.

    Raises:
        StageError: a setting that params.yaml does not allow; an experiment of the same name with other settings.
    """
    load_params()
    params, finished = git(root, "show", f"{baseline}:{PARAMS_FILE}"), finished_experiments(root, baseline)
    for each in configurations:
        wanted = each.applied(params)
        chosen = parse_params(wanted)
        read = str([wanted["datasets"][wanted["dataset"]], wanted["models"][wanted["model"]]])
        for place in [*re.findall("'file:([^']+)'", read), chosen.runtime.checkpoints or "/"]:
            if "://" not in place and not os.path.isabs(os.path.expanduser(place)):
                found = "relative, and experiments run in folders of their own"
                raise StageError(f"{PARAMS_FILE}: {place}", found, "write the whole path")
        if each.name in finished:
            name = f"{finished[each.name]}:{PARAMS_FILE}"
            made = parse_yaml(git(root, "show", name), name)
            other = [key for key in wanted if key != "runtime" and made.get(key) != wanted[key]]
            if other:
                remedy = f"remove it (dvc exp remove {each.name}) to make it anew"
                raise StageError(f"experiment {each.name}", f"it was made with another {', '.join(other)}", remedy)
    return chosen.runtime


def check_jobs(runtime: Runtime, jobs: int) -> None:
    """Refuse several experiments at a time if all of them would train on the first of some GPUs.

    CUDA_VISIBLE_DEVICES with a single card says that they are to share it: a small model leaves most of it idle.
    """
    gpu = runtime.device in ("cuda", "mps") or (runtime.device == "auto" and shutil.which("nvidia-smi") is not None)
    cards = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    if jobs > 1 and runtime.engine == "local" and gpu and len(cards) != 1:
        found = "with runtime.engine=local all of them would train on the same device"
        remedy = "name the card that they are to share (CUDA_VISIBLE_DEVICES=0), or add -S runtime.engine=ray or "
        raise StageError(f"--jobs {jobs}", found, f"{remedy}-S runtime.device=cpu")
