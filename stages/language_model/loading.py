"""A folder of the hub becomes a base model, ready for trials, or is refused before anything slow."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
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
from transformers.utils.logging import disable_progress_bar

from stages.language_model.base_model import BaseModel
from stages.language_model.cache import PreallocatedCache
from stages.language_model.cpu_attention import SHORT
from stages.language_model.cpu_linear import use_onednn
from stages.plumbing.errors import StageError, is_out_of_memory, one_line

disable_progress_bar()  # in a log, each of its steps is a line

CONFIG = "config.json"
NO_MODEL, SEE_MODELS = "no causal language model", "see `models` in params.yaml"
OTHER = "use a model of another architecture"
MOST = 300  # characters of what the library says: it lists every architecture that it knows
READ, ALL = 2, 4  # tokens of a row that are read at once, and with those that follow, one by one or together


@contextmanager
def refused(folder: Path | str, found: str, remedy: str = OTHER) -> Iterator[None]:
    """Whatever an attempt raises becomes one line, in brackets: architectures fail in ways of their own."""
    try:
        yield
    except Exception as error:
        of_the_machine = is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None)
        if of_the_machine or isinstance(error, StageError):
            raise
        raise StageError(folder, f"{found} ({one_line(str(error))[:MOST]})", remedy) from None


def empty_model(folder: Path) -> PreTrainedModel:
    """The model as its configuration has it, shapes without values: to refuse what can be before weights are read.

    Which attention and which experts compute is the library's own choice: some of those that the file could name are
    code that would be fetched from the hub.

    Raises:
        StageError: there is no configuration, or one of no model that can be trained here.
    """
    with refused(folder / CONFIG, NO_MODEL, SEE_MODELS):
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        config._attn_implementation = config._experts_implementation = None
        if not hasattr(config, "num_hidden_layers"):  # that of a text model stands inside it
            raise StageError(folder, f"{config.model_type} is no model of text alone", "use a model of text alone")
        if config.num_hidden_layers < 1:
            raise StageError(folder / CONFIG, f"num_hidden_layers is {config.num_hidden_layers}", SEE_MODELS)
        if getattr(config, "quantization_config", None):  # some need code from the hub, and none can be trained
            raise StageError(folder / CONFIG, "the weights are quantized", "use the model in full or half precision")
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return]


def set_dropout(config: PretrainedConfig, probability: float) -> None:
    """Set every dropout probability of a configuration, whatever its family calls it; whole layers stay."""
    for name, value in list(vars(config).items()):
        if type(value) in (int, float) and "drop" in name and "layer" not in name:
            setattr(config, name, probability)


def load_base_model(folder: Path, device: torch.device, dtype: torch.dtype, dropout: float = 0.0) -> BaseModel:
    """Load a model from safetensors, frozen, in evaluation mode; no code from the folder is ever run.

    dropout: the probability wherever the configuration has one; it acts only in what is trained.

    Raises:
        StageError: the folder holds no such model, or one whose parts the methods cannot take hold of.
    """
    config = empty_model(folder).config
    set_dropout(config, dropout)
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # Python waits for ever for a thread that finds no memory to start
    with refused(folder, NO_MODEL, SEE_MODELS):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True,
            trust_remote_code=False, local_files_only=True, use_safetensors=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    model, info = loaded
    for name, there, wanted in sorted(info["mismatched_keys"]):
        raise StageError(folder, f"{name} is {[*there]}, by config.json {[*wanted]}", "use the files of one model")
    if info["missing_keys"]:  # the library would make them up and only warn
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise StageError(folder, f"its weights lack {names}", "use the complete model")
    prefix = f"{model.base_model_prefix}."
    kinds = {re.sub(r"\d+", "0", name.removeprefix(prefix)) for name in model.state_dict()}
    for name in sorted(info["unexpected_keys"]):  # parts of another use are left out, but not layers of this one
        if re.sub(r"\d+", "0", name.removeprefix(prefix)) in kinds:
            raise StageError(folder, f"{name} is in no layer of config.json", "use the files of one model")
    if device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(SHORT)
    model.get_input_embeddings().padding_idx = None  # it would keep that row of E, often end-of-text, from training
    base = BaseModel(model.to(device).eval().requires_grad_(False))
    if not all(type(end) is int for end in base.ends):
        raise StageError(folder, f"eos_token_id is {base.ends}", "write numbers of tokens into its configuration")
    check_abilities(base)
    use_onednn(model)
    return base


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer; raises StageError if it cannot be read, or has no end-of-text token."""
    with refused(folder, "no tokenizer", SEE_MODELS):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise StageError(folder, "its tokenizer has no end-of-text token", "set eos_token in tokenizer_config.json")
    return tokenizer


def check_abilities(base: BaseModel) -> None:
    """Try what the methods need on a few tokens; a model may fail there, or compute something else.

    Raises:
        StageError: its output layer is not the E that its configuration says; it cannot read the word embeddings of a
            trial, or does more to them than its layers do; it cannot read on with our cache of keys and values.
    """
    kind = type(base.model).__name__
    if base.model.get_output_embeddings() is None or base.model.base_model is base.model:
        raise _other(base, "has no output layer of its own")
    # The library leaves an output layer untied whose weights differ from E, whatever the configuration says.
    head = f"{base.output_name()}.weight"
    if not base.tied and head in base.model.get_expanded_tied_weights_keys(all_submodels=True):
        found = f"its {head} differs from the word embeddings, though its configuration ties them"
        remedy = "use the complete model, or set tie_word_embeddings to false in config.json"
        raise StageError(base.folder, found, remedy)
    tokens = torch.arange(2 * ALL, device=base.device).view(2, ALL) % len(base.embeddings)
    with refused(base.folder, f"{kind} cannot read word embeddings that are not its own"):
        _check_parts(base, tokens[:1])
    with refused(base.folder, f"{kind} cannot decode with a cache of keys and values"):
        _check_cache(base, tokens)


def _other(base: BaseModel, found: str) -> StageError:
    return StageError(base.folder, f"{type(base.model).__name__} {found}", OTHER)


def _check_parts(base: BaseModel, tokens: Tensor) -> None:
    """A trial's E around the frozen layers must give what the whole model gives that holds this E: no soft-capping."""
    if getattr(base.model.config, "final_logit_softcapping", None):  # a few tokens need not come near the cap
        raise _other(base, "caps its logits")
    rows, others = tokens.unique(), base.embeddings.clone()
    others[rows] = others[rows].roll(1, dims=-1)  # as large, and something else
    with torch.no_grad():
        whole = functional_call(base.model, {base.embeddings_name(): others}, (tokens,)).logits.float()
    if not bool(torch.isfinite(whole).all()):
        raise StageError(base.folder, "its weights give logits that are not finite", "download the model again")
    embedded = base.embed(tokens, others).requires_grad_()
    hidden = base.hidden(embedded)
    (gradient,) = torch.autograd.grad(hidden.float().abs().sum(), embedded)
    output = dict(base.model.get_output_embeddings().named_parameters()) | ({"weight": others} if base.tied else {})
    with torch.no_grad():
        ours = base.logits(hidden.detach(), output).float()
    if not torch.allclose(ours, whole, rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        raise _other(base, "does more to its embeddings or logits than its outer layers do")
    if not bool(torch.isfinite(gradient).all() and gradient.abs().amax(dim=-1).all()):
        raise _other(base, "passes no gradient on to its word embeddings")


def _check_cache(base: BaseModel, tokens: Tensor) -> None:
    """Two rows, one with padding on the left, read, scored and decoded as `stages/methods` does it."""
    cache = PreallocatedCache([None] * base.model.config.num_hidden_layers, 2, READ, ALL)
    with torch.no_grad():
        words = base.embed(tokens)
        expected = base.hidden(words)
        first = torch.arange(2, device=base.device).unsqueeze(1)  # the second row begins one column later
        columns = torch.arange(ALL, device=base.device)
        mask, positions = columns >= first, (columns - first).clamp(min=0)
        rows = torch.stack([words[0], words[1].roll(1, dims=0)])
        cache.take(first.flatten())
        read = base.hidden(rows[:, :READ], positions[:, :READ], mask[:, :READ], cache)
        if not cache.is_initialized:
            raise _other(base, "has layers that keep no keys and values")
        cache.take(first.flatten(), READ)
        ahead = base.hidden(rows[:, READ:], positions[:, READ:], mask, cache)
        cache.take(None)
        steps = [(slice(end - 1, end), mask[:, :end]) for end in range(READ + 1, ALL + 1)]
        decoded = [base.hidden(rows[:, at], positions[:, at], seen, cache) for at, seen in steps]
    theirs = torch.cat([expected[0], expected[1, :-1]]).float()
    # The bound is wide where numbers are coarse: a training has a base model in float32 for a moment in any case.
    bound = 1e-3 if base.dtype is torch.float32 else 0.2
    for rest in [ahead], decoded:  # as references are read, and as answers are decoded
        both = torch.cat([read, *rest], dim=1)
        ours = torch.cat([both[0], both[1, 1:]]).float()
        if not float((ours - theirs).norm()) <= bound * float(theirs.norm()):
            raise _other(base, "computes something else with a cache of keys and values")
