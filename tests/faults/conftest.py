"""The undisturbed run with which all faults are compared."""

from pathlib import Path

import pytest

from tests.faults.pipeline import Undisturbed, new_workspace, run_all
from tests.tiny import tiny_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git repository with the pipeline, and tiny sources in a folder next to it; nothing has run yet."""
    return tiny_project(tmp_path_factory.mktemp("faults") / "project")


@pytest.fixture(scope="session")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A workspace in which every stage ran, with dynamic prompts."""
    return run_all(new_workspace(tmp_path_factory.mktemp("undisturbed") / "workspace", project))
