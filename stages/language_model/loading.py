"""A folder of the hub becomes a base model, ready for trials, or is refused before anything slow."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from stages.language_model.base_model import BaseModel
from stages.language_model.checks import check_abilities
from stages.language_model.cpu_attention import SHORT
from stages.language_model.cpu_linear import use_onednn
from stages.plumbing.errors import StageError, is_out_of_memory

# The names under which configurations of the hub's families keep their dropout probabilities.
DROPOUTS = (
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "dropout", "embd_pdrop", "embed_dropout",
    "hidden_dropout", "hidden_dropout_prob", "resid_dropout", "resid_pdrop",
)  # fmt: skip


def load_config(folder: Path) -> PretrainedConfig:
    """The model's configuration alone, for what can be refused before its weights are read.

    Raises:
        StageError: there is none, or of no known architecture.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StageError(folder, f"no causal language model ({error})", "see `models` in params.yaml") from None
    if not hasattr(config, "num_hidden_layers"):  # that of a text model stands inside it
        raise StageError(folder, f"{config.model_type} is no model of text alone", "use a model of text alone")
    return config


def load_base_model(folder: Path, device: torch.device, dtype: torch.dtype, dropout: float = 0.0) -> BaseModel:
    """Load a model from safetensors, frozen, in evaluation mode; no code from the folder is ever run.

    dropout: the probability wherever the configuration has one; it acts only in what is trained.

    Raises:
        StageError: the folder holds no such model, or one whose parts the methods cannot take hold of.
    """
    try:
        config = load_config(folder)
        for name in DROPOUTS:
            if isinstance(getattr(config, name, None), float):
                setattr(config, name, dropout)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise StageError(folder, f"no causal language model ({error})", "see `models` in params.yaml") from None
    model, info = loaded
    if info["missing_keys"]:  # the library would make them up and only warn
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise StageError(folder, f"its weights lack {names}", "use the complete model")
    if device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(SHORT)
    model.get_input_embeddings().padding_idx = None  # it would keep that row of E, often end-of-text, from training
    base = BaseModel(model.to(device).eval().requires_grad_(False))
    check_abilities(base, folder)
    use_onednn(model)
    return base


def check_row_length(config: PretrainedConfig, tokens: int) -> None:
    """Refuse lengths that the model has no positions for.

    Raises:
        StageError: the longest row, prompt and query and response, is longer than the model takes.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and tokens > positions:
        found = f"prompt, query and response are up to {tokens} tokens, the model takes {positions}"
        raise StageError("params.yaml: protocols.<protocol>.lengths", found, "lower max_query_tokens or max_new_tokens")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer; its end-of-text token ends queries and responses.

    Raises:
        StageError: it cannot be read, or has no end-of-text token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError) as error:
        raise StageError(folder, f"no tokenizer ({error})", "see `models` in params.yaml") from None
    if tokenizer.eos_token_id is None:
        raise StageError(folder, "its tokenizer has no end-of-text token", "set eos_token in tokenizer_config.json")
    return tokenizer
