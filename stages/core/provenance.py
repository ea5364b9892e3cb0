"""What a result depends on besides its parameters: the code, the libraries, the files that were read."""

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers


def code_hash() -> str:
    """Hex sha256 over the sources of every module of this project that is loaded: an edit makes old state stale."""
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "stages"}
    digest = hashlib.sha256()
    for name in sorted(modules):
        source = getattr(modules[name], "__file__", None)
        if source:
            digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def files_hash(manifest: dict[str, Any]) -> str:
    """Hex sha256 of the names and sha256 of the files in a stage's manifest: the identity of a model or a data set."""
    files = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def versions(device: torch.device) -> dict[str, Any]:
    """Libraries, machine and threads: sums, and so the last bits of every weight, depend on them."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
