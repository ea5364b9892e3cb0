"""Attention over short rows gives the same results as the library's function."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from stages.language_model.cpu_attention import LONGEST, short_attention


def inputs(groups: int, tokens: int, length: int, grad: bool = False) -> Any:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 2 * groups, tokens, 8), (2, 2, length, 8), (2, 2, length, 8)]
    return [torch.randn(shape, generator=generator).requires_grad_(grad) for shape in shapes]


def module(groups: int) -> Any:
    return SimpleNamespace(is_causal=True, num_key_value_groups=groups)


def attend(function: Any, groups: int, three: Any, mask: torch.Tensor | None) -> Any:
    query, key, value = three
    return function(module(groups), query, key, value, mask)[0]


@pytest.mark.parametrize("groups", [1, 3])
def test_causal_attention_and_its_gradients(groups: int) -> None:
    ours, theirs = inputs(groups, 11, 11, grad=True), inputs(groups, 11, 11, grad=True)
    first = attend(short_attention, groups, ours, None)
    second = attend(sdpa_attention_forward, groups, theirs, None)
    assert torch.allclose(first, second, atol=1e-5)
    first.square().sum().backward()
    second.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("tokens", [1, 5])
def test_attention_with_padding_and_a_cache(groups: int, tokens: int) -> None:
    length = 9
    mask = torch.ones(2, 1, tokens, length, dtype=torch.bool).tril(length - tokens)
    mask[0, :, :, :3] = False
    some = inputs(groups, tokens, length)
    first = attend(short_attention, groups, some, mask)
    second = attend(sdpa_attention_forward, groups, some, mask)
    assert torch.allclose(first, second, atol=1e-5)


def test_long_rows_go_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.language_model import cpu_attention as module

    monkeypatch.setattr(module, "sdpa_attention_forward", lambda *words, **more: ("library", None))
    long, short = inputs(1, LONGEST + 1, LONGEST + 1), inputs(1, 4, 4)
    assert attend(short_attention, 1, long, None) == "library"
    assert isinstance(attend(short_attention, 1, short, None), torch.Tensor)
