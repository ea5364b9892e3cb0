"""The hub, with real requests over loopback: the entries of params.yaml, and everything that can go wrong."""

import io
import json
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.file_download import http_get
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.download.retries import TransientError
from stages.download.transfers import BoundedTransfer
from tests.helpers_data import (
    eou,
    run_module,
    sha256,
    zip_of,
)
from tests.hub_project import DIALOGPT, GPT2, Project, dialogpt_files, stored
from tests.hub_server import LARGE, LIST, Fault, HubServer, etag_of
from tests.tiny import tiny_dialogues, tiny_tokenizer

SPLITS = ("train", "validation", "test")
DIALOGUES = "datasets/roskoN/dailydialog"


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    """Archives laid out like those of roskoN/dailydialog."""
    texts = {split: eou(tiny_dialogues(60, seed)) for seed, split in enumerate(SPLITS)}
    return {
        f"{split}.zip": zip_of({f"{split}/dialogues_{split}.txt": text, f"{split}/dialogues_act_{split}.txt": b"1 2\n"})
        for split, text in texts.items()
    }


def test_gpt2_comes_as_shipped_and_loads(project: Project, weights: Path) -> None:
    files = project.serve_gpt2(weights)
    project.succeeds()
    folder = project.folder / "data/model"
    for name in project.params["models"]["gpt2"]["files"]:
        assert (folder / name).read_bytes() == files[name], name
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(model.get_parameter(f"transformer.{name}"), tensor) for name, tensor in stored(weights))
    assert model.lm_head.weight is model.get_parameter("transformer.wte.weight")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("my sister is really great").input_ids) == "my sister is really great"
    commit = project.revision("models", "gpt2")
    assert all(commit in path for _, path in project.hub.requests if "/resolve/" in path)


def test_dialogpt_stays_half_precision_and_its_tokenizer_is_built_from_its_vocabulary(
    project: Project, weights: Path
) -> None:
    project.hub.add(DIALOGPT, project.revision("models", "dialogpt"), dialogpt_files(weights))
    project.params["model"] = "dialogpt"
    project.succeeds()
    folder = project.folder / "data/model"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert all(
        torch.equal(model.get_parameter(f"transformer.{name}"), tensor.half().float())
        for name, tensor in stored(weights)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer("really great").input_ids == tiny_tokenizer()("really great").input_ids


def pin_dailydialog(params: dict[str, Any], archives: dict[str, bytes]) -> None:
    """Put the sha256 of the test's archives into the entry of params.yaml."""
    params["dataset"] = "dailydialog"
    files = params["datasets"]["dailydialog"]["files"]
    files["train"]["sha256"] = sha256(archives["train.zip"])
    for seed, split in enumerate(SPLITS):
        if "member_sha256" in files[split]:
            files[split]["member_sha256"] = sha256(eou(tiny_dialogues(60, seed)))


def test_dailydialog_comes_out_of_its_archives(project: Project, corpus: dict[str, bytes]) -> None:
    project.hub.add(DIALOGUES, "c" * 40, corpus)
    pin_dailydialog(project.params, corpus)
    project.succeeds()
    for seed, split in enumerate(SPLITS):
        assert (project.folder / f"data/dialogues/{split}.txt").read_bytes() == eou(tiny_dialogues(60, seed))


@pytest.mark.parametrize(
    ("name", "column"), [("li2017dailydialog/daily_dialog", "dialog"), ("roskoN/dailydialog", "utterances")]
)
def test_dailydialog_as_parquet_comes_from_the_branch_that_the_hub_makes(
    project: Project, name: str, column: str
) -> None:
    tables = {}
    for seed, split in enumerate(SPLITS):
        buffer = pa.BufferOutputStream()
        pyarrow.parquet.write_table(pa.table({column: tiny_dialogues(20, seed), "act": [[1]] * 20}), buffer)
        tables[f"default/{split}/0000.parquet"] = buffer.getvalue().to_pybytes()
    branch = "refs/convert/parquet"
    project.hub.add(f"datasets/{name}", "d" * 40, tables, branches=[branch])
    files = {path.split("/")[1]: {"path": path, "sha256": sha256(content)} for path, content in tables.items()}
    source = f"hub:datasets/{name}@{branch}"
    project.params["datasets"]["parquet"] = {"format": "parquet", "source": source, "files": files}
    project.params["dataset"] = "parquet"
    project.succeeds()
    arguments = ("--dialogues", "data/dialogues", "--pairs", "data/pairs", "--report", "metrics/pairs.json")
    done = run_module("stages.pair_extract", project.folder, arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((project.folder / "metrics/pairs.json").read_bytes())
    assert report["train"]["pairs"] == sum(len(turns) // 2 for turns in tiny_dialogues(20))


def test_a_wrong_revision_is_named_and_not_tried_again(project: Project, weights: Path) -> None:
    project.serve_gpt2(weights)
    project.hub.repositories[GPT2].commit = "e" * 40
    line = project.fails()
    assert line.startswith("ERROR download: models.gpt2.files.config.json: ")
    assert f"has no revision {project.revision('models', 'gpt2')}" in line
    assert len([path for _, path in project.hub.requests if "/resolve/" in path]) == 1


def test_a_missing_repository_is_named(project: Project) -> None:
    project.params["model"] = "dialogpt"
    assert "the hub has no model microsoft/DialoGPT-small, or it is private" in project.fails()


def test_a_missing_file_is_named(project: Project, weights: Path) -> None:
    project.serve_gpt2(weights, vocab=None)
    line = project.fails()
    assert "models.gpt2.files.vocab.json: openai-community/gpt2 at 607a30d" in line
    assert "has no file vocab.json; fix files" in line
    assert "pickle" not in line


def test_a_repository_with_only_a_pickle_is_refused(project: Project, weights: Path) -> None:
    project.serve_gpt2(weights, model=None)
    project.hub.repositories[GPT2].files["pytorch_model.bin"] = b"\x80\x04."
    line = project.fails()
    assert "no file model.safetensors: its weights are pytorch_model.bin, a format that can hold a pickle" in line
    assert not any("pytorch_model.bin" in path for _, path in project.hub.requests)


def test_a_list_of_files_that_does_not_come_is_not_waited_for(project: Project, weights: Path) -> None:
    project.serve_gpt2(weights, model=None)
    project.hub.faults[LIST] = Fault("stall")
    assert "no file model.safetensors; fix files, or " in project.fails()


def test_a_pickle_under_the_name_of_safetensors_is_refused(project: Project, weights: Path) -> None:
    torch.save({"transformer.wte.weight": torch.zeros(3)}, project.folder / "weights.pt")
    project.serve_gpt2(weights, model=(project.folder / "weights.pt").read_bytes())
    assert "model.safetensors: not safetensors but a zip archive, like pickled" in project.fails()


def test_a_configuration_that_names_code_is_refused(project: Project, weights: Path) -> None:
    configuration = json.loads((weights / "config.json").read_bytes())
    configuration["auto_map"] = {"AutoModelForCausalLM": "modeling.Evil"}
    project.serve_gpt2(weights, config=json.dumps(configuration).encode())
    assert "config.json: auto_map: it makes transformers load code" in project.fails()


def test_a_body_cut_once_is_completed(project: Project, weights: Path) -> None:
    files = project.serve_gpt2(weights)
    project.hub.faults["model.safetensors"] = Fault("truncate", times=1)
    project.succeeds()
    assert (project.folder / "data/model/model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_body_cut_every_time_is_given_up_on(project: Project, weights: Path) -> None:
    project.serve_gpt2(weights)
    project.hub.ranges = False
    project.hub.faults["model.safetensors"] = Fault("truncate")
    line = project.fails()
    assert "downloading model.safetensors failed 3 times (1. " in line
    assert "file:FOLDER" in line


@pytest.mark.usefixtures("hub_allowed")
def test_a_transfer_that_starts_again_for_ever_is_ended(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub restarts its count of attempts at every piece (10 MB); without ranges it never gives up."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.add(GPT2, "a" * 40, {"large": bytes(10_000)})
    hub.ranges = False
    hub.faults["large"] = Fault("truncate")
    address = f"{hub.address}/storage/{GPT2}@{'a' * 40}/large"
    with pytest.raises(TransientError, match="the transfer of 10000 bytes was cut short every time"):
        http_get(address, io.BytesIO(), expected_size=10_000, tqdm_class=BoundedTransfer)
    assert len(hub.requests) < 10


def test_a_server_that_stops_in_the_middle_is_left_and_asked_again(project: Project, weights: Path) -> None:
    files = project.serve_gpt2(weights)
    project.hub.faults["model.safetensors"] = Fault("stall", times=1)
    project.succeeds()
    assert (project.folder / "data/model/model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_wrong_sha256_names_both_and_the_key(project: Project, corpus: dict[str, bytes]) -> None:
    project.hub.add(DIALOGUES, "c" * 40, corpus)
    pin_dailydialog(project.params, corpus)
    project.params["datasets"]["dailydialog"]["files"]["train"]["sha256"] = "0" * 64
    line = project.fails()
    assert "datasets.dailydialog.files.train.sha256: " in line
    assert sha256(corpus["train.zip"]) in line
    assert "0" * 64 in line


def test_bytes_that_are_not_what_the_hub_announced_are_found_without_a_sha256_in_params(
    project: Project, weights: Path
) -> None:
    project.serve_gpt2(weights)
    project.hub.faults["model.safetensors"] = Fault("other-bytes")
    assert "the file's sha256 is not the one that the hub announced" in project.fails()


def test_a_damaged_file_in_the_cache_of_the_hub_is_replaced(project: Project, weights: Path) -> None:
    files = project.serve_gpt2(weights)
    project.succeeds()
    (blob,) = (project.folder / "home").rglob(f"blobs/{sha256(files['model.safetensors'])}")
    blob.write_bytes(files["model.safetensors"][:-1] + b"x")
    project.succeeds()
    assert (project.folder / "data/model/model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_damaged_small_file_in_the_cache_is_replaced_if_it_is_pinned(project: Project) -> None:
    """The hub names small files by git's hash, so only the sha256 in params.yaml finds the damage."""
    content = (project.folder / "sources/all.jsonl").read_bytes()
    assert len(content) < LARGE
    project.hub.add("datasets/me/small", "f" * 40, {"all.jsonl": content})
    project.params["datasets"]["local"]["source"] = "hub:datasets/me/small@main"
    project.succeeds()
    (blob,) = (project.folder / "home").rglob(f"blobs/{etag_of(content)}")
    blob.write_bytes(content[:-2] + b" \n")
    project.succeeds()
    assert (project.folder / "data/dialogues/all.jsonl").read_bytes() == content


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_server_that_fails_twice_and_then_works_is_enough(project: Project, weights: Path, method: str) -> None:
    project.serve_gpt2(weights)
    project.hub.faults["model.safetensors"] = Fault("500", method, times=2)
    project.succeeds()
    assert project.hub.faults["model.safetensors"].times == 0


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_server_that_always_fails_is_given_up_on(project: Project, weights: Path, method: str) -> None:
    project.serve_gpt2(weights)
    project.hub.faults["model.safetensors"] = Fault("500", method)
    line = project.fails()
    assert "500" in line
    assert "file:FOLDER" in line


def test_without_a_server_the_message_says_how_to_go_on(project: Project) -> None:
    project.params["dataset"] = "dailydialog"
    line = project.fails(HF_ENDPOINT="http://127.0.0.1:9")
    assert line.startswith("ERROR download: datasets.dailydialog.files.test: no answer from the hub for roskoN/")
    assert "use a local copy (source: file:FOLDER), or the default (dataset: chitchat, model: smollm2)" in line


def test_what_was_downloaded_once_is_there_without_a_server(project: Project, weights: Path) -> None:
    files = project.serve_gpt2(weights)
    project.succeeds()
    done = project.download(HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert (project.folder / "data/model/model.safetensors").read_bytes() == files["model.safetensors"]


def test_the_users_token_goes_to_the_hub_and_to_nobody_else(project: Project, weights: Path) -> None:
    project.serve_gpt2(weights, vocab=None)
    line = project.fails(HF_TOKEN="hf_abcdefghijklmnop")
    assert "hf_abcdefghijklmnop" not in line
    project.serve_gpt2(weights)
    done = project.download(HF_TOKEN="hf_abcdefghijklmnop")
    assert done.returncode == 0, done.stderr
    assert "hf_abcdefghijklmnop" not in done.stdout + done.stderr
    assert set(project.hub.tokens) == {"127.0.0.1 with token", "localhost without token"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_in_a_download_leaves_nothing_half_done(
    project: Project, weights: Path, number: signal.Signals, code: int
) -> None:
    files = project.serve_gpt2(weights)
    project.hub.faults["model.safetensors"] = Fault("stall", times=1)
    ended, stderr = project.signalled(number, "model.safetensors")
    assert ended == code, stderr
    names = {path.name for path in (project.folder / "data").iterdir()}
    assert not names & {"dialogues", "model"}
    assert number == signal.SIGKILL or not names
    project.succeeds()
    assert (project.folder / "data/model/model.safetensors").read_bytes() == files["model.safetensors"]
    assert {path.name for path in (project.folder / "data").iterdir()} == {"dialogues", "model"}
