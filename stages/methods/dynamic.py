"""The dynamic prompt: a small Transformer, the controller C, generates a prompt from each query (Sec. 3, Eq. 3)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModel, PreTrainedModel

from stages.language_model.base_model import BaseModel, Weights
from stages.language_model.cpu_linear import use_onednn
from stages.methods.method import Method, initial_embeddings
from stages.params.methods import Dynamic
from stages.plumbing.errors import StageError

CONTROLLER = "controller."  # prefix of the parameters of C
# The linear layers whose results are added to the residual stream, by their names in transformers' architectures.
WRITES_TO_RESIDUAL = ("o_proj", "down_proj", "c_proj", "out_proj", "fc2", "fc_out", "dense", "dense_4h_to_h")


class DynamicMethod(Method):
    """A prompt for each query: C(E[query]), E[query], E[response]; C and E are trained (Sec. 3, Eq. 3).

    C is a causal Transformer of the base model's own architecture with few layers. Its last normalisation starts at the
    size of word embeddings, so that a prompt weighs no more than words do (our choice; the paper does not say).
    """

    settings: Dynamic

    def __init__(self, base: BaseModel, settings: Dynamic) -> None:
        super().__init__(base, settings)
        self.controller = _build_controller(base, settings.layers)
        self.controller.to(base.device).requires_grad_(False)  # type: ignore[arg-type]
        use_onednn(self.controller)

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """C, from one of three starts; E as pre-trained.

        identity: its layers add nothing at first, so that the prompt begins as the query's own embeddings, each at the
        size of a word; random; first-layers: those of the language model.

        Raises:
            StageError: this architecture has no identity start.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            fresh = _build_controller(self.base, self.settings.layers)
        if self.settings.initial == "identity":
            _add_nothing(fresh)
        weights = {name: value.detach().float() for name, value in fresh.named_parameters()}
        if self.settings.initial == "first-layers":
            # Layers only: the last normalisation belongs to the layers in front of it and stays as it starts.
            own = dict(self.base.model.base_model.named_parameters())
            weights |= {
                name: own[name].detach().float().cpu()
                for name in weights
                if name in own and not _is_last_normalisation(name, weights[name])
            }
        size = self.base.embeddings.detach().float().square().mean().sqrt()
        weights |= {name: weights[name] * size for name in weights if _is_last_normalisation(name, weights[name])}
        controller = {CONTROLLER + name: value.clone() for name, value in weights.items()}
        return {**controller, **initial_embeddings(self.base, self.settings.train_embeddings)}

    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> Tensor:
        """h_1..h_S = C(E[query]): causal, so that padding on the right of a query changes nothing."""
        own = {name.removeprefix(CONTROLLER): value for name, value in weights.items() if name.startswith(CONTROLLER)}
        self.controller.train(train)
        output = functional_call(self.controller, own, (), {"inputs_embeds": queries, "use_cache": False})
        hidden: Tensor = output.last_hidden_state
        return hidden


def _add_nothing(controller: PreTrainedModel) -> None:
    """Let what its layers write into the residual stream, and its table of positions, start at zero.

    Raises:
        StageError: something else of this architecture changes what it reads.
    """
    with torch.no_grad():
        for name, value in controller.named_parameters():
            *_, module, _ = ("", *name.split("."))
            if (_in_layer(name) and module in WRITES_TO_RESIDUAL) or (not _in_layer(name) and value.dim() == 2):
                value.zero_()
        read = torch.randn(1, 4, controller.config.hidden_size, generator=torch.Generator().manual_seed(0))
        written = controller.eval()(inputs_embeds=read, use_cache=False).last_hidden_state
    if not torch.allclose(written, _normalised(controller, read), rtol=1e-3, atol=1e-3):
        found = f"identity, which {type(controller).__name__} cannot start from"
        raise StageError("params.yaml: methods.<name>.initial", found, "set it to random")


def _normalised(controller: PreTrainedModel, read: Tensor) -> Tensor:
    """What a controller without layers would give: its last normalisation alone."""
    names = [name for name, value in controller.named_parameters() if _is_last_normalisation(name, value)]
    modules = {name.rpartition(".")[0] for name in names}
    for module in modules:
        read = controller.get_submodule(module)(read)
    return read


def _in_layer(name: str) -> bool:
    """Parameters of a layer have its number in their name."""
    return any(part.isdigit() for part in name.split("."))


def _is_last_normalisation(name: str, value: Tensor) -> bool:
    """Behind the layers there is a vector of weights (and perhaps of biases, which start at zero)."""
    return not _in_layer(name) and value.dim() == 1


def _build_controller(base: BaseModel, layers: int) -> PreTrainedModel:
    """A freshly initialised Transformer like the base model's, in float32, of few layers, without word embeddings."""
    config: Any = copy.deepcopy(base.model.config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.vocab_size, config.pad_token_id = 1, None  # it reads embedded queries, so its own table goes at once
    config.dtype = torch.float32
    controller: PreTrainedModel = AutoModel.from_config(
        config, attn_implementation=base.model.config._attn_implementation
    )
    controller.set_input_embeddings(nn.Identity())
    return controller
