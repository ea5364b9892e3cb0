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
    own = Path(__file__).resolve().parents[1]
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    sources = {Path(file).resolve() for file in files if file}
    digest = hashlib.sha256()
    for source in sorted(sources):
        if source.is_relative_to(own):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def files_hash(manifest: dict[str, Any]) -> str:
    """Hex sha256 of the names and sha256 of the files in a stage's manifest: the identity of a model or a data set."""
    files = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def versions(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Libraries, machine and threads: sums, and so the last bits of every weight, depend on them."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(dtype).removeprefix("torch."),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
