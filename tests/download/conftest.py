"""A hub on loopback that this process asks, impatiently, and a tiny GPT-2 as the hub has one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from stages.download import fetch
from tests.download.hub import Hub, serve
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def hub(hub_allowed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(fetch, "TIMEOUT", (0.5, 0.5))
    with serve() as hub:
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        values = {"ENDPOINT": hub.address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_DISABLE_XET": True}
        values |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DOWNLOAD_TIMEOUT": 0.5}
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        yield hub


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALOG_PROMPTING_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with all the files that the hub's has."""
    folder = tiny_model(tmp_path_factory.mktemp("gpt2"))
    tiny_tokenizer().backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    return folder
