"""A trained method on disk: safetensors with only what was trained, and a small JSON that says what it belongs to."""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stages.language_model.base_model import BaseModel
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.params.methods import MethodSettings
from stages.params.schema import Lengths
from stages.params.sources import RowFormatText, as_json
from stages.plumbing.errors import StageError
from stages.plumbing.files import to_json

WEIGHTS = "weights.safetensors"
DESCRIPTION = "method.json"


def write_trained(folder: Path, weights: Path | None, description: dict[str, Any]) -> None:
    """Copy trained weights (None for a method that trains nothing) beside their description into `folder`."""
    if weights is not None:
        shutil.copyfile(weights, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(to_json(description), encoding="utf-8")


def read_description(folder: Path, base_hash: str) -> dict[str, Any]:
    """The JSON beside a trained method's weights.

    Raises:
        StageError: it was trained on another base model.
    """
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if description["base_model"] != base_hash:
        found = f"it was trained on the base model {description['base_model'][:12]}, this one is {base_hash[:12]}"
        raise StageError(folder / DESCRIPTION, found, "run `dvc repro train`")
    return description


def check_lengths(folder: Path, description: dict[str, Any], key: str, lengths: Lengths) -> None:
    """Refuse lengths that the method was not trained with: rows of a prompt and positions of the model would lack.

    Raises:
        StageError: they are others.
    """
    now, then = lengths.model_dump(), description["lengths"]
    if now != then:
        different = next(name for name in now if now[name] != then.get(name))
        found = f"{now[different]}, but {folder} was trained with {then.get(different)}"
        raise StageError(f"params.yaml: {key}.{different}", found, "run `dvc repro train`")


def check_row_format(folder: Path, description: dict[str, Any], key: str, row_format: RowFormatText | str) -> None:
    """Refuse another row format than the one that the method was trained with.

    Raises:
        StageError: it is another.
    """
    if as_json(row_format) != description["row_format"]:
        raise StageError(key, f"{folder} was trained with another one", "run `dvc repro train`")


def read_trained(folder: Path, base: BaseModel, description: dict[str, Any]) -> tuple[Method, dict[str, Tensor]]:
    """The method and its trained tensors on the base model's device.

    Raises:
        StageError: the weights are not those of the method; the message names the first that is missing, unknown or
            of another shape.
    """
    path = folder / WEIGHTS
    try:
        settings = TypeAdapter(MethodSettings).validate_python(description["method"])
        tensors = load_file(path) if path.exists() else {}
    except (ValidationError, SafetensorError) as error:
        raise StageError(folder, f"not a trained method ({error})", "run `dvc repro train`") from None
    method = build_method(base, settings)
    expected = method.shapes()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name]:
            found = f"{name} is {'missing' if name not in tensors else 'unknown or of another shape'}"
            raise StageError(path, found, "run `dvc repro --force train`")
    return method, {name: tensor.to(base.device) for name, tensor in tensors.items()}
