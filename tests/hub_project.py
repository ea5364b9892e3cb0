"""A project that downloads from the hub server, and the files of the hub's models in their real layouts, but small."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from tests.helpers_data import (
    DOWNLOAD,
    ROOT,
    environment,
    last_line,
    local_dialogues,
    local_model,
    run_module,
    shipped,
    write_params,
)
from tests.hub_server import HubServer
from tests.tiny import POSITIONS, tiny_model, tiny_tokenizer

GPT2, DIALOGPT = "openai-community/gpt2", "microsoft/DialoGPT-small"
MASK = ".attn.bias"  # GPT-2's causal masks, which its files have and no model needs any more


def gpt2_folder(folder: Path) -> Path:
    """A tiny GPT-2 in the layout of the hub's: no prefix, causal masks, no output layer, hardly a tokenizer_config."""
    tiny_model(folder)
    tiny_tokenizer().backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    weights = {
        name.removeprefix("transformer."): each for name, each in load_file(folder / "model.safetensors").items()
    }
    for layer in {name.split(".")[1] for name in weights if name.startswith("h.")}:
        weights[f"h.{layer}{MASK}"] = torch.ones(POSITIONS, POSITIONS).tril()[None, None]
    assert "lm_head.weight" not in weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each weight of `gpt2_folder`."""
    yield from ((name, each) for name, each in load_file(folder / "model.safetensors").items() if MASK not in name)


def dialogpt_files(folder: Path) -> dict[str, bytes]:
    """The files of a tiny DialoGPT in the hub's layout: float16, a prefix, an output layer, no tokenizer.json."""
    half = {f"transformer.{name}": each.half() for name, each in load_file(folder / "model.safetensors").items()}
    half["lm_head.weight"] = half["transformer.wte.weight"].clone()
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "tokenizer.json"}
    return {**files, "model.safetensors": save(half, metadata={"format": "pt"})}


class Project:
    """A folder with params.yaml in which the download stage runs as a process against a hub."""

    def __init__(self, folder: Path, hub: HubServer, weights: Path) -> None:
        self.folder, self.hub, self.params = folder, hub, shipped()
        self.params["datasets"]["local"] = local_dialogues(folder / "sources")
        self.params["models"]["local"] = local_model(weights)
        self.params |= {"dataset": "local", "model": "local"}
        impatient = folder / "impatient"
        impatient.mkdir()
        # The real waits between attempts are too long for a test.
        (impatient / "sitecustomize.py").write_text(
            "import time\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep(min(seconds, 0.01))\n"
        )
        self.variables = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "PYTHONPATH": f"{impatient}:{ROOT}",
        }

    def download(self, **variables: str) -> subprocess.CompletedProcess[str]:
        write_params(self.folder, self.params)
        return run_module("stages.download", self.folder, DOWNLOAD, **{**self.variables, **variables})

    def succeeds(self, **variables: str) -> str:
        """Run a download that must work; return what it printed."""
        done = self.download(**variables)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def fails(self, **variables: str) -> str:
        """Run a download that must fail and leave no file behind; return its error line."""
        done = self.download(**variables)
        assert done.returncode == 1, done.stderr
        assert list((self.folder / "data").rglob("*")) == []
        return last_line(done)

    def signalled(self, number: int, part: str) -> tuple[int, str]:
        """Send a download a signal once it has asked for a path with `part` in it; its exit code and its stderr."""
        write_params(self.folder, self.params)
        stage = subprocess.Popen(
            [sys.executable, "-m", "stages.download", *DOWNLOAD],
            cwd=self.folder,
            env=environment(**{**self.variables, "HF_HUB_DOWNLOAD_TIMEOUT": "250"}),
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 120
        while not any(method == "GET" and part in path for method, path in self.hub.requests):
            assert time.monotonic() < until
            assert stage.poll() is None
            time.sleep(0.02)
        stage.send_signal(number)
        _, stderr = stage.communicate(timeout=120)
        return stage.returncode, stderr

    def serve(self, name: str, repository: str, files: dict[str, bytes]) -> None:
        """Serve the files of an entry of `models` at its pinned revision, and choose it."""
        self.params["model"] = name
        self.hub.add(repository, str(self.params["models"][name]["source"].partition("@")[2]), files)
