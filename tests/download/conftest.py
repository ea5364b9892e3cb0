"""A hub on loopback, and a project that downloads from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_project import Project, gpt2_folder
from tests.hub_server import HubServer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with all files that the entries of params.yaml name."""
    return gpt2_folder(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, hub: HubServer, weights: Path) -> Project:
    return Project(tmp_path, hub, weights)
