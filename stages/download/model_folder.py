"""Make a clean folder of a downloaded base model: config.json, safetensors, tokenizer, and no code.

Weights are read only as safetensors or GGUF, and no configuration may name code, kernels or other repositories.
"""

import json
import sys
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stages.plumbing.errors import StageError, of_the_machine, one_line
from stages.plumbing.files import to_json, write_bytes

INDEX = "model.safetensors.index.json"
CODE_KEYS = {  # make transformers fetch or run something else, or read the weights with other packages
    *("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate", "quantization_config"),
    *("transformers_weights", "fusion_config", "kernel_config", "use_kernels"),
}
SAID = "They're here, naïve ones: 1,234!\n"  # a tokenizer that was saved must read it as before
NOT_CONFIGURATION = ("tokenizer.json", "vocab.json", "added_tokens.json", INDEX)  # their keys are words or tensors


def check_model_folder(key: str, folder: Path) -> None:
    """Refuse a folder with a safetensors model that could run code or that transformers could not load.

    `key` is that of the model's files in params.yaml.

    Raises:
        StageError: the weights are not safetensors, a shard is missing, or a configuration names code.
    """
    shards = {path.name for path in folder.glob("*.safetensors")}
    for name in sorted(shards):
        try:
            with safe_open(folder / name, framework="np") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            if of_the_machine(error):
                raise
            remedy = "download it again, or use a model that is published as safetensors (a pickle can run code)"
            raise StageError(f"{key}.{name}", f"not safetensors ({one_line(str(error))})", remedy) from None
    for path in sorted(folder.glob("*.json")):
        subject = f"{key}.{path.name}"
        try:
            value = {**json.loads(path.read_bytes())}
            named = {*{**value["weight_map"]}.values()} if path.name == INDEX else set()
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            found = f"not a JSON object ({one_line(str(error))})"
            raise StageError(subject, found, "download it again, or fix it at its source") from None
        for name in sorted(map(str, named - shards)):
            raise StageError(subject, f"it names {name!r}, which is not among the files", "list each shard in files")
        if path.name not in NOT_CONFIGURATION:
            _check_configuration(subject, value)


def _check_configuration(subject: str, value: Any, at: str = "") -> None:
    if isinstance(value, list):
        for number, item in enumerate(value):
            _check_configuration(subject, item, f"{at}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            # An attention implementation with a slash is a repository of compiled kernels.
            is_kernel = key.endswith("_implementation") and "/" in json.dumps(item)
            if (key in CODE_KEYS and item) or is_kernel:
                found = "it makes transformers load code or a converter"
                remedy = "use a model that transformers itself supports: code from a model's repository is never run"
                if key == "quantization_config":
                    found, remedy = "the weights are quantized", "use the model in full or half precision"
                raise StageError(f"{subject}: {at}{key}", found, remedy)
            _check_configuration(subject, item, f"{at}{key}.")


def convert_gguf(subject: str, file: Path, folder: Path) -> None:
    """Write a GGUF model as a folder: its configuration, its weights as float32 safetensors, its tokenizer.

    `save_pretrained` refuses de-quantised models, so this writes the three one by one. It stores tied weights once.

    Raises:
        StageError: it is not a GGUF file, or transformers cannot read it, or not write its tokenizer.
    """
    import torch  # torch and transformers are slow to import, and only this function needs them
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):  # transformers' bars
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        if _rows_begin(file):
            tokenizer.bos_token = tokenizer.convert_ids_to_tokens(loaded[0].config.bos_token_id)  # Qwen2's has none
            tokenizer.add_bos_token = True  # type: ignore[misc]  # it has a setter
    except Exception as error:  # transformers' parser can raise anything on a damaged or unsupported file
        if of_the_machine(error):
            raise
        found = f"transformers cannot read this GGUF file ({one_line(str(error))[:200]})"
        raise StageError(subject, found, "use an architecture that it supports as GGUF, or safetensors") from None
    model, info = loaded
    if info["missing_keys"]:  # the library would make them up and only warn
        found = f"this GGUF file lacks {', '.join(sorted(info['missing_keys'])[:3])}"
        raise StageError(subject, found, "use the complete model, or safetensors")
    configuration = model.config.to_dict() | {"architectures": [type(model).__name__]}
    for key in ("quantization_config", "_name_or_path"):
        configuration.pop(key, None)
    write_bytes(folder / "config.json", to_json(dict(sorted(configuration.items()))).encode())
    tensors = model.state_dict()
    first = {tensor.data_ptr(): name for name, tensor in reversed(tensors.items())}  # tied weights have two names
    weights = {name: tensors[name].contiguous() for name in first.values()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # like the other files; safetensors lets only the owner read it
    # The tokenizer in a GGUF file can have another end-of-text token than the configuration: SmolLM2's <|im_start|>.
    end = model.config.eos_token_id
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end[0] if isinstance(end, list) else end)
    # Decoding must return the encoded text, spaces before commas too; transformers warns at each load if this is True.
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(folder)
    if AutoTokenizer.from_pretrained(folder)(SAID).input_ids != tokenizer(SAID).input_ids:
        raise StageError(subject, "its tokenizer is another one once it is saved", "use the model's safetensors")


def _rows_begin(file: Path) -> bool:
    """Whether rows begin with the beginning-of-text token: transformers does not look.

    Files that do not say so are read as llama.cpp reads them, as far as Llama's are concerned.
    """
    from gguf import GGUFReader

    names, fields = ("add_bos_token", "model", "pre"), GGUFReader(file).fields
    own = {name: fields[key].contents() for name in names if (key := f"tokenizer.ggml.{name}") in fields}
    return bool(own.get("add_bos_token", own["model"] == "llama" or own.get("pre") == "llama-bpe"))
