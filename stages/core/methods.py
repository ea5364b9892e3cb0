"""The methods of the paper (Sec. 3): what each one trains and the prompt that it makes from a query.

Symbols: B batch, S query tokens with end-of-text, P prompt slots (P >= S), H width, V vocabulary. A trial is the named
tensors that one learning rate trains; everything else is the base model's, frozen and shared.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModel, PreTrainedModel

from stages.core.base_model import BaseModel, Weights
from stages.core.onednn import use_onednn
from stages.core.params import Dynamic, Soft
from stages.core.params import Method as MethodSettings

EMBEDDINGS = "embeddings"  # E [V, H], the word embeddings; the output layer too where the model ties them
PROMPT = "prompt"  # Z [P, H]
CONTROLLER = "controller."  # prefix of the parameters of C


class Method(ABC):
    """One way to make a language model answer. Stateless: all that is trained is in the trial's weights."""

    shares_layers: ClassVar[bool] = True  # the Transformer stays frozen, so that one pass serves all trials
    prompt_slots: ClassVar[int] = 1  # for each token of the query

    def __init__(self, base: BaseModel, settings: Any) -> None:
        self.base, self.settings = base, settings

    @abstractmethod
    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """What a trial trains, at its start, in float32 on the CPU, by the names under which it is saved.

        Meant for a base model in float32: one in bfloat16 has lost the last bits of the pre-trained weights.
        """

    def shapes(self) -> dict[str, torch.Size]:
        """Name and shape of everything that a trial trains and saves."""
        return {name: value.shape for name, value in self.initial_weights(torch.Generator()).items()}

    @abstractmethod
    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> Tensor | None:
        """Embedded queries [B, S, H] -> prompts [B, S, H], one slot a query token; None for no prompt."""

    def prepared(self, weights: Weights) -> Weights:
        """The weights in the precision of the arithmetic: cast once, used all through a step or a decoding."""
        return {name: value.to(self.base.dtype) for name, value in weights.items()}

    def embed(self, weights: Weights, tokens: Tensor) -> Tensor:
        """E[tokens]: [...] -> [..., H]."""
        return self.base.embed(tokens, weights.get(EMBEDDINGS))

    def layers(self, weights: Weights) -> Weights | None:
        """Parameters that take the place of the frozen Transformer's; None where it is shared."""
        return None

    def output(self, weights: Weights) -> Weights | None:
        """Parameters of the output layer; None for the base model's own."""
        if EMBEDDINGS in weights and self.base.tied:
            return {"weight": weights[EMBEDDINGS]}
        return None


class ZeroShotMethod(Method):
    """The base model as it is: E[query], E[response]; nothing is trained."""

    prompt_slots = 0

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> None:
        """No prompt."""
        return None


class FineTuneMethod(Method):
    """The baseline: E[query], E[response]; every parameter of the model is trained (Sec. 3, "Fine-tuning")."""

    shares_layers = False
    prompt_slots = 0

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Every parameter of the base model by its name there; tied ones once."""
        return {name: value.detach().float().cpu().clone() for name, value in self.base.model.named_parameters()}

    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> None:
        """No prompt."""
        return None

    def _embeddings_name(self) -> str:
        return next(name for name, value in self.base.model.named_parameters() if value is self.base.embeddings)

    def embed(self, weights: Weights, tokens: Tensor) -> Tensor:
        """E[tokens] by the trial's own E."""
        return self.base.embed(tokens, weights[self._embeddings_name()])

    def layers(self, weights: Weights) -> Weights:
        """All of them."""
        return weights

    def output(self, weights: Weights) -> Weights:
        """The trial's own output layer: E where the model ties them."""
        own = {"weight": weights[self._embeddings_name()]} if self.base.tied else {}
        prefix = self.base.output_name() + "."
        return own | {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _random_like_embeddings(base: BaseModel, *shape: int, generator: torch.Generator) -> Tensor:
    """Normal values with the mean and spread of the word embeddings: "randomly initialised word embeddings"."""
    embeddings = base.embeddings.detach().float()
    mean, spread = float(embeddings.mean()), float(embeddings.std())
    return torch.randn(*shape, generator=generator) * spread + mean


class SoftMethod(Method):
    """One prompt for all queries: Z[0:S], E[query], E[response]; Z and E are trained (Sec. 3, Eq. 2)."""

    settings: Soft

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Z [P, H], random; E as pre-trained."""
        table = _random_like_embeddings(self.base, self.settings.prompt_tokens, self.base.width, generator=generator)
        return {PROMPT: table, **_initial_embeddings(self.base, self.settings.train_embeddings)}

    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> Tensor:
        """Z[0:S] for every query: "we set the length of the soft prompt to the length of S"."""
        batch, tokens, _ = queries.shape
        return weights[PROMPT][:tokens].to(queries.dtype).expand(batch, tokens, -1)


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
        """C, random or from the language model's first layers; E as pre-trained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            fresh = _build_controller(self.base, self.settings.layers)
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
        return {**controller, **_initial_embeddings(self.base, self.settings.train_embeddings)}

    def prompt(self, weights: Weights, queries: Tensor, train: bool = False) -> Tensor:
        """h_1..h_S = C(E[query]): causal, so that padding on the right of a query changes nothing."""
        own = {name.removeprefix(CONTROLLER): value for name, value in weights.items() if name.startswith(CONTROLLER)}
        self.controller.train(train)
        output = functional_call(self.controller, own, (), {"inputs_embeds": queries, "use_cache": False})
        hidden: Tensor = output.last_hidden_state
        return hidden


def _initial_embeddings(base: BaseModel, train_embeddings: bool) -> dict[str, Tensor]:
    return {EMBEDDINGS: base.embeddings.detach().float().cpu().clone()} if train_embeddings else {}


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


METHODS: dict[str, type[Method]] = {
    "fine-tune": FineTuneMethod,
    "soft": SoftMethod,
    "dynamic": DynamicMethod,
    "zero-shot": ZeroShotMethod,
}


def build_method(base: BaseModel, settings: MethodSettings) -> Method:
    """The method that an entry of `methods` in params.yaml describes, on a base model."""
    return METHODS[settings.kind](base, settings)
