"""The base model: loaded from data only, frozen, and split into parts only where that is correct."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from stages.language_model.base_model import check_row_length, load_base_model, load_tokenizer
from stages.plumbing.errors import StageError
from tests.models import base_model
from tests.tiny import tiny_model

CPU = torch.device("cpu")


def test_half_precision_weights_are_trained_in_float32(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "half")
    path = folder / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    base = load_base_model(folder, CPU, torch.float32)
    assert {value.dtype for value in base.model.parameters()} == {torch.float32}


def test_nothing_is_trainable_and_nothing_drops_out_unless_asked() -> None:
    base = base_model()
    assert not any(value.requires_grad for value in base.model.parameters())
    assert not base.model.training


def test_dropout_is_the_protocol_s_and_not_the_configuration_s(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    for dropout in (0.0, 0.25):
        base = load_base_model(folder, CPU, torch.float32, dropout)
        found = {module.p for module in base.model.modules() if isinstance(module, torch.nn.Dropout)}
        assert found == {dropout}


def test_logits_that_are_more_than_the_output_layer_s_are_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    config = Gemma2Config(vocab_size=50, num_key_value_heads=1, final_logit_softcapping=0.1, **sizes)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "capped")
    with pytest.raises(StageError, match="does more to its logits"):
        load_base_model(tmp_path / "capped", CPU, torch.float32)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StageError, match=str(tmp_path)):
        load_base_model(tmp_path, CPU, torch.float32)


def test_a_pickle_in_the_clothes_of_safetensors_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "pickled")
    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(StageError, match="pickled"):
        load_base_model(folder, CPU, torch.float32)


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "lacking")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"lack transformer\.h\.1\.mlp\.c_fc\.weight"):
        load_base_model(folder, CPU, torch.float32)


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "endless")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match="end-of-text"):
        load_tokenizer(folder)


def test_rows_longer_than_the_model_s_positions_are_refused() -> None:
    check_row_length(base_model().model.config, 512)
    with pytest.raises(StageError, match="513 tokens, the model takes 512"):
        check_row_length(base_model().model.config, 513)
