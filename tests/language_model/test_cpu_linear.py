"""Linear layers by oneDNN give PyTorch's results, and always use the weights that the layer has now."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from stages.language_model import cpu_linear
from stages.language_model.cpu_linear import OneDnnConv1D, OneDnnLinear, is_for_onednn, use_onednn

pytestmark = pytest.mark.skipif(not is_for_onednn(torch.float32), reason="PyTorch without oneDNN")
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(20, 7),
    "no bias": lambda: nn.Linear(20, 7, bias=False),
    "conv1d": lambda: Conv1D(7, 20),
}


def pair(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """A frozen layer computed by PyTorch, and the same computed by oneDNN."""
    plain = LAYERS[name]().to(dtype).requires_grad_(False)
    fast = copy.deepcopy(plain)
    use_onednn(fast)
    assert isinstance(fast, OneDnnLinear | OneDnnConv1D)
    return plain, fast


def rows_and_gradient(layer: nn.Module, count: int = 15, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(-(-count // 5), min(count, 5), 20, generator=generator).to(dtype).requires_grad_(True)
    result = layer(rows)
    result.square().sum().backward()
    assert rows.grad is not None
    return result.detach(), rows.grad


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry for each packed weight."""
    calls: list[int] = []
    reorder = torch.ops.mkldnn._reorder_linear_weight

    def counted(weight: Tensor, rows: int) -> Tensor:
        calls.append(weight.numel())
        result: Tensor = reorder(weight, rows)
        return result

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", counted)
    return calls


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("name", LAYERS)
def test_a_frozen_layer_and_its_gradient(name: str, dtype: torch.dtype, relative: float, packed: list[int]) -> None:
    if not is_for_onednn(dtype):
        pytest.skip("a processor without it")
    plain, fast = pair(name, dtype)
    for _ in range(3):
        ours = rows_and_gradient(fast, dtype=dtype)
        for one, other in zip(rows_and_gradient(plain, dtype=dtype), ours, strict=True):
            torch.testing.assert_close(other, one, rtol=relative, atol=1e-5)
    assert packed == [140, 140]  # forward and backward, once


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("count", [1, 15])
def test_little_memory_is_enough(name: str, count: int, monkeypatch: pytest.MonkeyPatch, packed: list[int]) -> None:
    plain, fast = pair(name)
    monkeypatch.setattr(cpu_linear, "free_memory", lambda device: 100)
    use_onednn(plain)
    for one, other in zip(rows_and_gradient(plain, count), rows_and_gradient(fast, count), strict=True):
        assert torch.equal(one, other)
    rows_and_gradient(plain, count)
    assert len(packed) == 2 + 4


@pytest.mark.parametrize("name", LAYERS)
def test_weights_put_in_its_place_are_used_and_trained(name: str) -> None:
    plain, fast = pair(name)
    rows = torch.randn(4, 20)
    rows_and_gradient(fast)  # its own weights are packed now
    own = {key: torch.randn_like(value).requires_grad_(True) for key, value in plain.named_parameters()}
    trained = functional_call(fast, own, (rows,))
    expected = functional_call(plain, own, (rows,))
    torch.testing.assert_close(trained, expected)
    ours = torch.autograd.grad(trained.square().sum(), list(own.values()))
    for one, other in zip(torch.autograd.grad(expected.square().sum(), list(own.values())), ours, strict=True):
        torch.testing.assert_close(other, one)
    with torch.inference_mode():
        torch.testing.assert_close(functional_call(fast, own, (rows,)), expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_is_packed_once_for_each_order_and_again_when_it_is_written_to(name: str, packed: list[int]) -> None:
    plain, fast = pair(name)
    rows = torch.randn(4, 20)
    with torch.inference_mode():
        fast(rows)
    assert len(packed) == 1  # no gradient, no second order; what was packed while decoding trains too
    assert torch.allclose(rows_and_gradient(fast)[1], rows_and_gradient(plain)[1], atol=1e-5)
    other = copy.deepcopy(fast)
    with torch.no_grad():
        other.weight.mul_(2)  # type: ignore[operator]
    torch.testing.assert_close(fast(rows), plain(rows), rtol=1e-5, atol=1e-5)  # a copy is a layer of its own
    with torch.no_grad():
        plain.weight.mul_(2)  # type: ignore[operator]
    torch.testing.assert_close(other(rows), plain(rows), rtol=1e-5, atol=1e-5)
    assert len(packed) == 3
    other.requires_grad_(True)
    other(rows).sum().backward()
    assert other.weight.grad is not None


def test_what_onednn_is_not_for_is_pytorch_s(monkeypatch: pytest.MonkeyPatch, packed: list[int]) -> None:
    plain, fast = pair("linear")
    assert fast(torch.randn(0, 20)).shape == (0, 7)
    monkeypatch.setattr(cpu_linear, "is_for_onednn", lambda dtype: False)
    monkeypatch.setattr(cpu_linear, "product", lambda *words: pytest.fail("not for oneDNN"))
    for one, other in zip(rows_and_gradient(plain), rows_and_gradient(fast), strict=True):
        assert torch.equal(one, other)
    assert not packed


def test_a_layer_with_a_forward_of_its_own_is_left_alone() -> None:
    class Doubling(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(nn.Linear(4, 4), Doubling(4, 4))
    use_onednn(model)
    assert [type(layer) for layer in model] == [OneDnnLinear, Doubling]
