"""The undisturbed run with which all faults are compared."""

import pickle
from pathlib import Path

import pytest

from tests.faults.pipeline import Undisturbed, new_workspace, run_all
from tests.scratch import made_once
from tests.tiny import tiny_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git repository with the pipeline, and tiny sources in a folder next to it; nothing has run yet."""
    return made_once(tmp_path_factory, "faults", lambda folder: tiny_project(folder / "project")) / "project"


@pytest.fixture(scope="session")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A workspace in which every stage ran, with dynamic prompts."""

    def make(folder: Path) -> None:
        (folder / "run").write_bytes(pickle.dumps(run_all(new_workspace(folder / "workspace", project))))

    run: Undisturbed = pickle.loads((made_once(tmp_path_factory, "undisturbed", make) / "run").read_bytes())
    return run
