"""The page: in a headless Chromium, and what it shows without one."""

import argparse
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra `web` is not installed")

import uvicorn

from stages.chat.__main__ import main
from stages.chat.conversation import Conversation
from stages.chat.page import Answer, Nearest, Round
from stages.chat.speaker import Speaker, load_speakers
from stages.chat.web import Session, WebChat, is_loopback, serve
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, read_records, write_records
from stages.score.retrieval import look_up
from tests.browser import Browser, needs_browser
from tests.chat.screenshot import READY, ask
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
CARDS = "[...document.querySelectorAll('.round:first-child .card')].map(c => c.innerText)"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose workspace was trained on one turn more than its experiment: the answer to SAID[0]."""
    project = trained_copy(tmp_path_factory)
    (speaker,) = load_speakers(project, [None])
    path = project / "data/subset/turns.jsonl"
    copied = Dialogue("copied", ["word", f"  {speaker.answer(SAID[0])} "])
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


def asked(chat: WebChat, said: str, names: list[str], session: Session) -> Round:
    for _ in chat.ask(said, names, session):
        pass
    return session.rounds[-1]


@pytest.fixture
def server(project: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The command, the address of its page, and the file of those whom it connects to."""
    seen = tmp_path / "seen"
    command = [sys.executable, "-c", WATCHED, str(seen), "--web", "--port", "0"]
    started = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout
    yield started, started.stdout.readline().split(" ")[0], seen
    started.kill()
    started.communicate()


@needs_browser
def test_a_phone_asks_chooses_an_experiment_reads_and_begins_anew_and_nothing_leaves_the_machine(
    server: tuple[subprocess.Popen[str], str, Path], speakers: list[Speaker], tmp_path: Path
) -> None:
    process, url, seen = server
    workspace, softly = speakers
    with Browser(tmp_path / "profile") as browser:
        tab = browser.visit(url, width=400)
        browser.until(tab, READY)

        def cards_after(said: str, number: int) -> list[str]:
            ask(browser, tab, said, number)
            cards: list[str] = browser.evaluate(tab, CARDS)
            return [" ".join(card.split()) for card in cards]

        conversation = Conversation()
        first = workspace.answer(SAID[0])
        cards = cards_after(SAID[0], 1)
        assert len(cards) == 2 and first in cards[0] and "word for word" in cards[0]
        assert cards[1].startswith("lookup") and "no training query has a word" in cards[1]

        browser.evaluate(tab, "document.querySelector('#experiments input').focus()")
        option = "document.querySelector('#experiments [role=option][aria-label=softly]')"
        browser.until(tab, f"!!{option}")
        browser.evaluate(tab, f"{option}.dispatchEvent(new MouseEvent('mousedown', {{bubbles: true}}))")
        conversation.add(SAID[0], first)
        cards = cards_after(SAID[1], 2)
        assert len(cards) == 4 and [card.split()[0] for card in cards] == ["workspace", "softly", "lookup", "lookup"]
        for card, speaker in zip(cards, speakers, strict=False):
            assert speaker.answer(speaker.query(conversation, SAID[1])) in card and card.endswith("new")
        assert browser.evaluate(tab, "document.querySelector('.said').innerText") == SAID[1]
        assert browser.evaluate(tab, "document.documentElement.scrollWidth") <= 400

        browser.evaluate(tab, "document.querySelector('#anew').click()")
        browser.until(tab, "!!document.querySelector('.nothing')")
        assert softly.answer(SAID[0]) in cards_after(SAID[0], 1)[1]  # as if nothing had been said before
        assert [each for each in browser.requests() if not each.startswith((url, "data:", "blob:"))] == []
        assert browser.complaints() == []
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in stderr) == (0, False), stderr
    assert {each for each in seen.read_text().split() if not is_loopback(each)} == set()


def test_novelty_and_lookup_are_those_of_the_stage_score(chat: WebChat, project: Path) -> None:
    train = read_records(project / "data/subset/train.jsonl", Pair)
    for said in (train[3].query, "word3 word5 word7"):
        now = asked(chat, said, ["workspace"], Session())
        assert [each.response for each in now.nearest] == look_up(train, [said])
    assert asked(chat, train[3].query, ["softly"], Session()).nearest[0].query == train[3].query
    now = asked(chat, SAID[0], ["workspace", "softly"], Session())
    assert [answer.novel for answer in now.answers] == [False, True]
    assert [each.whose for each in now.nearest] == [["workspace"], ["softly"]]  # their training data differs


def test_those_that_were_trained_on_the_same_share_one_lookup(project: Path, speakers: list[Speaker]) -> None:
    softly = speakers[1]
    again = Speaker("again", softly.params, softly.trained, softly.files)
    chat = WebChat(project, [softly, again])
    assert chat.loaded["softly"][1] is chat.loaded["again"][1]
    (nearest,) = asked(chat, SAID[2], ["softly", "again"], Session()).nearest
    assert nearest.whose == []


def test_the_conversation_goes_on_with_the_answers_of_the_first(chat: WebChat, speakers: list[Speaker]) -> None:
    session, conversation = Session(), Conversation()
    for said in SAID:
        expected = [speaker.answer(speaker.query(conversation, said)) for speaker in reversed(speakers)]
        now = asked(chat, f" {said}\n", ["softly", "workspace"], session)
        assert [answer.text for answer in now.answers] == expected
        conversation.add(said, expected[0])
    assert session.conversation == conversation


def test_an_experiment_that_is_not_there_is_not_chosen_and_nothing_said_asks_nobody(chat: WebChat) -> None:
    with pytest.warns(UserWarning, match="experiment nobody: there is none"):
        assert chat.choose(["softly", "nobody"]) == ["softly"]
    session = Session()
    for said, names in ((" \n", ["softly"]), ("hello", [])):
        assert len(list(chat.ask(said, names, session))) == 1
    assert not session.rounds


def test_a_text_cannot_become_part_of_the_page(speakers: list[Speaker]) -> None:
    bad = "<script>1</script>"
    shown = Round(bad, [Answer(speakers[0], bad, True)], [Nearest([bad], bad, bad, 0.5)]).html()
    assert "<script" not in shown and shown.count("&lt;script&gt;") == 5


def test_an_empty_answer_is_told_from_one_that_is_new(speakers: list[Speaker]) -> None:
    cards = [Answer(speakers[0], text, novel).card() for text, novel in (("", True), (".", True), (".", False))]
    assert [card.split('"')[1] for card in cards] == ["card empty", "card new", "card old"]
    assert "(empty)" in cards[0]


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
    assert "WARNING chat: --host 0.0.0.0" in capsys.readouterr().err
    assert addresses == ["127.0.0.1", "0.0.0.0"]
    assert [is_loopback(each) for each in ("127.0.0.1", "::1", "localhost", "192.168.1.7", "::", "my.name")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_port_that_is_taken_is_named(project: Path, speakers: list[Speaker]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StageError, match=rf"127.0.0.1:{port}: .*in use; name another"):
            serve(project, speakers, None, port)


def test_an_option_of_the_page_without_the_page_is_refused() -> None:
    for host, port in ((None, 0), ("::1", None)):
        with pytest.raises(StageError, match="given without --web"):
            main(argparse.Namespace(web=False, host=host, port=port, once="hello"))
