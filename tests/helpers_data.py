"""Helpers for the tests of the data stages: the repository's params.yaml, entries of it, archives, sha256."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.plumbing.files import sha256_of
from tests.tiny import tiny_dialogues, write_jsonl


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zip_of(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def local_dialogues(folder: Path) -> dict[str, Any]:
    """Write a dozen dialogues into a folder; return the entry of `datasets` for them."""
    path = write_jsonl(folder / "all.jsonl", tiny_dialogues(12))
    files = {"all": {"path": path.name, "sha256": sha256_of(path)}}
    split = {"validation": 2, "test": 2, "seed": 0}
    return {"format": "jsonl", "source": f"file:{folder}", "files": files, "split": split}


def local_model(folder: Path) -> dict[str, Any]:
    """An entry of `models` for the files in a folder."""
    files = {path.name: {"sha256": sha256_of(path)} for path in sorted(folder.iterdir())}
    prompt_template = {"separator": "<end-of-text>", "end": "<end-of-text>"}
    return {"format": "safetensors", "source": f"file:{folder}", "files": files, "prompt_template": prompt_template}
