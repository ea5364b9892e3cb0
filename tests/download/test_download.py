"""The download stage: both outputs or none, clean model folders, the same bytes twice."""

import argparse
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.download.__main__ import main
from stages.download.fetch import fetch_dialogues, fetch_model
from stages.download.model_folder import check_model_folder, convert_gguf
from stages.params.schema import parse_params
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, sha256_of
from tests.helpers_data import (
    DOWNLOAD,
    environment,
    local_dialogues,
    local_model,
    sha256,
    shipped,
    write_params,
    zip_of,
)
from tests.tiny import MODEL_FILES, tiny_model, tiny_tokenizer

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def params(tmp_path: Path, weights: Path) -> dict[str, Any]:
    value = shipped()
    value["datasets"]["x"] = local_dialogues(tmp_path / "corpus")
    value["models"]["x"] = local_model(weights)
    return value | {"dataset": "x", "model": "x"}


def download(folder: Path, params: dict[str, Any]) -> None:
    write_params(folder, params)
    main(argparse.Namespace(dialogues=folder / "data/dialogues", model=folder / "data/model"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_outputs_are_copies_with_a_manifest_and_if_one_fails_neither_changes(
    tmp_path: Path, params: dict[str, Any], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
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
    with pytest.raises(
        StageError, match=rf"^models\.x\.files\.config\.json\.sha256: .*{sha256_of(weights / 'config.json')}"
    ):
        download(tmp_path, params)
    assert contents(tmp_path / "data") == before


def test_a_mistake_in_params_is_found_before_anything_is_downloaded(
    tmp_path: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params["protocols"]["paper"]["training"]["early_stopping_patience"] = 0
    with pytest.raises(
        StageError, match=r"^params\.yaml: protocols\.paper\.training\.early_stopping_patience: found 0; "
    ):
        download(tmp_path, params)
    assert not (tmp_path / "data").exists()


def test_further_references_arrive_beside_the_corpus_from_its_folder_or_from_their_own(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    for folder, more in (("corpus", {}), ("elsewhere", {"source": f"file:{tmp_path / 'elsewhere'}"})):
        content = f'{{"query": "{folder}", "references": []}}\n'.encode()
        (tmp_path / folder / "more.json").write_bytes(content)
        params["datasets"]["x"]["files"]["references"] = {"path": "more.json", "sha256": sha256(content), **more}
        made = tmp_path / f"from-{folder}"
        made.mkdir()
        fetch_dialogues(parse_params(params), made)
        assert set(contents(made)) == {"all.jsonl", "references.json"}
        assert (made / "references.json").read_bytes() == content
    params["datasets"]["x"]["files"]["references"]["sha256"] = "0" * 64
    with pytest.raises(StageError, match=r"^datasets\.x\.files\.references\.sha256: "):
        fetch_dialogues(parse_params(params), made)


def test_a_corpus_inside_an_archive_and_sharded_half_precision_weights_arrive(
    tmp_path: Path, params: dict[str, Any], weights: Path
) -> None:
    text = (tmp_path / "corpus/all.jsonl").read_bytes()
    archive = zip_of({"folder/all.jsonl": text})
    (tmp_path / "corpus/x.zip").write_bytes(archive)
    params["datasets"]["x"]["files"]["all"] = {"path": "x.zip", "member": "all.jsonl", "sha256": sha256(archive)}
    sharded, made = tmp_path / "sharded", tmp_path / "made"
    made.mkdir()
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float16)
    model.save_pretrained(sharded, max_shard_size="30KB")
    shutil.copy(weights / "tokenizer.json", sharded)
    params["models"]["x"] = local_model(sharded)
    fetch_dialogues(parse_params(params), made)
    assert (made / "all.jsonl").read_bytes() == text
    fetch_model(parse_params(params), made)
    assert len(list(made.glob("*.safetensors"))) > 1
    for name, content in contents(sharded).items():
        assert (made / name).read_bytes() == content


# --- no foreign code -----------------------------------------------------------------------------------------------


def refusal(folder: Path) -> str:
    with pytest.raises(StageError) as caught:
        check_model_folder("models.x.files", folder)
    return str(caught.value).removeprefix("models.x.files.")


def a_copy(weights: Path, folder: Path) -> Path:
    for name, content in contents(weights).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("content", [b"\x80\x02crest", b"", struct.pack("<Q", 1 << 60), None])
def test_weights_that_are_not_safetensors_are_refused_whatever_their_name(
    content: bytes | None, weights: Path, tmp_path: Path
) -> None:
    path = a_copy(weights, tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    assert refusal(tmp_path).startswith("model.safetensors: not safetensors (")


@pytest.mark.parametrize("length", [0x80, 0x280])  # 0x80, or 0x80 0x02: how a pickle begins
def test_weights_whose_header_has_a_length_that_looks_like_a_pickle_are_taken(
    length: int, weights: Path, tmp_path: Path
) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path = a_copy(weights, tmp_path) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + struct.pack("<f", 1))
    check_model_folder("key", tmp_path)


@pytest.mark.parametrize(
    ("file", "added", "key"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.X"}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "a--b.C"}}}, "text_config.auto_map"),
        ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "a.B"}}}, "custom_pipelines"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ("config.json", {"attn_implementation": "someone/kernels"}, "attn_implementation"),
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
    assert refusal(tmp_path).startswith(f"{file}: {key}: it makes transformers load code or a converter; ")


def test_a_word_of_the_vocabulary_is_no_configuration(weights: Path, tmp_path: Path) -> None:
    (a_copy(weights, tmp_path) / "vocab.json").write_text('{"auto_map": 3}')
    configuration = json.loads((tmp_path / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(configuration | {"attn_implementation": "sdpa", "auto_map": None}))
    check_model_folder("key", tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "missing.safetensors"])
def test_an_index_can_only_name_shards_that_are_there(name: str, weights: Path, tmp_path: Path) -> None:
    (a_copy(weights, tmp_path) / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(tmp_path).startswith(f"model.safetensors.index.json: it names '{name}'")


@pytest.mark.parametrize("content", [b"[]", b"\xff", b"[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_refused(content: bytes, weights: Path, tmp_path: Path) -> None:
    (a_copy(weights, tmp_path) / "config.json").write_bytes(content)
    assert refusal(tmp_path).startswith("config.json: not a JSON object (")


# --- GGUF ----------------------------------------------------------------------------------------------------------


def interleaved(rows: Array, heads: int) -> Array:
    """Queries and keys in GGUF's order for the rotary embedding: the two halves of each head interleaved."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape))


def write_gguf(folder: Path) -> Path:
    """Write a tiny Llama as GGUF."""
    source = tiny_model(folder / "llama", "llama")
    configuration = json.loads((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    path = folder / "tiny.gguf"
    vocabulary = tiny_tokenizer().get_vocab()
    end = vocabulary["<|endoftext|>"]
    merges = json.loads(tiny_tokenizer().backend_tokenizer.to_str())["model"]["merges"]
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {
        "name": "Tiny", "vocab_size": configuration["vocab_size"], "embedding_length": configuration["hidden_size"],
        "context_length": configuration["max_position_embeddings"], "rope_freq_base": 10_000.0,
        "feed_forward_length": configuration["intermediate_size"], "block_count": configuration["num_hidden_layers"],
        "head_count": configuration["num_attention_heads"], "head_count_kv": configuration["num_key_value_heads"],
        "layer_norm_rms_eps": configuration["rms_norm_eps"], "tokenizer_model": "gpt2", "bos_token_id": end,
        "eos_token_id": end, "token_list": sorted(vocabulary, key=lambda token: vocabulary[token]),
        "token_types": [3 if number == end else 1 for number in range(len(vocabulary))],
        "token_merges": [" ".join(merge) for merge in merges],
    }.items():  # fmt: skip
        getattr(writer, f"add_{key}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, configuration["num_hidden_layers"])
    for name, tensor in tensors.items():
        stem, _, suffix = name.rpartition(".")
        found = names.get_name(stem)
        assert found is not None, name
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(stem.rpartition(".")[2])
        array = tensor.numpy() if heads is None else interleaved(tensor.numpy(), configuration[heads])
        writer.add_tensor(f"{found}.{suffix}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_becomes_a_clean_folder_with_tied_weights_once_and_the_same_bytes_twice(tmp_path: Path) -> None:
    path = write_gguf(tmp_path)
    value = shipped()
    value["datasets"]["x"] = local_dialogues(tmp_path / "corpus")
    entry = {"path": path.name, "sha256": sha256_of(path)}
    gguf_model = {"format": "gguf", "files": {"model.gguf": entry}, "prompt_template": "chat-template"}
    value["models"]["x"] = {**gguf_model, "source": f"file:{tmp_path}"}
    write_params(tmp_path, value | {"dataset": "x", "model": "x"})
    variables = environment(PYTHONHASHSEED="1")
    done = subprocess.run(DOWNLOAD, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # no bars in a log
    written = contents(tmp_path / "data/model")
    assert set(written) == {*MODEL_FILES, "manifest.json"}
    (tmp_path / "again").mkdir()
    convert_gguf("key", path, tmp_path / "again")  # in this process, which has another hash seed
    for name, content in contents(tmp_path / "again").items():
        assert content == written[name], name
    stored = load_file(tmp_path / "data/model/model.safetensors")
    assert "lm_head.weight" not in stored
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert "quantization_config" not in json.loads(written["config.json"])
    check_model_folder("key", tmp_path / "data/model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "data/model")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    original = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(model(ids).logits, original(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "data/model")
    text = "my sister , is really great . Oh , why ?"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.clean_up_tokenization_spaces is False
    assert tokenizer.eos_token_id == model.config.eos_token_id


def test_the_tokenizers_end_of_text_is_the_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In SmolLM2's GGUF one is <|im_start|> and the other <|im_end|>."""
    path = write_gguf(tmp_path)
    load = AutoModelForCausalLM.from_pretrained

    def disagreeing(*words: Any, **options: Any) -> Any:
        model = load(*words, **options)
        model.config.eos_token_id = [7]
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", disagreeing)
    (tmp_path / "out").mkdir()
    convert_gguf("key", path, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == 7


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\0\0\0" + bytes(100)])
def test_what_is_no_gguf_is_an_error_of_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(StageError, match=r"^key: .*GGUF file"):
        convert_gguf("key", tmp_path / "model.gguf", tmp_path)
