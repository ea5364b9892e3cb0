"""Linear layers on a CPU by oneDNN, frozen weights kept in the blocks that it computes with.

PyTorch hands oneDNN its weights as they are, so that each call rearranges them first; and float32 goes to MKL, which is
slower on processors that are not Intel's. What is computed is the same; in float32 only the order of sums differs.
"""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stages.language_model.memory import free_memory, page_out

ROWS = 64  # told to oneDNN when it packs; on the processors tried its blocks are the same for any number


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Of rows [..., in], W [out, in] (packed or not), b [out] -> rows W^T + b [..., out], without gradients."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


@cache
def is_for_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and multiplies this type."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    bfloat16 = dtype is torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32 or bfloat16


class FrozenWeight:
    """The weight of a frozen linear layer, packed when it is first used in one order or the other.

    transposed: whether the parameter is [in, out]. keep: whether what was packed stays; else each call packs anew.
    """

    def __init__(self, parameter: nn.Parameter, transposed: bool, keep: bool) -> None:
        self.parameter, self.transposed, self.keep = parameter, transposed, keep
        self.kept: dict[tuple[bool, int, torch.dtype], Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenWeight":
        return FrozenWeight(copy.deepcopy(self.parameter, memo), self.transposed, self.keep)

    def packed(self, back: bool) -> Tensor:
        """W [out, in] for y = x W^T; for the way back W^T, for dx = dy W."""
        turned = self.transposed != back
        key = turned, self.parameter._version, self.parameter.dtype  # it has another version once somebody writes to it
        if key in self.kept:
            return self.kept[key]
        with torch.inference_mode(False), torch.no_grad():  # what is packed while decoding may train later
            weight = (self.parameter.t() if turned else self.parameter).contiguous()
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        if self.keep:
            self.kept = {other: value for other, value in self.kept.items() if other[1:] == key[1:]} | {key: packed}
            page_out(self.parameter)  # read again for the other order; word embeddings also where they are looked up
        return packed


class _FrozenProduct(torch.autograd.Function):
    """x [..., in] -> x W^T + b [..., out]; the gradient reaches x alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, frozen: FrozenWeight, bias: Tensor | None) -> Tensor:
        ctx.frozen = frozen
        return product(rows, frozen.packed(back=False), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return product(gradients[0], ctx.frozen.packed(back=True), None), None, None


class _ByOneDnn(nn.Module):
    """A linear layer by oneDNN: packed while its weight is the frozen one, as it is where a trial's takes its place.

    With gradients for the weight it is PyTorch's own.
    """

    frozen: FrozenWeight

    def forward(self, rows: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        weight: Any = self.weight
        bias: Any = self.bias
        if rows.device.type == "cpu" and rows.numel() and rows.dtype is weight.dtype and is_for_onednn(rows.dtype):
            trained = any(own.requires_grad for own in (weight, bias) if own is not None)
            if weight is self.frozen.parameter and not trained:
                if rows.requires_grad and torch.is_grad_enabled():
                    return _FrozenProduct.apply(rows, self.frozen, bias)  # type: ignore[no-any-return,no-untyped-call]
                return product(rows, self.frozen.packed(back=False), bias)
            if torch.is_inference_mode_enabled():
                return product(rows, weight.t() if self.frozen.transposed else weight, bias)
        return super().forward(rows)  # type: ignore[no-any-return]


class OneDnnLinear(_ByOneDnn, nn.Linear):
    """`nn.Linear`, whose weight is [out, in]."""


class OneDnnConv1D(_ByOneDnn, Conv1D):
    """GPT-2's linear layer, whose weight is [in, out]."""


REPLACED: dict[type[nn.Module], type[OneDnnLinear | OneDnnConv1D]] = {nn.Linear: OneDnnLinear, Conv1D: OneDnnConv1D}


def use_onednn(model: nn.Module) -> None:
    """Let oneDNN compute the linear layers of a model on a CPU; packed weights stay where memory is plenty."""
    layers: list[Any] = [module for module in model.modules() if type(module) in REPLACED]
    # A quarter of what is free holds them twice.
    keep = 8 * sum(layer.weight.nbytes for layer in layers) <= free_memory(torch.device("cpu"))
    for layer in layers:
        if layer.weight.device.type == "cpu":
            layer.frozen = FrozenWeight(layer.weight, type(layer) is Conv1D, keep)
            layer.__class__ = REPLACED[type(layer)]


def put_aside(model: nn.Module) -> None:
    """Let a model's frozen weights leave memory until needed: packed ones, and others as their file has them."""
    for module in model.modules():
        if isinstance(module, _ByOneDnn):
            module.frozen.kept.clear()
            page_out(module.frozen.parameter)
