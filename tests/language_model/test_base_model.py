"""The base model: loaded from data only, frozen, and split into parts only where that is correct."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.language_model import cpu_attention
from stages.language_model.base_model import BaseModel
from stages.language_model.cpu_attention import SHORT
from stages.language_model.loading import empty_model, load_base_model, load_tokenizer
from stages.methods.registry import build_method
from stages.plumbing.errors import StageError
from tests.models import SETTINGS, base_model, learner, model_folder, pairs
from tests.tiny import tiny_model

CPU = torch.device("cpu")


def configured(folder: Path, family: Any, changed: dict[str, Any], tied: bool = True) -> Path:
    """A tiny model with some keys of its config.json changed."""
    path = tiny_model(folder, family, tied) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return folder


def test_a_model_is_loaded_frozen_in_the_precision_and_with_the_dropout_asked_for(tmp_path: Path) -> None:
    folder = configured(tmp_path / "half", "gpt2", {"dtype": "float16"})
    path = folder / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    for dropout in (0.0, 0.25):
        model = load_base_model(folder, CPU, torch.float32, dropout).model
        assert {(value.dtype, value.requires_grad) for value in model.parameters()} == {(torch.float32, False)}
        assert not model.training
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {dropout}


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("gpt2", {"num_attention_heads": 0}),
        ("gpt2", {"model_type": 3}),
        ("gpt2", {"model_type": "t5"}),
        ("llama", {"num_hidden_layers": 0}),
        ("llama", {"quantization_config": {"quant_method": "mxfp4"}}),
    ],
)
def test_what_a_configuration_raises_is_one_line_at_once(family: Any, changed: dict[str, Any], tmp_path: Path) -> None:
    folder = configured(tmp_path / "model", family, changed)
    (folder / "model.safetensors").unlink()
    for load in (empty_model, lambda folder: load_base_model(folder, CPU, torch.float32)):
        with pytest.raises(StageError, match=rf"^{folder}/config\.json: [^\n]{{,400}}; (see|use) [^\n]*$"):
            load(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation_internal", "experts_implementation"])
def test_no_configuration_chooses_code_of_the_hub(key: str, tmp_path: Path) -> None:
    folder = configured(tmp_path / "model", "llama", {key: "kernels-community/some-attention"})
    assert load_base_model(folder, CPU, torch.float32).model.config._attn_implementation == SHORT


def test_loading_prints_nothing_into_a_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_model(tmp_path / "model")
    capfd.readouterr()
    load_base_model(folder, CPU, torch.float32)
    assert capfd.readouterr() == ("", "")


def test_attention_over_long_rows_is_the_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "sdpa_attention_forward", lambda *words, **more: ("library", None))
    for length, ours in ((cpu_attention.LONGEST, True), (cpu_attention.LONGEST + 1, False)):
        rows = torch.randn(1, 2, length, 8)
        attended, _ = cpu_attention.short_attention(torch.nn.Module(), rows, rows, rows, None)
        assert isinstance(attended, Tensor) == ours


@pytest.mark.parametrize("own", [True, False])
def test_in_bfloat16_the_logits_are_not_rounded(own: bool) -> None:
    """GPT-2's are around -100, where bfloat16 has multiples of a half; losses need their differences."""
    base = base_model("gpt2", dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    rows = base.embeddings.detach().float() + torch.randn(base.width, generator=generator)  # one direction in all words
    output = {"weight": rows.bfloat16()}
    hidden = torch.randn(64, base.width, generator=generator)
    hidden = (hidden - 100 * rows.mean(0) / rows.mean(0).square().sum()).bfloat16()
    if not own:
        base = BaseModel(copy.deepcopy(base.model))
        base.embeddings.copy_(output["weight"])
    exact = hidden.double() @ output["weight"].double().T
    assert -130 < float(exact.mean()) < -70
    targets = torch.arange(64)
    losses, expected = (
        F.cross_entropy(each.double(), targets, reduction="none")
        for each in (base.logits(hidden, output if own else None), exact)
    )
    assert torch.allclose(losses, expected, atol=1e-3)


def test_the_gradients_of_these_logits_are_those_of_the_output_layer() -> None:
    base = base_model("gpt2", dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(2, 3, base.width, generator=generator), *(base.embeddings.float(), torch.randn(300))
    coarse = [each.bfloat16().requires_grad_() for each in given]
    exact = [each.detach().float().requires_grad_() for each in coarse]
    base.logits(coarse[0], {"weight": coarse[1], "bias": coarse[2]}).tanh().sum().backward()
    F.linear(*exact).tanh().sum().backward()
    for one, other in zip(coarse, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert float((one.grad - other.grad).norm()) < 0.01 * float(other.grad.norm())


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"n_positions": 65}, r"wpe\.weight is \[\d+, \d+\], by config\.json \[65, \d+\]; use"),
        ({"n_layer": 3}, r"its weights lack transformer\.h\.2\.\S+, .*; use"),
        ({"n_layer": 1}, r"transformer\.h\.1\.\S+ is in no layer of config\.json; use"),
    ],
)
def test_weights_of_another_model_are_refused(changed: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=found):
        load_base_model(configured(tmp_path / "model", "gpt2", changed), CPU, torch.float32)


@pytest.mark.parametrize("end", ["</s>", [3, "</s>"]])
def test_an_end_of_text_that_is_no_number_is_refused(end: Any, tmp_path: Path) -> None:
    path = tiny_model(tmp_path) / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": end}))
    with pytest.raises(StageError, match=rf"^{path.parent}: eos_token_id is \[.*'</s>'\]; write numbers of tokens "):
        load_base_model(tmp_path, CPU, torch.float32)


def with_output_layer(folder: Path, difference: float, shards: bool) -> Path:
    """A tied model that also stores an output layer, in the same file or in a separate one."""
    path = tiny_model(folder) / "model.safetensors"
    tensors = load_file(path)
    parts = {"one": tensors, "two": {"lm_head.weight": tensors["transformer.wte.weight"] + difference}}
    if shards:
        path.unlink()
        for name, part in parts.items():
            save_file(part, folder / f"{name}.safetensors", metadata={"format": "pt"})
        places = {key: f"{name}.safetensors" for name, part in parts.items() for key in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    else:
        save_file(parts["one"] | parts["two"], path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("shards", [False, True])
def test_an_output_layer_that_differs_from_its_tied_embeddings_is_refused(tmp_path: Path, shards: bool) -> None:
    assert load_base_model(with_output_layer(tmp_path / "equal", 0.0, shards), CPU, torch.float32).tied
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(StageError, match=r"other: its lm_head\.weight differs from the word embeddings.*; use "):
            load_base_model(with_output_layer(tmp_path / "other", 0.01, shards), CPU, dtype)


@pytest.mark.parametrize("name", ["fine-tune", "embeddings", "soft", "dynamic"])
def test_the_row_of_end_of_text_is_trained_though_it_is_the_padding_s_too(tmp_path: Path, name: str) -> None:
    folder = configured(tmp_path / "x", "llama", {"pad_token_id": 0}, tied=False)  # or the output layer trains it
    base = load_base_model(folder, CPU, torch.float32)
    trial = learner(build_method(base, SETTINGS[name]))
    (row,) = (value for key, value in trial.weights.items() if key.endswith(("embeddings", "embed_tokens.weight")))
    before = row.detach().clone()
    trial.step(pairs(2), 0, 1e-2)
    assert base.ends == [0] and not torch.equal(row[0], before[0])


def test_a_model_of_more_than_text_is_refused_by_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    with pytest.raises(StageError, match=f"^{tmp_path}: gemma3 is no model of text alone; "):
        empty_model(tmp_path)


HIDDEN = BaseModel.hidden


def without_positions(base: BaseModel, embedded: Tensor, *others: Any) -> Tensor:
    return HIDDEN(base, embedded, None, *others[1:])


def without_gradient(base: BaseModel, embedded: Tensor, *others: Any) -> Tensor:
    return HIDDEN(base, embedded, *others).detach() + 0 * embedded


@pytest.mark.parametrize(
    ("hidden", "found"),
    [
        (without_positions, "computes something else with a cache of keys and values"),
        (without_gradient, "passes no gradient on to its word embeddings"),
    ],
)
def test_a_model_that_computes_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, hidden: Any, found: str) -> None:
    folder = model_folder("gpt2", True)
    for dtype in (torch.float32, torch.bfloat16):
        assert load_base_model(folder, CPU, dtype)
    monkeypatch.setattr(BaseModel, "hidden", hidden)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(StageError, match=f"^{folder}: GPT2LMHeadModel {found}; use "):
            load_base_model(folder, CPU, dtype)


def test_what_is_tried_at_load_leaves_the_weights_as_they_are() -> None:
    stored = load_file(model_folder("llama", False) / "model.safetensors")
    for name, value in base_model("llama", False).model.state_dict().items():
        assert torch.equal(value, stored[name]), name


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "endless")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match="end-of-text"):
        load_tokenizer(folder)
