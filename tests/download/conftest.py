"""A hub on loopback, for downloads in this process and in another one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from stages.download import fetch
from tests.hub_project import Project, gpt2_folder
from tests.hub_server import HubServer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with all files that the entries of params.yaml name."""
    return gpt2_folder(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def hub(hub_allowed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub; this process asks it, impatiently, and keeps what it downloads in tmp_path."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DIALOG_PROMPTING_STATE", str(tmp_path / "state"))
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(fetch, "TIMEOUT", (0.5, 0.5))
    with HubServer() as server:
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        values = {"ENDPOINT": server.address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_DISABLE_XET": True}
        values |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DOWNLOAD_TIMEOUT": 0.5}
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        yield server


@pytest.fixture
def project(tmp_path: Path, hub: HubServer, weights: Path) -> Project:
    return Project(tmp_path, hub, weights)
