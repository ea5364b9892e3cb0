"""The hub and addresses, with real requests over loopback: the entries of params.yaml, and what can go wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from stages.download.fetch import fetch
from stages.params.sources import SourceFile, parse_source
from stages.plumbing.errors import StageError
from tests.download.hub import SIGNATURE, Fault, Hub, etag_of
from tests.helpers_data import local_dialogues, sha256, zip_of
from tests.tiny import ROOT, shipped_params, write_yaml

COMMIT = "a" * 40
SMALL, LARGE = b"small", bytes(range(256)) * 40  # the hub stores large files elsewhere
FILE = "model.safetensors"


@pytest.fixture
def served(hub: Hub) -> Hub:
    hub.add("me/it", COMMIT, {FILE: LARGE, "config.json": SMALL})
    return hub


def get(folder: Path, name: str = FILE, source: str = f"hub:me/it@{COMMIT}", **entry: str) -> bytes:
    fetch("models.x.files.it", parse_source(source), SourceFile(**entry), name, folder / "fetched")
    return (folder / "fetched").read_bytes()


def url_of(hub: Hub) -> str:
    return f"url:{hub.address}/storage/me/it@{COMMIT}"


def failure(folder: Path, *words: str, **entry: str) -> str:
    with pytest.raises(StageError) as caught:
        get(folder, *words, **entry)
    assert not (folder / "fetched").exists()
    assert not list(folder.glob("state/.tmp-*"))
    assert str(caught.value).startswith("models.x.files.it: cannot ")
    return str(caught.value)


@pytest.fixture
def project(hub: Hub, weights: Path, tmp_path: Path) -> dict[str, str]:
    """gpt2, at its pinned commit, and a local corpus as a project in tmp_path; the environment of its stages."""
    files = {path.name: path.read_bytes() for path in weights.iterdir()}
    params = shipped_params()
    hub.add("openai-community/gpt2", params["models"]["gpt2"]["source"].partition("@")[2], files)
    params["datasets"]["local"] = local_dialogues(tmp_path / "sources")
    write_yaml(tmp_path / "params.yaml", params | {"dataset": "local", "model": "gpt2"})
    # The real waits between attempts are too long for a test.
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    own |= {"PYTHONPATH": f"{tmp_path}:{ROOT}", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return {**os.environ, **own}


def start(folder: Path, variables: dict[str, str]) -> "subprocess.Popen[str]":
    command = (sys.executable, "-m", "stages.download", "--dialogues", "data/dialogues", "--model", "data/model")
    return subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)


def test_gpt2_comes_as_shipped_after_a_cut(project: dict[str, str], hub: Hub, weights: Path, tmp_path: Path) -> None:
    hub.faults[FILE] = Fault("truncate", times=1)
    stage = start(tmp_path, project)
    assert stage.communicate()[1] == ""
    assert stage.returncode == hub.faults[FILE].times == 0
    assert not any("xet" in path for _, path in hub.requests)
    commit = hub.commits["openai-community/gpt2"]
    assert all(commit in path for _, path in hub.requests)
    folder = tmp_path / "data/model"
    for name in shipped_params()["models"]["gpt2"]["files"]:
        assert (folder / name).read_bytes() == (weights / name).read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_in_a_download_leaves_nothing_half_done(
    project: dict[str, str], hub: Hub, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    hub.faults[FILE] = Fault("stall", times=1)
    stage, until = start(tmp_path, project | {"HF_HUB_DOWNLOAD_TIMEOUT": "250"}), time.monotonic() + 120
    while not any(method == "GET" and path.endswith(FILE) for method, path in hub.requests):
        assert time.monotonic() < until and stage.poll() is None
    stage.send_signal(number)
    _, stderr = stage.communicate(timeout=120)
    assert stage.returncode == code, stderr
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert not names & {"dialogues", "model"}
    assert number == signal.SIGKILL or not names
    assert start(tmp_path, project).wait(120) == 0
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"dialogues", "model"}


def test_a_busy_address_is_asked_again_though_it_wants_us_to_wait_for_a_day(served: Hub, tmp_path: Path) -> None:
    served.faults[FILE] = Fault("429", times=2)
    assert get(tmp_path, FILE, url_of(served), sha256=sha256(LARGE)) == LARGE


def test_what_an_address_has_is_fetched_once_and_again_if_it_was_damaged(hub: Hub, tmp_path: Path) -> None:
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
def test_a_damaged_file_of_the_cache_is_replaced(served: Hub, name: str, entry: dict[str, str], tmp_path: Path) -> None:
    """The name of a large file in the cache is its sha256; of a small one only the sha256 in params.yaml is known."""
    content = served.files["me/it"][name]
    get(tmp_path, name, **entry)
    (blob,) = (tmp_path / "cache").rglob(f"blobs/{etag_of(content)}")
    blob.write_bytes(content[:-1] + b"x")
    assert get(tmp_path, name, **entry) == content


@pytest.mark.parametrize(
    ("source", "name", "found"),
    [
        (f"hub:me/it@{'b' * 40}", FILE, "Revision"),
        (f"hub:me/other@{COMMIT}", FILE, "Repository"),
        (f"hub:me/it@{COMMIT}", "vocab.json", "Entry"),
    ],
)
def test_what_the_hub_does_not_have_is_named(served: Hub, source: str, name: str, found: str, tmp_path: Path) -> None:
    message = failure(tmp_path, name, source)
    assert f"{found} Not Found" in message and f"cannot get {name} of me/" in message
    assert len(served.requests) == 1


@pytest.mark.parametrize("kind", ["500", "truncate", "stall"])
@pytest.mark.parametrize("source", ["hub", "address"])
def test_who_never_sends_a_whole_file_is_given_up_on(
    served: Hub, source: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # cut later, huggingface_hub starts over for ever
    served.ranges = False
    served.faults[FILE] = Fault(kind, "HEAD" if (source, kind) == ("hub", "500") else "GET")
    if source == "hub":
        message = failure(tmp_path)
    else:
        address = f"url-with-query{url_of(served).removeprefix('url')}/{FILE}?{SIGNATURE}"
        message = failure(tmp_path, "", address, sha256=sha256(LARGE))
        assert len(served.requests) == (4 if kind == "500" else 1)
    assert "use a local copy (source: file:FOLDER)" in message and SIGNATURE not in message


def test_no_server_and_a_wrong_address_say_how_to_go_on(served: Hub, tmp_path: Path) -> None:
    nowhere = failure(tmp_path, "", f"url-with-query:http://127.0.0.1:9/x?{SIGNATURE}", sha256=sha256(LARGE))
    assert "use a local copy" in nowhere and SIGNATURE not in nowhere
    wrong = failure(tmp_path, "wrong", f"url:{served.address}", sha256=sha256(LARGE))
    assert "404" in wrong and "fix the source" in wrong
    assert len(served.requests) == 1


@pytest.mark.parametrize("source", [f"hub:me/it@{COMMIT}", "url"])
def test_other_bytes_than_the_pinned_ones_are_refused(served: Hub, source: str, tmp_path: Path) -> None:
    served.faults[FILE] = Fault("other-bytes")
    found, pinned = sha256(bytes([1]) + LARGE[1:]), sha256(LARGE)
    source, entry = (url_of(served), {"sha256": pinned}) if source == "url" else (source, {})
    with pytest.raises(StageError, match=rf"^models\.x\.files\.it\.sha256: .* sha256 {found}, not {pinned}; try again"):
        get(tmp_path, FILE, source, **entry)
    assert not (tmp_path / "state/downloads").exists()
