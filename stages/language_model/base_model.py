"""The pre-trained language model: its frozen layers, its word embeddings E and its output layer, ready for trials."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

Weights = Mapping[str, Tensor]
Added = Callable[[int], Tensor]  # number of a layer, counted from the second one -> [B, T, H], for its hidden states


class BaseModel:
    """A causal language model of the hub, taken apart where the methods take hold of it.

    Its parameters are frozen and held once, in the precision of the arithmetic.

    Attributes:
        folder: where it was loaded from, for messages.
        embeddings: E [V, H], as pre-trained.
        width: H.
        tied: whether E is the output layer too.
        ends: its own end-of-text tokens: models that answer in turns have one for a turn and one for a text.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        own, head = model.generation_config.eos_token_id, model.get_output_embeddings()
        self.model, self.folder = model, str(model.name_or_path)
        self.device, self.dtype = model.device, model.dtype
        self.embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
        self.width = self.embeddings.shape[1]
        self.tied = head is not None and head.weight is self.embeddings
        self.ends: list[int] = own if isinstance(own, list) else [] if own is None else [own]

    def embed(self, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """E[tokens]: [...] -> [..., H], by the pre-trained E or by another [V, H]."""
        weights = {} if embeddings is None else {"weight": embeddings}
        embedded = functional_call(self.model.get_input_embeddings(), weights, (tokens,))
        return embedded.to(self.dtype)  # type: ignore[no-any-return]

    def words(self) -> Tensor:
        """Every word as the layers read it [V, H], in float32: E, scaled where the model scales it."""
        return self.embed(torch.arange(len(self.embeddings), device=self.device)).detach().float()

    def hidden(
        self,
        embedded: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        weights: Weights | None = None,
        added: Added | None = None,
    ) -> Tensor:
        """The Transformer: embedded [B, T, H] -> last hidden states [B, T, H], after the final normalisation.

        positions and mask [B, T (with what the cache holds)]: None stands for rows that begin at position 0 and have
        no padding on the left. weights: parameters of the whole model (their names there) in place of its own.
        added: to what each layer but the first one reads.
        """
        body = self.model.base_model
        arguments = {
            "inputs_embeds": embedded, "position_ids": positions, "attention_mask": mask,
            "past_key_values": cache, "use_cache": cache is not None,
        }  # fmt: skip
        with ExitStack() as hooks:  # for one pass: the layers are shared with methods that add nothing
            if added is not None:
                lists = (each for each in body.modules() if isinstance(each, nn.ModuleList))
                layers = next(each for each in lists if len(each) == self.model.config.num_hidden_layers)
                for number, layer in enumerate(layers[1:]):
                    hooks.enter_context(layer.register_forward_pre_hook(partial(_add, added, number)))
            if weights is None:
                output = body(**arguments)
            else:
                prefix = f"{self.model.base_model_prefix}."
                own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
                output = functional_call(body, own, (), arguments)
        return output.last_hidden_state  # type: ignore[no-any-return]

    def cache_shape(self, columns: int) -> torch.Size:
        """Of the keys of a row of so many columns, and of its values: [L, heads, columns, size]."""
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return torch.Size((config.num_hidden_layers, heads, columns, size))

    def logits(self, hidden: Tensor, output: Weights | None = None) -> Tensor:
        """The output layer: [..., H] -> [..., V], in float32; output: its parameters, `weight` and perhaps `bias`.

        In bfloat16, logits of a hundred, as GPT-2 has them, would be multiples of a half.
        """
        module = self.model.get_output_embeddings()
        own = output or dict(module.named_parameters())
        if hidden.dtype is torch.float32:
            return functional_call(module, dict(own), (hidden,))  # type: ignore[no-any-return]
        return _WideProduct.apply(hidden, own["weight"], own.get("bias"))  # type: ignore[no-any-return,no-untyped-call]

    def embeddings_name(self) -> str:
        """The name of E in the model's parameters."""
        return next(str(name) for name, value in self.model.named_parameters() if value is self.embeddings)

    def output_name(self) -> str:
        """The name of the output layer in the model's parameters, `lm_head` as a rule."""
        head = self.model.get_output_embeddings()
        return next(str(name) for name, module in self.model.named_modules() if module is head)


def _add(added: Added, number: int, layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0] + added(number), *given[1:])


class _WideProduct(torch.autograd.Function):
    """Of x [..., H], W [V, H], b [V] in half precision: x W^T + b in float32, with gradients in half precision.

    On a CPU that multiplies bfloat16 this makes a step 5 % slower; with gradients in float32 too it would be 15 %.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return F.linear(rows.float(), weight.float(), None if bias is None else bias.float())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        given = gradients[0].to(rows.dtype)
        flat = given.flatten(0, -2)
        of_weight = flat.T @ rows.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return given @ weight, of_weight, flat.sum(0) if ctx.needs_input_grad[2] else None
