"""The dynamic prompt: a small Transformer, the controller C, generates a prompt from each query (Sec. 3, Eq. 3)."""

import copy
from contextlib import AbstractContextManager
from itertools import cycle, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from stages.language_model.base_model import Added, BaseModel, Weights
from stages.language_model.cpu_linear import use_onednn
from stages.language_model.loading import refused
from stages.methods.method import Examples, Method
from stages.methods.prompt_size import last_weight, run, size_of, weight_for_size
from stages.methods.row_layout import place
from stages.params.methods import Dynamic
from stages.plumbing.errors import StageError

CONTROLLER = "controller."  # prefix of the parameters of C
DOWN, UP = "depth.down", "depth.up"  # [rank, H], [L - 1, H, rank]: see `DynamicMethod.added`
# The linear layers whose results are added to the residual stream, by their names in transformers' architectures.
WRITES_TO_RESIDUAL = ("o_proj", "down_proj", "c_proj", "out_proj", "fc2", "fc_out", "dense", "dense_4h_to_h")
WORDS = 8  # on which its size is measured


class DynamicMethod(Method):
    """A prompt for each query: C(E[query]), E[query], E[response]; C and E are trained (Sec. 3, Eq. 3).

    C is a causal Transformer of the base model's own architecture with few layers. Its last normalisation (or the
    projection behind its layers) starts at the size of embedded words, so that a prompt weighs no more than words do
    (our choice; the paper does not say).
    """

    settings: Dynamic

    def __init__(self, base: BaseModel, settings: Dynamic) -> None:
        super().__init__(base, settings)
        self.controller = _build_controller(base, settings.layers, base.dtype)
        self.controller.to(base.device).requires_grad_(False)  # type: ignore[arg-type]
        if base.device.type != "meta":  # then there are no values, only shapes
            with self._refused():
                self.last_weight = last_weight(self.controller, _some_words(base))
            use_onednn(self.controller)

    def _refused(self) -> AbstractContextManager[None]:
        found = f"{type(self.controller).__name__} cannot generate prompts"
        return refused(self.base.folder, found, "use another method, or a model of another architecture")

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """C, from one of three starts; E as pre-trained.

        identity: its layers add nothing at first, so that the prompt begins as the query's own embeddings, each at the
        size of a word; random; first-layers: those of the language model.

        Raises:
            StageError: this architecture has no identity start.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            fresh = _build_controller(self.base, self.settings.layers, torch.float32)
        if self.settings.init == "identity":
            _add_nothing(fresh, self.base.width)
        weights = {name: value.detach().float() for name, value in fresh.named_parameters()}
        if self.settings.init == "first-layers":
            # Layers only: the last normalisation belongs to the layers in front of it and stays as it starts.
            own = dict(self.base.model.base_model.named_parameters())
            last = self.last_weight.removesuffix("weight") if weights[self.last_weight].dim() == 1 else None
            weights |= {
                name: own[name].detach().float().cpu()
                for name in weights
                if name in own and not (last and name.startswith(last))
            }
        words, size = _some_words(self.base).float().cpu(), size_of(self.base.words())
        with self._refused():
            weights[self.last_weight] = weight_for_size(fresh, weights, self.last_weight, words, size)
        controller = {CONTROLLER + name: value.clone() for name, value in weights.items()}
        shapes = self.shapes()
        deep = {name: torch.zeros(shapes[name]) for name in (DOWN, UP) if name in shapes}
        if deep:
            nn.init.normal_(deep[DOWN], std=self.base.width**-0.5, generator=generator)
        return {**controller, **deep, **super().initial_weights(generator)}

    def shapes(self) -> dict[str, torch.Size]:
        """The same as of initial_weights, which takes a second to make them: C is there already."""
        found = {CONTROLLER + name: value.shape for name, value in self.controller.named_parameters()}
        if self.settings.depth == "every-layer":
            config, rank = self.base.model.config, self.settings.rank
            found[DOWN] = torch.Size((rank, self.base.width))
            found[UP] = torch.Size((config.num_hidden_layers - 1, config.hidden_size, rank))
        return found | super().shapes()

    def prompt(self, weights: Weights, queries: Tensor) -> Tensor:
        """h_1..h_S = C(E[query]): causal, so that padding on the right of a query changes nothing."""
        own = {name.removeprefix(CONTROLLER): value for name, value in weights.items() if name.startswith(CONTROLLER)}
        return run(self.controller, own, queries)

    def added(self, weights: Weights, prompt: Tensor, source: Tensor) -> Added | None:
        """up[layer] tanh(down normalised(prompt)) for each slot: zero at first, as `up` is."""
        if UP not in weights:
            return None
        low = torch.tanh(F.linear(F.layer_norm(prompt, prompt.shape[-1:]), weights[DOWN]))  # [B, P, rank]
        slots = place([F.pad(low, (0, 0, 0, 1))], source.clamp(max=prompt.shape[1]))  # zeros where no slot is
        return lambda layer: F.linear(slots, weights[UP][layer])

    def dropout(self, on: bool) -> None:
        """In C, which has it where the base model's architecture does."""
        self.controller.train(on)


def _some_words(base: BaseModel) -> Tensor:
    """Embedded words from all over the vocabulary, as a row [1, T, H]."""
    tokens = torch.linspace(0, len(base.embeddings) - 1, WORDS, device=base.device).long()
    return base.embed(tokens.unsqueeze(0))


def _add_nothing(controller: PreTrainedModel, width: int) -> None:
    """Let what its layers write into the residual stream, and its table of positions, start at zero."""
    with torch.no_grad():
        for name, value in controller.named_parameters():
            parts = name.split(".")
            in_layer = any(part.isdigit() for part in parts)  # it has a number
            writes = any(part.removesuffix("_bias") in WRITES_TO_RESIDUAL for part in parts)
            if (in_layer and writes) or (not in_layer and value.dim() == 2):
                value.zero_()
        read = torch.randn(1, 4, width, generator=torch.Generator().manual_seed(0))
        written = controller(inputs_embeds=read, use_cache=False).last_hidden_state
    # A normalisation may take off the mean and changes the size, nothing else.
    before, after = (F.normalize(rows - rows.mean(dim=-1, keepdim=True), dim=-1) for rows in (read, written))
    if not bool(((after - before).norm(dim=-1) < 1e-3).all()):
        found = f"identity, which {type(controller).__name__} cannot start from"
        raise StageError("params.yaml: methods.<name>.init", found, "set it to random")


def _build_controller(base: BaseModel, layers: int, dtype: torch.dtype) -> PreTrainedModel:
    """A freshly initialised Transformer like the base model's, of few layers, without word embeddings."""
    config: Any = copy.deepcopy(base.model.config)
    there, config.num_hidden_layers = config.num_hidden_layers, layers
    for name, value in vars(config).items():
        if "layer" in name and isinstance(value, list | tuple) and len(value) == there:
            setattr(config, name, list(islice(cycle(value), layers)))  # the kind of each layer: layer_types and others
    config.vocab_size, config.pad_token_id = 1, None  # it reads embedded queries, so its own table goes at once
    config.dtype = dtype  # of what is no parameter too: some families hold positions in a buffer
    controller: PreTrainedModel = AutoModel.from_config(
        config, attn_implementation=base.model.config._attn_implementation
    )
    controller.set_input_embeddings(nn.Identity())
    controller.eval()
    return controller
