"""The download stage: both outputs or none, clean model folders, the same bytes twice."""

import argparse
import contextlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.download.__main__ import main
from stages.download.fetch import fetch_dialogues, fetch_model
from stages.download.model_folder import check_model_folder, convert_gguf
from stages.language_model.text_tokens import row_start
from stages.params.schema import parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, sha256_of
from tests.helpers_data import local_dialogues, local_model, sha256
from tests.tiny import MODEL_FILES, shipped_params, tiny_model, write_yaml


@pytest.fixture
def params(tmp_path: Path, weights: Path) -> dict[str, Any]:
    value = shipped_params()
    value["datasets"]["x"] = local_dialogues(tmp_path / "corpus")
    value["models"]["x"] = local_model(weights)
    return value | {"dataset": "x", "model": "x"}


def download(folder: Path, params: dict[str, Any]) -> None:
    write_yaml(folder / "params.yaml", params)
    with contextlib.chdir(folder):
        main(argparse.Namespace(dialogues=folder / "data/dialogues", model=folder / "data/model"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_outputs_are_copies_with_a_manifest_and_if_one_fails_neither_changes(
    tmp_path: Path, params: dict[str, Any], weights: Path
) -> None:
    download(tmp_path, params)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["dialogues", "model"]
    check_folder(tmp_path / "data/dialogues")
    check_folder(tmp_path / "data/model")
    before = contents(tmp_path / "data")
    corpus = tmp_path / "corpus/all.jsonl"
    expected = {f"model/{name}": content for name, content in contents(weights).items()}
    expected["dialogues/all.jsonl"] = corpus.read_bytes()
    assert before == expected | {name: before[name] for name in ("dialogues/manifest.json", "model/manifest.json")}
    corpus.write_bytes(corpus.read_bytes() * 2)  # a new corpus with a correct sha256, but a wrong one for the model
    params["datasets"]["x"]["files"]["all"]["sha256"] = sha256_of(corpus)
    params["models"]["x"]["files"]["config.json"]["sha256"] = "0" * 64
    found = sha256_of(weights / "config.json")
    with pytest.raises(StageError, match=rf"^models\.x\.files\.config\.json\.sha256: .*{found}"):
        download(tmp_path, params)
    assert contents(tmp_path / "data") == before


def test_a_mistake_is_found_at_once(tmp_path: Path, params: dict[str, Any]) -> None:
    params["protocols"]["paper"]["training"]["batch_size"] = 0
    with pytest.raises(StageError, match=r"^params\.yaml: protocols\.paper\.training\.batch_size: found 0; "):
        download(tmp_path, params)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("own", [False, True])
def test_further_references_arrive_beside_the_corpus(own: bool, tmp_path: Path, params: dict[str, Any]) -> None:
    folder, made = tmp_path / ("elsewhere" if own else "corpus"), tmp_path / "made"
    for each in (folder, made):
        each.mkdir(exist_ok=True)
    (folder / "more.json").write_bytes(b"{}\n")
    entry = {"path": "more.json", "sha256": sha256(b"{}\n")} | ({"source": f"file:{folder}"} if own else {})
    params["datasets"]["x"]["files"]["references"] = entry
    fetch_dialogues(parse_params(params), made)
    assert set(contents(made)) == {"all.jsonl", "references.json"}
    assert (made / "references.json").read_bytes() == b"{}\n"


def test_sharded_half_precision_weights_stay_so(tmp_path: Path, params: dict[str, Any], weights: Path) -> None:
    sharded, made = tmp_path / "sharded", tmp_path / "made"
    made.mkdir()
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float16)
    model.save_pretrained(sharded, max_shard_size="30KB")
    shutil.copy(weights / "tokenizer.json", sharded)
    params["models"]["x"] = local_model(sharded)
    fetch_model(parse_params(params), made)
    assert len(list(made.glob("*.safetensors"))) > 1
    assert contents(made) == contents(sharded)


def refusal(folder: Path) -> str:
    with pytest.raises(StageError) as caught:
        check_model_folder("models.x.files", folder)
    return str(caught.value).removeprefix("models.x.files.")


def a_copy(weights: Path, folder: Path) -> Path:
    return Path(shutil.copytree(weights, folder, dirs_exist_ok=True))


@pytest.mark.parametrize("content", [b"\x80\x02crest", b"", struct.pack("<Q", 1 << 60), None])
def test_weights_that_are_no_safetensors_are_refused(content: bytes | None, weights: Path, tmp_path: Path) -> None:
    path = a_copy(weights, tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    assert refusal(tmp_path).startswith("model.safetensors: not safetensors (")


@pytest.mark.parametrize(
    ("file", "added", "key"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.X"}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "a--b.C"}}}, "text_config.auto_map"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "a.B"}}}, "custom_pipelines"),
        ("config.json", {"quantization_config": {"bits": 4}}, "quantization_config: the weights are quantized"),
        ("config.json", {"_attn_implementation": {"text": "someone/kernels"}}, "_attn_implementation"),
        ("config.json", {"transformers_weights": "../x.bin"}, "transformers_weights"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
        ("generation_config.json", {"custom_generate": "someone/generate"}, "custom_generate"),
    ],
)
def test_a_configuration_that_would_load_something_else_is_refused(
    file: str, added: dict[str, Any], key: str, weights: Path, tmp_path: Path
) -> None:
    path = a_copy(weights, tmp_path) / file
    path.write_text(json.dumps(json.loads(path.read_bytes() if path.exists() else b"{}") | added))
    assert refusal(tmp_path).startswith(f"{file}: {key}{': it makes transformers' * (': ' not in key)}")


def test_a_word_of_the_vocabulary_is_no_configuration(weights: Path, tmp_path: Path) -> None:
    (a_copy(weights, tmp_path) / "vocab.json").write_text('{"auto_map": 3}')
    configuration = json.loads((tmp_path / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(configuration | {"attn_implementation": "sdpa", "auto_map": None}))
    check_model_folder("key", tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "missing.safetensors"])
def test_an_index_can_only_name_shards_that_are_there(name: str, weights: Path, tmp_path: Path) -> None:
    (a_copy(weights, tmp_path) / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(tmp_path).startswith(f"model.safetensors.index.json: it names '{name}'")


@pytest.mark.parametrize("content", [b"[]", b"\xff", b"[" * 100_000, b'{"weight_map": null}'])
def test_an_index_that_is_no_json_object_is_refused(content: bytes, weights: Path, tmp_path: Path) -> None:
    (a_copy(weights, tmp_path) / "model.safetensors.index.json").write_bytes(content)
    assert refusal(tmp_path).startswith("model.safetensors.index.json: not a JSON object (")


def write_gguf(path: Path, source: Path, end: int, starts: bool, without: str = "lm_head.weight") -> None:
    """A tiny Llama as GGUF; end: its end-of-text token; starts: rows begin with a token; without: a tensor."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    config, words = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    facts = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads, "head_count_kv": config.num_key_value_heads,
        "layer_norm_rms_eps": config.rms_norm_eps, "tokenizer_model": "gpt2",
        "token_list": sorted(words["vocab"], key=words["vocab"].get),
        "token_merges": [" ".join(pair) for pair in words["merges"]],
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "add_bos_token": starts,
    }  # fmt: skip
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in facts.items():
        getattr(writer, f"add_{name}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        turned = "q_proj" in name or "k_proj" in name  # llama.cpp rotates other pairs of columns
        halves = (-1, 2, config.head_dim // 2, tensor.shape[-1])
        own = tensor.view(halves).swapaxes(1, 2).reshape(tensor.shape) if turned else tensor
        if name not in ("lm_head.weight", without):
            writer.add_tensor(str(names.get_name(name, (".weight",))), own.contiguous().numpy())
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()


def test_gguf_becomes_a_clean_folder_with_tied_weights_once_and_the_same_bytes_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a tiny Llama whose rows begin with a token, which is not its end-of-text token."""
    source = tiny_model(tmp_path / "llama", "llama")
    write_gguf(tmp_path / "x.gguf", source, end=7, starts=True)
    files = {"model.gguf": {"path": "x.gguf", "sha256": sha256_of(tmp_path / "x.gguf")}}
    entry = {"format": "gguf", "source": f"file:{tmp_path}", "files": files, "prompt_template": "chat-template"}
    params = shipped_params()
    params["models"]["smollm2"] = entry
    made, again = tmp_path / "made", tmp_path / "again"
    for folder in (made, again):
        folder.mkdir()
        fetch_model(parse_params(params), folder)
    assert set(contents(made)) == {*MODEL_FILES} and contents(made) == contents(again)
    assert capsys.readouterr() == ("", ""), "no bars of the library's"
    stored = load_file(made / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    configuration = json.loads((made / "config.json").read_bytes())
    assert "quantization_config" not in configuration and list(configuration) == sorted(configuration)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    original, ids = AutoModelForCausalLM.from_pretrained(source), torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(model(ids).logits, original(ids).logits)
    assert (tokenizer.eos_token_id, tokenizer.clean_up_tokenization_spaces) == (7, False)
    assert row_start(tokenizer) == [tokenizer.bos_token_id]
    write_gguf(tmp_path / "x.gguf", source, end=7, starts=False, without="model.norm.weight")
    with pytest.raises(StageError, match=r"^key: this GGUF file lacks model\.norm\.weight; "):
        convert_gguf("key", tmp_path / "x.gguf", made)


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\0\0\0" + bytes(100)])
def test_what_is_no_gguf_is_an_error_of_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(StageError, match=r"^key: .*GGUF file"):
        convert_gguf("key", tmp_path / "model.gguf", tmp_path)
