"""The undisturbed run that all faults are compared with."""

from pathlib import Path

import pytest

from tests.faults.pipeline import Undisturbed, new_workspace, run_all
from tests.tiny import tiny_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git repository with the pipeline and tiny sources beside it; nothing has run."""
    return tiny_project(tmp_path_factory.mktemp("faults") / "project")


@pytest.fixture(scope="session")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A workspace in which every stage has run, with dynamic prompts."""
    return run_all(new_workspace(tmp_path_factory.mktemp("undisturbed") / "workspace", project))
