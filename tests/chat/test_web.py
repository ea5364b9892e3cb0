"""The page: what it shows, and whom it answers."""

import html
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

pytest.importorskip("gradio", reason="the extra `web` is not installed")

import uvicorn
from fastapi.testclient import TestClient

from stages.chat.speakers import Speaker, load_speakers
from stages.chat.web import WebChat, application, is_loopback, serve
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, read_records, write_records
from tests.browser import needs_browser, rendered
from tests.helpers_scores import look_up
from tests.trained import trained_copy

SAID = ["How was your day ?", "word3 word5 <b>word7</b>", "word1"]
# Runs a command and notes whom it connects to or looks up.
WATCHED = """
import runpy, sys
def note(event, values):
    if event == "socket.connect" and isinstance(values[1], tuple) or event in ("socket.getaddrinfo", "socket.sendto"):
        print(values[0] if event == "socket.getaddrinfo" else values[1][0], file=seen, flush=True)
seen = open(sys.argv[1], "w")
sys.argv[:2] = ["stages.chat"]
sys.addaudithook(note)
runpy.run_module("stages.chat", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose workspace was trained on one turn more than its experiment: the answer to SAID[0]."""
    project = trained_copy(tmp_path_factory)
    (speaker,) = load_speakers(project, [None])
    path = project / "data/subset/turns.jsonl"
    copied = Dialogue("copied", ["word", f"  {speaker.answer(SAID[0])[0]} "])
    turns = [*read_records(path, Dialogue), copied]
    path.unlink()  # it can be a link to DVC's cache
    write_records(path, turns)
    return project


@pytest.fixture(scope="module")
def speakers(project: Path) -> list[Speaker]:
    return load_speakers(project, [None, "softly"])


@pytest.fixture(scope="module")
def chat(project: Path, speakers: list[Speaker]) -> WebChat:
    return WebChat(project, speakers)


def asked(
    chat: WebChat, said: str, names: list[str], turns: Sequence[str] = ()
) -> tuple[list[str], dict[str, list[str]]]:
    """The conversation after a query, and what was said to and by each heading of the page."""
    *_, (_, after, columns) = chat.ask(said, names, list(turns), {})
    shown = chat.headings(names).items()
    return after, {heading: [str(each["content"]) for each in columns[key]] for key, heading in shown}


@pytest.fixture(scope="module")
def server(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The command, which the last test ends, the address of its page, and the file of those whom it connects to."""
    seen = tmp_path_factory.mktemp("web") / "seen"
    command = [sys.executable, "-c", WATCHED, str(seen), "--web", "--port", "0"]
    started = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout
    yield started, started.stdout.readline().split(" ")[0], seen
    started.kill()
    started.communicate()


def call(url: str, place: str, happens: str, *given: object) -> list[Any]:
    """Let something happen on the page, as its own script does; return what its elements then have."""
    config = requests.get(f"{url}/config").json()
    names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
    events = {(names.get(at), event): each["id"] for each in config["dependencies"] for at, event in each["targets"]}
    asked = {"fn_index": events[place, happens], "data": given, "session_hash": "x"}
    requests.post(f"{url}/gradio_api/queue/join", json=asked).raise_for_status()
    with requests.get(f"{url}/gradio_api/queue/data?session_hash=x", stream=True) as answer:
        lines = (line.removeprefix(b"data: ") for line in answer.iter_lines() if line)
        done = next(each for each in map(json.loads, lines) if each["msg"] == "process_completed")
    assert done["success"], done
    found: list[Any] = done["output"]["data"]
    return found


@needs_browser
def test_a_browser_shows_the_page(server: tuple[subprocess.Popen[str], str, Path]) -> None:
    box = 'id="query"'  # which the page's script makes
    assert box not in requests.get(server[1]).text
    assert box in rendered(server[1])


def test_the_page_works_and_nothing_leaves_the_machine(server: tuple[subprocess.Popen[str], str, Path]) -> None:
    process, url, seen = server
    policy = requests.get(url).headers["content-security-policy"]
    assert policy.startswith("default-src 'self' "), "the browser itself refuses other machines"
    assert call(url, "experiments", "input", ["workspace", "softly"]) == [["workspace", "softly"]]
    assert call(url, "query", "submit", SAID[0], ["workspace"], None, None)[0] == "", "the box is empty again"
    assert call(url, "anew", "click")[0] == ""
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in stderr) == (0, False), stderr
    assert {each for each in seen.read_text().split() if not is_loopback(each)} == set()


def test_novelty_and_lookup_are_those_of_the_stage_score(chat: WebChat, project: Path) -> None:
    train = read_records(project / "data/subset/train.jsonl", Pair)
    for said in (train[3].query, "word3 word5 word7"):
        _, columns = asked(chat, said, ["workspace"])
        assert columns["lookup"][1] == look_up(train, [said])[0]
    _, columns = asked(chat, train[3].query, ["softly"])
    assert columns["lookup"] == [train[3].query, train[3].response, f"to “{train[3].query}”, similarity 1.00"]
    _, columns = asked(chat, SAID[0], ["workspace", "softly"])
    marks = [texts[2] for heading, texts in columns.items() if not heading.startswith("lookup")]
    speaker, _ = chat.loaded["softly"]
    (tokens,) = speaker.trained.decode_and_score(speaker.trained.encode([SAID[0]])).answers
    cut = len(tokens) == speaker.trained.lengths.max_new_tokens
    assert marks[0] == "(in the training data, word for word)"
    assert marks[1].startswith("(cut)" if cut else "(new)")
    assert {"lookup for workspace", "lookup for softly"} < columns.keys()  # their training data differs


def test_the_conversation_goes_on_with_the_answers_of_the_first(chat: WebChat, speakers: list[Speaker]) -> None:
    turns: list[str] = []
    for said in SAID:
        expected = [speaker.answer(speaker.query(turns, said))[0] for speaker in reversed(speakers)]
        now, columns = asked(chat, f" {said}\n", ["softly", "workspace"], turns)
        assert [html.unescape(texts[1]) for texts in columns.values()][:2] == expected
        turns += [said, expected[0]]
        assert now == turns


def test_an_experiment_that_is_not_there_is_not_chosen_and_nothing_said_asks_nobody(chat: WebChat) -> None:
    with pytest.warns(UserWarning, match="experiment nobody: there is none"):
        assert chat.choose(["softly", "nobody"]) == ["softly"]
    for said, names in ((" \n", ["softly"]), ("hello", [])):
        assert list(chat.ask(said, names, [], {})) == [(said.strip(), [], {})]


def test_an_empty_cut_or_repeating_answer_is_marked(chat: WebChat, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, wrong, shown in (
        ("", [], ["(empty, which counts as new)"]),
        (".", [], [".", "(new)"]),
        (".", ["(cut)", "(repeats itself)"], [".", "(cut) (repeats itself)"]),
    ):
        monkeypatch.setattr(Speaker, "answer", lambda self, query, made=(answer, wrong): made)
        _, columns = asked(chat, "hello", ["softly"])
        assert next(iter(columns.values()))[1:] == shown


def test_on_loopback_only_names_of_this_machine_are_answered_and_nothing_can_be_uploaded(chat: WebChat) -> None:
    for local, host, status in (
        (True, "localhost:7860", 200), (True, "127.0.0.1:7860", 200), (True, "[::1]:7860", 200),
        (True, "rebound.example:7860", 403), (True, "127.0.0.1.rebound.example", 403), (False, "my.name:7860", 200),
    ):  # fmt: skip
        with TestClient(application(chat.page(), local)) as client:
            assert client.get("/config", headers={"Host": host}).status_code == status, host
            sent = client.post("/gradio_api/upload", headers={"Host": host}, files={"files": b"x"})
            assert sent.status_code == (404 if status == 200 else 403), host


def test_only_this_machine_reaches_the_page_unless_a_host_is_given(
    project: Path, speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = []

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        addresses.append(sockets[0].getsockname()[0])
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    serve(project, speakers, None, 0)
    assert "WARNING" not in capsys.readouterr().err
    serve(project, speakers, "0.0.0.0", 0)
    assert "WARNING chat: --host 0.0.0.0: anybody who reaches it may read the training data" in capsys.readouterr().err
    assert addresses == ["127.0.0.1", "0.0.0.0"]
    names = ("127.0.0.1", "::1", "localhost", "192.168.1.7", "::", "my.name")
    assert [is_loopback(each) for each in names] == [True, True, True, False, False, False]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StageError, match=rf"127.0.0.1:{port}: .*in use; name another"):
            serve(project, speakers, None, port)
