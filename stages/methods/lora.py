"""LoRA: low-rank updates of the frozen linear layers (Hu et al. 2021, arXiv 2106.09685), by PEFT's own layers."""

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.language_model.base_model import BaseModel, Weights
from stages.language_model.loading import refused
from stages.methods.method import Examples, Method
from stages.params.methods import Lora
from stages.plumbing.errors import StageError

if TYPE_CHECKING:
    from peft import LoraConfig

KEY, REMEDY = "params.yaml: methods.<name>.target_modules", "name linear layers of the model"
ADAPTER = "default"  # PEFT's name for the only adapter of a model


class LoraMethod(Method):
    """E[query], E[response]; each target layer W [out, in] computes W x + alpha / rank * B A x; A, B are trained."""

    settings: Lora

    def __init__(self, base: BaseModel, settings: Lora) -> None:
        super().__init__(base, settings)
        found = f"{settings.target_modules}, which PEFT cannot adapt in {type(base.model).__name__}"
        with refused(KEY, found, REMEDY):
            self.transformer = BaseModel(with_adapters(base.model, self.config()))
        self._check_targets()

    def _check_targets(self) -> None:
        """Refuse a name that PEFT passes over, and the outer layers: the base model computes them without adapters."""
        model = self.transformer.model
        adapted = [name for name, module in model.named_modules() if getattr(module, "lora_A", None)]
        output = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
        own = self.settings.target_modules
        for target in [""] if isinstance(own, str) else own:
            found = [name for name in adapted if not target or f".{name}".endswith(f".{target}")]
            if not found or {*found} & {*output}:
                what = f"{target or own}, which names no linear layer between word embeddings and output layer"
                raise StageError(KEY, what, REMEDY)

    def config(self) -> "LoraConfig":
        """The settings as PEFT has them."""
        from peft import LoraConfig  # takes seconds to import, which only those wait for who use LoRA

        own = self.settings
        return LoraConfig(
            r=own.rank, lora_alpha=own.alpha, lora_dropout=own.dropout, target_modules=own.target_modules,
            task_type="CAUSAL_LM",
        )  # fmt: skip

    def initial_weights(self, generator: torch.Generator, examples: Examples = ()) -> dict[str, Tensor]:
        """A [rank, in] random, as PEFT draws it, and B [out, rank] zero: at first, nothing is added."""
        initial: dict[str, Tensor] = {}
        for name, value in self.transformer.model.named_parameters():
            if "lora_A" in name:
                initial[name] = torch.empty(value.shape)
                nn.init.kaiming_uniform_(initial[name], a=5**0.5, generator=generator)
            elif "lora_B" in name:
                initial[name] = torch.zeros(value.shape)
        return initial

    def shapes(self) -> dict[str, torch.Size]:
        """The same."""
        return {name: value.shape for name, value in self.initial_weights(torch.Generator()).items()}

    def layers(self, weights: Weights) -> Weights:
        """A and B of every target layer."""
        return weights

    def dropout(self, on: bool) -> None:
        """In front of A, and nowhere else."""
        for name, module in self.transformer.model.named_modules():
            if "lora_dropout" in name:
                module.train(on)

    def language_model(self, weights: Weights) -> Weights:
        """The target layers with their updates added: W + alpha / rank * B A, by their names in the base model."""
        merged: dict[str, Tensor] = {}
        for name, layer in self.transformer.model.named_modules():
            if f"{name}.lora_A.{ADAPTER}.weight" in weights:
                down, up = (weights[f"{name}.lora_{part}.{ADAPTER}.weight"].float() for part in "AB")
                update = self.settings.alpha / self.settings.rank * up @ down
                frozen: Any = layer.base_layer
                merged[f"{name}.weight"] = frozen.weight.float() + (update.T if layer.fan_in_fan_out else update)
        return merged


def with_adapters(model: PreTrainedModel, config: "LoraConfig") -> PreTrainedModel:
    """PEFT's layers in a model that shares every tensor with `model`, which stays as it is."""
    from peft import inject_adapter_in_model

    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    frozen = [module.frozen for module in model.modules() if hasattr(module, "frozen")]  # packed once for both
    adapted: PreTrainedModel = copy.deepcopy(model, shared | {id(each): each for each in frozen})
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # PEFT sees GPT-2's layers for itself
        inject_adapter_in_model(config, adapted)
    adapted.requires_grad_(False).eval()
    return adapted
