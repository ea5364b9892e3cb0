"""A workspace for the six stages on tiny sources: an undisturbed run, checks that must always hold, and damage."""

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stages.plumbing.files import MANIFEST, check_folder, write_manifest
from tests.stage_runs import COMMANDS, contents, finish
from tests.stops import tally
from tests.test_dvc_yaml import paths_of
from tests.tiny import change_params

STAGES = list(COMMANDS)
TRAINING = {"batch_size": 4, "num_train_epochs": 4, "warmup_steps": 2, "dropout": 0.1}
each_stage = pytest.mark.parametrize("stage", STAGES)


def outputs(stage: str) -> list[str]:
    """The files and folders that a stage of dvc.yaml writes."""
    return paths_of(stage, "outs", "metrics", "plots")


def new_workspace(folder: Path, project: Path, **changes: Any) -> Path:
    """Make a folder with the params.yaml of a tiny project and a few epochs of training; nothing has run yet."""
    folder.mkdir(parents=True)
    shutil.copy(project / "params.yaml", folder)
    training = {f"protocols.tiny.training.{name}": value for name, value in TRAINING.items()}
    change_params(folder, training | changes)
    return folder


def sources_of(project: Path) -> Path:
    """The folder with the corpus of a tiny project."""
    return project.with_name(f"{project.name}-sources") / "dialogues"


def with_training_file(sources: Path, content: bytes) -> dict[str, Any]:
    """Put another training file into a copy of the corpus; return the changes to params.yaml."""
    (sources / "train.txt").write_bytes(content)
    changes = {"source": f"file:{sources}", "files.train.sha256": hashlib.sha256(content).hexdigest()}
    return {f"datasets.tiny.{name}": value for name, value in changes.items()}


@dataclass(frozen=True)
class Undisturbed:
    """A workspace in which every stage ran undisturbed; per stage, its duration and its number of file events."""

    folder: Path
    results: dict[str, str]
    seconds: dict[str, float]
    file_events: dict[str, int]

    def copy(self, folder: Path) -> Path:
        """A copy with all results but without the training state."""
        shutil.copytree(self.folder, folder, symlinks=True)
        shutil.rmtree(folder / ".state")
        return folder

    def before(self, stage: str, folder: Path) -> Path:
        """A copy without the outputs of a stage."""
        self.copy(folder)
        for name in outputs(stage):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return folder


def run_all(folder: Path) -> Undisturbed:
    """Run every stage once, in order."""
    seconds, file_events = {}, {}
    for stage in STAGES:
        began, log = time.monotonic(), folder.with_name(f"{folder.name}-{stage}-events")
        finish(folder, stage, partial(tally, str(log)))
        seconds[stage], file_events[stage] = time.monotonic() - began, log.stat().st_size
    return Undisturbed(folder, results(folder), seconds, file_events)


def results(folder: Path) -> dict[str, str]:
    """sha256 of every artifact that must repeat; files with temporary names and what Git ignores are left out."""
    found = contents(folder / "data", folder / "metrics")
    repeats = {name: value for name, value in found.items() if not name.startswith("metrics/cost/")}
    return {name: value for name, value in repeats.items() if "/.tmp-" not in name and "/.gitignore" not in name}


def check_whole(folder: Path) -> None:
    """Check that every output is complete: folders agree with their manifest, metrics are JSON."""
    for stage in STAGES:
        for path in (folder / name for name in outputs(stage)):
            if path.is_dir():
                check_folder(path)
            elif path.exists():
                json.loads(path.read_bytes())


def check_tidy(folder: Path) -> None:
    """Check that no temporary file is left."""
    assert not (left := [path for path in folder.rglob("*") if ".tmp" in path.name]), left


def flip(path: Path) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def seal(folder: Path, **changed: Any) -> None:
    """Make a folder's manifest agree with the files that are in it now; keep its other facts but for some."""
    facts = json.loads((folder / MANIFEST).read_bytes()) | changed
    (folder / MANIFEST).unlink()
    write_manifest(folder, **{name: value for name, value in facts.items() if name not in ("files", "sha256")})


class Harmful:
    """An object that writes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.proof,))


def stopped_line(stage: str) -> str:
    """The last line of a stage that SIGTERM or Ctrl-C stopped."""
    return f"ERROR {stage}: stopped by a signal: finished work is kept; run it again to go on"
