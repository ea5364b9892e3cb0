"""Make a clean folder of a downloaded base model: config.json, safetensors, tokenizer, and no code.

Weights are read only as safetensors or GGUF, and no configuration may name code, kernels or other repositories.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import to_json, write_bytes

INDEX = "model.safetensors.index.json"
CODE_KEYS = {  # make transformers fetch or run something else, or read the weights with other packages
    *("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate", "quantization_config"),
    *("transformers_weights", "fusion_config", "kernel_config", "use_kernels"),
}
NOT_CONFIGURATION = ("tokenizer.json", "vocab.json", "added_tokens.json", INDEX)  # their keys are words or tensors
PICKLE_STARTS = {b"PK\x03\x04": "a zip archive, like pickled PyTorch weights", b"\x80": "a pickle"}


def check_model_folder(key: str, folder: Path) -> None:
    """Refuse a safetensors model that could run code or that transformers could not load.

    Args:
        key: the key of the model's files in params.yaml, for errors.
        folder: the downloaded files.

    Raises:
        StageError: the weights are not safetensors, a shard is missing, or a configuration names code.
    """
    for path in sorted(folder.glob("*.safetensors")):
        check_safetensors(f"{key}.{path.name}", path)
    for path in sorted(folder.glob("*.json")):
        subject = f"{key}.{path.name}"
        value = _read_json(subject, path)
        if path.name == INDEX:
            _check_index(subject, path, value)
        elif path.name not in NOT_CONFIGURATION:
            _check_configuration(subject, value)


def check_safetensors(subject: str, path: Path) -> None:
    """Refuse a file of weights that is not safetensors, whatever its name.

    Raises:
        StageError: it is a pickle, a web page, truncated, ...
    """
    try:
        with safe_open(path, framework="np") as opened:
            opened.keys()
        return
    except (SafetensorError, OSError) as error:
        problem = one_line(str(error))
    # Only now: safetensors begins with a length, and its first byte can be that of a pickle too.
    with path.open("rb") as file:
        start = file.read(4)
    for magic, what in PICKLE_STARTS.items():
        if start.startswith(magic):
            remedy = "use a model that is published as safetensors: loading a pickle can run code"
            raise StageError(subject, f"not safetensors but {what}", remedy)
    raise StageError(subject, f"not safetensors ({problem})", "download it again")


def _read_json(subject: str, path: Path) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StageError(subject, f"not JSON ({error})", "download it again, or fix it at its source") from None
    if not isinstance(value, dict):
        raise StageError(subject, "not a JSON object", "download it again, or fix it at its source")
    return value


def _check_index(subject: str, path: Path, index: dict[str, Any]) -> None:
    names = index.get("weight_map")
    if not isinstance(names, dict):
        raise StageError(subject, "no weight_map", "fix it at its source")
    for name in sorted({str(name) for name in names.values()}):
        if "/" in name or not name.endswith(".safetensors") or not (path.parent / name).is_file():
            raise StageError(subject, f"it names {name!r}, which is not among the files", "list each shard in files")


def _check_configuration(subject: str, value: Any, at: str = "") -> None:
    if isinstance(value, list):
        for number, item in enumerate(value):
            _check_configuration(subject, item, f"{at}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            # An attention implementation with a slash is a repository of compiled kernels.
            is_kernel = key.endswith("_implementation") and "/" in json.dumps(item)
            if (key in CODE_KEYS and item) or is_kernel:
                remedy = "use a model that transformers itself supports: code from a model's repository is never run"
                raise StageError(f"{subject}: {at}{key}", "it makes transformers load code or a converter", remedy)
            _check_configuration(subject, item, f"{at}{key}.")


def convert_gguf(subject: str, file: Path, folder: Path) -> None:
    """Write a GGUF model as a folder: its configuration, its weights as float32 safetensors, its tokenizer.

    `save_pretrained` refuses de-quantised models, so this writes the three one by one. It stores tied weights once.

    Raises:
        StageError: it is not a GGUF file, or transformers cannot read it.
    """
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise StageError(subject, "not a GGUF file", "name a .gguf file")
    import torch  # torch and transformers are slow to import, and only this function needs them
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # transformers' parser can raise anything on a damaged or unsupported file
        found = f"transformers cannot read this GGUF file ({one_line(str(error))[:200]})"
        raise StageError(subject, found, "use an architecture that it supports as GGUF, or safetensors") from None
    configuration = model.config.to_dict() | {"architectures": [type(model).__name__]}
    for key in ("quantization_config", "_name_or_path"):
        configuration.pop(key, None)
    write_bytes(folder / "config.json", to_json(dict(sorted(configuration.items()))).encode())
    try:
        save_file(_each_once(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise StageError(folder / "model.safetensors", one_line(str(error)), "free some space there") from None
    (folder / "model.safetensors").chmod(0o644)  # like the other files; safetensors lets only the owner read it
    # The tokenizer in a GGUF file can have another end-of-text token than the configuration: SmolLM2's <|im_start|>.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(_first(model.config.eos_token_id))
    # Decoding must return the encoded text, spaces before commas too; transformers warns at each load if this is True.
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(folder)


def _each_once(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors without second names of the same memory (a tied output layer)."""
    owners: dict[int, str] = {}
    for name, tensor in tensors.items():
        owners.setdefault(tensor.data_ptr(), name)
    return {name: tensors[name].contiguous() for name in owners.values()}


def _first(token: int | list[int]) -> int:
    return token[0] if isinstance(token, list) else token
