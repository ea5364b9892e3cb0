"""The pre-trained language model: its frozen layers, its word embeddings E and its output layer, ready for trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.func import functional_call
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import Cache

from stages.language_model.cpu_attention import SHORT
from stages.language_model.cpu_linear import use_onednn
from stages.plumbing.errors import StageError, is_out_of_memory

# The names under which configurations of the hub's families keep their dropout probabilities.
DROPOUTS = (
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "dropout", "embd_pdrop", "embed_dropout",
    "hidden_dropout", "hidden_dropout_prob", "resid_dropout", "resid_pdrop",
)  # fmt: skip

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class BaseModel:
    """A causal language model of the hub, taken apart where the methods take hold of it.

    Its parameters are frozen and held once, in the precision of the arithmetic. Symbols as in
    stages/README.md: B batch, T tokens, H width, V vocabulary, E the word embeddings [V, H].
    """

    model: PreTrainedModel

    @property
    def device(self) -> torch.device:
        """Where the layers are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the layers' arithmetic."""
        return self.model.dtype

    @property
    def width(self) -> int:
        """H."""
        return self.embeddings.shape[1]

    @property
    def embeddings(self) -> Tensor:
        """E [V, H], as pre-trained, in the precision of the arithmetic."""
        weight: Tensor = self.model.get_input_embeddings().weight  # type: ignore[assignment]
        return weight

    @property
    def tied(self) -> bool:
        """Whether E is the output layer too."""
        return self.model.get_output_embeddings().weight is self.embeddings

    def embed(self, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """E[tokens]: [...] -> [..., H], by the pre-trained E or by another [V, H]."""
        module = self.model.get_input_embeddings()
        weights = {} if embeddings is None else {"weight": embeddings}
        embedded: Tensor = functional_call(module, weights, (tokens,))
        return embedded.to(self.dtype)

    def hidden(
        self,
        embedded: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        weights: Weights | None = None,
    ) -> Tensor:
        """The Transformer: embedded [B, T, H] -> last hidden states [B, T, H], after the final normalisation.

        positions and mask [B, T (with what the cache holds)]: None stands for rows that begin at position 0 and have
        no padding on the left. weights: parameters of the whole model (their names there) in place of its own.
        """
        body = self.model.base_model
        arguments = {
            "inputs_embeds": embedded, "position_ids": positions, "attention_mask": mask,
            "past_key_values": cache, "use_cache": cache is not None,
        }  # fmt: skip
        if weights is None:
            output = body(**arguments)
        else:
            prefix = f"{self.model.base_model_prefix}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            output = functional_call(body, own, (), arguments)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor, output: Weights | None = None) -> Tensor:
        """The output layer: [..., H] -> [..., V]; output: its parameters, `weight` and perhaps `bias`."""
        module = self.model.get_output_embeddings()
        result: Tensor = functional_call(module, dict(output), (hidden,)) if output else module(hidden)
        return result

    def output_name(self) -> str:
        """The name of the output layer in the model's parameters, `lm_head` as a rule."""
        head = self.model.get_output_embeddings()
        return next(str(name) for name, module in self.model.named_modules() if module is head)


def _check_parts(base: BaseModel, folder: Path) -> None:
    """Output layer after Transformer must be the whole model: no soft-capping, no scale between or behind them."""
    if base.model.get_output_embeddings() is None or base.model.base_model is base.model:
        raise StageError(folder, f"{type(base.model).__name__} has no output layer of its own", "use another model")
    tokens = torch.arange(4, device=base.device).unsqueeze(0)
    with torch.no_grad():
        ours = base.logits(base.hidden(base.embed(tokens))).float()
        whole = base.model(input_ids=tokens).logits.float()
    if not bool(torch.isfinite(whole).all()):
        raise StageError(folder, "its weights give logits that are not finite", "download the model again")
    if not torch.allclose(ours, whole, rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        found = f"{type(base.model).__name__} does more to its logits than its output layer"
        raise StageError(folder, found, "use a model of another architecture")


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
    base = BaseModel(model.to(device).eval().requires_grad_(False))
    _check_parts(base, folder)
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
        raise StageError("params.yaml: protocols.<protocol>.lengths", found, "lower query_tokens or response_tokens")


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
