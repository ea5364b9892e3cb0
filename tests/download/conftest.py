"""A hub on loopback that this process asks, impatiently, and a tiny GPT-2 in the layouts of the hub's models."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from stages.download import fetch
from tests.download.hub import Hub, serve
from tests.tiny import POSITIONS, tiny_model, tiny_tokenizer


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
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 in the layout of the hub's: no prefix, causal masks, no output layer, hardly a tokenizer_config."""
    folder = tiny_model(tmp_path_factory.mktemp("gpt2"))
    tiny_tokenizer().backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    named = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("transformer."): each for name, each in named.items()}
    for layer in {name.split(".")[1] for name in weights if name.startswith("h.")}:
        weights[f"h.{layer}.attn.bias"] = torch.ones(POSITIONS, POSITIONS).tril()[None, None]
    assert "lm_head.weight" not in weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
