"""The hub and addresses, with real requests over loopback: the entries of params.yaml, and what can go wrong."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.download.fetch import fetch, fetch_dialogues
from stages.params.schema import parse_params
from stages.params.sources import SourceFile, parse_source
from stages.plumbing.errors import StageError
from tests.helpers_data import eou, sha256, shipped, zip_of
from tests.hub_project import DIALOGPT, GPT2, Project, dialogpt_files, stored
from tests.hub_server import SIGNATURE, TOKEN, Fault, HubServer, etag_of
from tests.tiny import tiny_dialogues, tiny_tokenizer

COMMIT = "a" * 40
SMALL, LARGE = b"small", bytes(range(256)) * 40  # the hub stores large files elsewhere
FILE = "model.safetensors"


@pytest.fixture
def served(hub: HubServer) -> HubServer:
    hub.add("me/it", COMMIT, {FILE: LARGE, "config.json": SMALL}, branches=["main", "refs/convert/parquet"])
    return hub


def get(folder: Path, name: str = FILE, source: str = f"hub:me/it@{COMMIT}", **entry: str) -> bytes:
    """What is fetched into a folder; after an error nothing is there."""
    fetch("models.x.files.it", parse_source(source), SourceFile(**entry), name, folder / "fetched")
    return (folder / "fetched").read_bytes()


def url_of(hub: HubServer) -> str:
    return f"url:{hub.address}/storage/me/it@{COMMIT}"


def failure(folder: Path, *words: str, **entry: str) -> str:
    began = time.monotonic()
    with pytest.raises(StageError) as caught:
        get(folder, *words, **entry)
    assert time.monotonic() - began < 60
    assert not (folder / "fetched").exists()
    assert not list(folder.glob("state/scratch-*"))
    assert str(caught.value).startswith("models.x.files.it: cannot ")
    return str(caught.value)


# --- the entries of params.yaml ------------------------------------------------------------------------------------


def test_gpt2_comes_as_shipped_after_a_cut_without_xet_and_without_bars_and_secrets_in_the_log(
    project: Project, weights: Path
) -> None:
    files = {path.name: path.read_bytes() for path in weights.iterdir()}
    project.serve("gpt2", GPT2, files)
    project.hub.faults[FILE] = Fault("truncate", times=1)
    printed = project.succeeds(HF_TOKEN=TOKEN)
    assert printed.splitlines() == ["local in data/dialogues, gpt2 in data/model"]
    assert set(project.hub.tokens) == {"127.0.0.1 with token", "localhost without token"}
    assert not any("xet" in path for _, path in project.hub.requests)
    commit = project.hub.repositories[GPT2].commit
    assert all(commit in path for _, path in project.hub.requests if "/resolve/" in path)
    folder = project.folder / "data/model"
    for name in project.params["models"]["gpt2"]["files"]:
        assert (folder / name).read_bytes() == files[name], name
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(model.get_parameter(f"transformer.{name}"), tensor) for name, tensor in stored(weights))
    assert model.lm_head.weight is model.get_parameter("transformer.wte.weight")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("my sister is really great").input_ids) == "my sister is really great"


def test_dialogpt_and_dailydialog_come_as_their_entries_say(project: Project, weights: Path) -> None:
    """DialoGPT stays in half precision and its tokenizer is made of its vocabulary; DailyDialog leaves its archives."""
    project.serve("dialogpt", DIALOGPT, dialogpt_files(weights))
    texts = {split: eou(tiny_dialogues(60, seed)) for seed, split in enumerate(("train", "validation", "test"))}
    archives = {
        f"{split}.zip": zip_of({f"{split}/dialogues_{split}.txt": text, f"{split}/dialogues_act_{split}.txt": b"1 2\n"})
        for split, text in texts.items()
    }
    project.hub.add("datasets/roskoN/dailydialog", "c" * 40, archives)
    project.params["dataset"] = "dailydialog"
    files = project.params["datasets"]["dailydialog"]["files"]
    files["train"]["sha256"] = sha256(archives["train.zip"])
    for split in ("validation", "test"):
        files[split]["member_sha256"] = sha256(texts[split])
    project.succeeds()
    for split, text in texts.items():
        assert (project.folder / f"data/dialogues/{split}.txt").read_bytes() == text
    folder = project.folder / "data/model"
    assert {tensor.dtype for tensor in load_file(folder / FILE).values()} == {torch.float16}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert all(
        torch.equal(model.get_parameter(f"transformer.{name}"), each.half().float()) for name, each in stored(weights)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer("really great").input_ids == tiny_tokenizer()("really great").input_ids


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_in_a_download_leaves_nothing_half_done(
    project: Project, weights: Path, number: signal.Signals, code: int
) -> None:
    files = {path.name: path.read_bytes() for path in weights.iterdir()}
    project.serve("gpt2", GPT2, files)
    project.hub.faults[FILE] = Fault("stall", times=1)
    ended, stderr = project.signalled(number, FILE)
    assert ended == code, stderr
    names = {path.name for path in (project.folder / "data").iterdir()}
    assert not names & {"dialogues", "model"}
    assert number == signal.SIGKILL or not names
    project.succeeds()
    assert (project.folder / "data/model" / FILE).read_bytes() == files[FILE]
    assert {path.name for path in (project.folder / "data").iterdir()} == {"dialogues", "model"}


def test_a_configuration_that_names_code_is_refused_before_anything_is_replaced(
    project: Project, weights: Path
) -> None:
    files = {path.name: path.read_bytes() for path in weights.iterdir()}
    configuration = json.loads(files["config.json"]) | {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}
    project.serve("gpt2", GPT2, files | {"config.json": json.dumps(configuration).encode()})
    assert "models.gpt2.files.config.json: auto_map: it makes transformers load code" in project.fails()


# --- what heals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FILE, "config.json"])
@pytest.mark.parametrize("revision", [COMMIT, "main", "refs/convert/parquet"])
def test_a_file_comes_from_the_hub_once_and_is_there_without_it(
    served: HubServer, name: str, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = served.repositories["me/it"].files[name]
    for again in (False, True):
        if again:
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{filename}")
        assert get(tmp_path, name, f"hub:me/it@{revision}", sha256=sha256(content)) == content


@pytest.mark.parametrize("fault", [Fault("truncate", times=1), Fault("stall", times=1), Fault("500", "HEAD", times=2)])
def test_a_cut_a_silent_and_a_busy_hub_is_asked_again(served: HubServer, fault: Fault, tmp_path: Path) -> None:
    served.faults[FILE] = fault
    assert get(tmp_path) == LARGE
    assert fault.times == 0


@pytest.mark.parametrize("kind", ["500", "429"])
def test_a_busy_address_is_asked_again_though_it_wants_us_to_wait_for_a_day(
    served: HubServer, kind: str, tmp_path: Path
) -> None:
    served.faults[FILE] = Fault(kind, times=2)
    assert get(tmp_path, FILE, url_of(served), sha256=sha256(LARGE)) == LARGE


def test_a_new_entry_for_a_pinned_file_needs_no_network(hub: HubServer, tmp_path: Path) -> None:
    text = b'["hi", "hello"]\n'
    hub.add("me/it", COMMIT, {"x.jsonl": text})
    params = shipped()
    entry = {"format": "jsonl", "source": url_of(hub), "split": {"validation": 1, "test": 1, "seed": 0}}
    entry["files"] = {"all": {"path": "x.jsonl", "sha256": sha256(text)}}
    for name, source in (("first", url_of(hub)), ("second", "url:http://127.0.0.1:9")):
        params["datasets"][name], params["dataset"] = {**entry, "source": source}, name
        (tmp_path / name).mkdir()
        fetch_dialogues(parse_params(params), tmp_path / name)
        assert (tmp_path / name / "all.jsonl").read_bytes() == text


def test_what_an_address_has_is_fetched_once_even_for_two_members_and_again_if_it_was_damaged(
    hub: HubServer, tmp_path: Path
) -> None:
    archive = zip_of({"a/one": b"1", "a/two": b"2"})
    hub.add("me/it", COMMIT, {"x.zip": archive})
    for member, content in (("one", b"1"), ("two", b"2")):
        assert get(tmp_path, "x.zip", url_of(hub), sha256=sha256(archive), member=member) == content
    assert len(hub.requests) == 1
    (kept,) = (tmp_path / "state/downloads").iterdir()
    kept.write_bytes(archive[:-1])
    assert get(tmp_path, "x.zip", url_of(hub), sha256=sha256(archive)) == archive
    assert len(hub.requests) == 2


@pytest.mark.parametrize(("name", "entry"), [(FILE, {}), ("config.json", {"sha256": sha256(SMALL)})])
def test_a_damaged_file_in_the_cache_of_the_hub_is_replaced(
    served: HubServer, name: str, entry: dict[str, str], tmp_path: Path
) -> None:
    """The name of a large file in the cache is its sha256; of a small one only the sha256 in params.yaml is known."""
    content = served.repositories["me/it"].files[name]
    get(tmp_path, name, **entry)
    (blob,) = (tmp_path / "cache").rglob(f"blobs/{etag_of(content)}")
    blob.write_bytes(content[:-1] + b"x")
    assert get(tmp_path, name, **entry) == content


# --- what does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "found"),
    [
        (f"hub:me/it@{'b' * 40}", FILE, "Revision Not Found"),
        (f"hub:me/other@{COMMIT}", FILE, "Repository Not Found"),
        (f"hub:me/it@{COMMIT}", "vocab.json", "Entry Not Found"),
    ],
)
def test_what_the_hub_does_not_have_is_named_and_asked_for_once(
    served: HubServer, source: str, name: str, found: str, tmp_path: Path
) -> None:
    message = failure(tmp_path, name, source)
    assert found in message and f"cannot get {name} of me/" in message
    assert "fix the source or files (no pickle is ever loaded), log in with `hf auth login`" in message
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("fault", "piece"),
    [
        (Fault("500", "HEAD"), 10_000_000),
        (Fault("500"), 10_000_000),
        (Fault("stall"), 10_000_000),
        (Fault("truncate"), 10_000_000),
        (Fault("truncate"), 1000),  # a cut behind the first piece, after which huggingface_hub starts over for ever
    ],
)
def test_a_hub_that_never_sends_a_whole_file_is_given_up_on(
    served: HubServer, fault: Fault, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", piece)
    served.ranges = False
    served.faults[FILE] = fault
    message = failure(tmp_path)
    assert "use a local copy (source: file:FOLDER), or the default (dataset: chitchat" in message
    assert SIGNATURE not in message


@pytest.mark.parametrize("kind", ["500", "truncate", "stall"])
def test_an_address_that_never_sends_a_whole_file_is_given_up_on(served: HubServer, kind: str, tmp_path: Path) -> None:
    served.faults[FILE] = Fault(kind)
    message = failure(
        tmp_path, "", f"{url_of(served)}/{FILE}?{SIGNATURE}".replace("url", "url-with-query", 1), sha256=sha256(LARGE)
    )
    assert "use a local copy (source: file:FOLDER)" in message
    assert SIGNATURE not in message
    assert len(served.requests) == (4 if kind == "500" else 1)


def test_no_server_and_a_wrong_address_say_how_to_go_on(served: HubServer, tmp_path: Path) -> None:
    nowhere = failure(tmp_path, "", f"url-with-query:http://127.0.0.1:9/x?{SIGNATURE}", sha256=sha256(LARGE))
    assert "or the default (dataset: chitchat, model: smollm2)" in nowhere and SIGNATURE not in nowhere
    wrong = failure(tmp_path, "wrong", f"url:{served.address}", sha256=sha256(LARGE))
    assert "404" in wrong and "fix the source" in wrong
    assert len(served.requests) == 1


@pytest.mark.parametrize("source", [f"hub:me/it@{COMMIT}", "url"])
def test_other_bytes_than_those_that_are_pinned_or_announced_are_refused(
    served: HubServer, source: str, tmp_path: Path
) -> None:
    served.faults[FILE] = Fault("other-bytes")
    found, pinned = sha256(bytes([1]) + LARGE[1:]), sha256(LARGE)
    source, entry = (url_of(served), {"sha256": pinned}) if source == "url" else (source, {})
    with pytest.raises(StageError, match=rf"^models\.x\.files\.it\.sha256: .* sha256 {found}, not {pinned}; try again"):
        get(tmp_path, FILE, source, **entry)
    assert not (tmp_path / "state/downloads").exists()


def test_an_error_page_in_place_of_data_is_recognised(hub: HubServer, tmp_path: Path) -> None:
    hub.add("me/it", COMMIT, {FILE: b"\n <!DOCTYPE html><html>Please log in</html>"})
    with pytest.raises(StageError, match=r"\(they look like a web page, not data\), not"):
        get(tmp_path, FILE, url_of(hub), sha256=sha256(LARGE))
