"""What PyTorch leaves on the table on a CPU: float32 products by oneDNN, and attention over short rows.

Both compute what the library's own functions compute; in float32 only the order of sums differs.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHORT = "short_rows"  # the name under which the attention is registered with transformers
LONGEST = 192  # tokens; above it the library's kernel, which never holds all scores, is the better one


class OneDnnLinear(TorchFunctionMode):
    """`with OneDnnLinear():` float32 linear layers on the CPU, without gradients, are computed by oneDNN.

    PyTorch gives them to MKL, which on processors that are not Intel's reaches less than half of oneDNN's speed (on an
    AMD EPYC with AVX-512: 90 against 200 GFLOP/s a core, 64 x 576 x 1536). Whatever oneDNN is not for passes through.
    """

    product: Callable[..., Tensor] | None = (
        getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    )

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace `linear(x, W, b)`, and GPT-2's `addmm(b, x, W)`."""
        kwargs = kwargs or {}
        if not kwargs and self.product is not None and torch.is_inference_mode_enabled():
            if func is F.linear:
                bias = args[2] if len(args) > 2 else None
                if _plain(args[0], args[1]):
                    return self.product(args[0], args[1], bias, "none", [], "")
            elif func is torch.addmm and _plain(args[1], args[2]) and args[0].dim() == 1:
                return self.product(args[1], args[2].t(), args[0], "none", [], "")
        return func(*args, **kwargs)


def _plain(rows: Tensor, weight: Tensor) -> bool:
    return all(t.device.type == "cpu" and t.dtype is torch.float32 for t in (rows, weight)) and rows.numel() > 0


@lru_cache(maxsize=64)
def _causal(tokens: int, groups: int, dtype: torch.dtype) -> Tensor:
    """Additive causal mask [groups * tokens, tokens] of `groups` query heads side by side."""
    return torch.full((tokens, tokens), -torch.inf, dtype=dtype).triu(1).repeat(groups, 1)


def short_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T / sqrt(d)) v by two batched products, for rows of at most LONGEST tokens on a CPU.

    query [B, heads, T, d]; key and value [B, heads / G, L, d], of which G query heads share one (they become G times
    T queries, so that keys are never copied); attention_mask: boolean [B, 1, T, L] or None. Returns [B, T, heads, d].

    The library's kernel for the CPU works in blocks made for thousands of tokens: on rows of 50 its backward pass takes
    several times as long as the products. In bfloat16 scores and weights are rounded to it between the products, as in
    the library's `eager` attention, where the kernel rounds its result alone.
    """
    batch, heads, tokens, size = query.shape
    length, shared = key.shape[2], key.shape[1]
    causal = (getattr(module, "is_causal", True) if is_causal is None else is_causal) and tokens > 1
    odd = kwargs.get("position_bias") is not None or dropout or (attention_mask is None and causal and tokens != length)
    masked = attention_mask is not None and (attention_mask.dtype is not torch.bool or attention_mask.shape[1] != 1)
    if query.device.type != "cpu" or length > LONGEST or odd or masked:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    groups = heads // shared
    grouped = query.reshape(batch * shared, groups * tokens, size)
    keys = key.reshape(batch * shared, length, size)
    scores = torch.bmm(grouped, keys.transpose(1, 2)).mul_(size**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        hidden = ~attention_mask.expand(batch, shared, tokens, length).reshape(batch * shared, tokens, length)
        scores = scores.masked_fill(hidden.repeat(1, groups, 1), torch.finfo(scores.dtype).min)
    elif causal:
        scores = scores + _causal(tokens, groups, scores.dtype)
    weights = scores.softmax(dim=-1)
    mixed = torch.bmm(weights, value.reshape(batch * shared, length, value.shape[-1]))
    return mixed.view(batch, heads, tokens, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHORT, short_attention)
AttentionMaskInterface.register(SHORT, sdpa_mask)
