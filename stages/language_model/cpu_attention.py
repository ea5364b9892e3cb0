"""Attention over short rows on a CPU: what the library's function computes, by two batched products."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHORT = "short_rows"  # the name under which the attention is registered with transformers
LONGEST = 192  # tokens; above it the library's kernel, which never holds all scores, is the better one


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

    The library's kernel works in blocks made for thousands of tokens: on rows of 50 its backward pass takes several
    times as long. In bfloat16 scores and weights are rounded between the products, as in the library's `eager`.
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
