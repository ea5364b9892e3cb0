"""A conversation in a terminal, and answers for scripts."""

import argparse
import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.chat.__main__ import main
from stages.chat.speakers import Conversation, Speaker, load_speakers
from stages.chat.terminal import TerminalChat, answer_lines, line_groups, print_answers, printable
from stages.methods.trained_method import load_trained
from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_manifest
from stages.records import Dialogue
from stages.report.results import WORKSPACE
from tests.helpers_report import switch
from tests.tiny import ROOT, tiny_dialogues
from tests.trained import QUERIES, trained_copy, trained_workspace


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy(tmp_path_factory)


@pytest.fixture(scope="module")
def speakers(project: Path) -> list[Speaker]:
    return load_speakers(project, [None, "softly"])


def test_a_conversation_with_turns_an_empty_line_commands_and_a_comparison(
    project: Path, speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, softly = speakers
    hello, text = "How was your day ?", "שלום, как дела? 😀"
    lines = [hello, "", "/compare softly", text, "/compare nobody", "/dance", "/compare", "/reset", hello]
    said, heard = iter(lines), []

    def typed(prompt: str) -> str:
        heard.append(capsys.readouterr().out)
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    TerminalChat(project, [workspace]).run()
    first = f"workspace> {printable(workspace.answer(hello))}\n"
    after = Conversation([hello, workspace.answer(hello)])
    both = [f"{each.name}> {printable(each.answer(each.query(after, text)))}\n" for each in speakers]
    assert workspace.introduction() in heard[0] and "dynamic on gpt2, dailydialog" in heard[0]
    assert heard[1:3] == [first, ""]
    assert softly.introduction() in heard[3] and heard[4] == "".join(both)
    assert "experiment nobody: there is none of that name" in heard[5] and "no command /dance" in heard[6]
    assert "softly" not in heard[7] and "new conversation" in heard[8]
    assert heard[9] == first  # the same answer as at the start


def test_ctrl_c_stops_an_answer_and_where_there_is_none_the_conversation(tmp_path: Path) -> None:
    """In a real terminal."""
    folder = trained_workspace(tmp_path / "slow")
    description = json.loads((folder / "data/train/method.json").read_bytes())
    description["lengths"]["max_new_tokens"] = 400
    (folder / "data/train/method.json").write_text(json.dumps(description))
    (folder / "data/train/manifest.json").unlink()
    write_manifest(folder / "data/train")
    trained = load_trained(folder / "data/train", folder / "data/download/model")
    answers = trained.decode(trained.encode(QUERIES)[0])
    longest = max(range(len(QUERIES)), key=lambda number: len(answers[number]))
    assert len(answers[longest]) > 300 and QUERIES[longest].strip()

    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ.update(TERM="dumb", LANG="C.UTF-8", PYTHONPATH=str(ROOT))
        os.execv(sys.executable, [sys.executable, "-m", "stages.chat"])
    seen = ""

    def until(text: str, again: bytes = b"") -> str:
        """What is printed before a text; a key is pressed again after ten seconds."""
        nonlocal seen
        while text not in seen:
            if again and not select.select([terminal], [], [], 10)[0]:
                os.write(terminal, again)
            seen += os.read(terminal, 1 << 16).decode("utf-8", "replace")
        before, _, seen = seen.partition(text)
        return before

    until("you> ")
    os.write(terminal, QUERIES[longest].encode() + b"\n")
    until("workspace> ")
    os.write(terminal, b"\x03")
    stopped = until("you> ")
    assert "(stopped" in stopped and printable(trained.texts([answers[longest]])[0]) not in stopped
    os.write(terminal, b"\x03")  # Python's input() misses it just after its prompt; a person presses it again
    last = until("Bye.", b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert "Traceback" not in last and "ERROR" not in last


def chat(project: Path, given: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.chat", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=project, input=given, capture_output=True, text=True, check=False, env=environment
    )


def test_a_thousand_lines_get_a_thousand_answers(tmp_path: Path) -> None:
    folder = trained_workspace(tmp_path / "piped")
    turns = [turn for turns in tiny_dialogues(400) for turn in turns]
    lines = [*turns[:997], "", "naïve café שלום", "last, no line break"]
    done = chat(folder, "\n".join(lines))
    assert done.returncode == 0, done.stderr
    trained = load_trained(folder / "data/train", folder / "data/download/model")
    expected = trained.respond(lines)
    assert done.stdout.splitlines() == [answer if line else "" for line, answer in zip(lines, expected, strict=True)]
    assert "workspace: dynamic on smollm2" in done.stderr


def test_one_answer_of_each_speaker_for_a_script(project: Path, speakers: list[Speaker]) -> None:
    done = chat(project, "", "--once", "Are you sure ?", "--compare", "softly", WORKSPACE)  # nobody answers twice
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{each.name}\t{each.answer('Are you sure ?')}" for each in speakers]


def test_what_params_yaml_no_longer_describes_does_not_speak(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    try:
        for change, key in (({"method": "soft"}, "method"), ({"pairs__history": 1}, "pairs.history")):
            switch(project, **change)
            with pytest.raises(StageError, match=rf"workspace: the stage .* was run with a different {key}"):
                load_speakers(project, [None])
            (project / "params.yaml").write_bytes(before)
        switch(project, forgetting__tokens=512)
        load_speakers(project, [None])  # what a conversation does not depend on is no reason
    finally:
        (project / "params.yaml").write_bytes(before)


def test_options_that_lead_nowhere_and_a_library_that_is_missing_are_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for host, port in ((None, 0), ("::1", None)):
        with pytest.raises(StageError, match="given without --web"):
            main(argparse.Namespace(web=False, host=host, port=port))
    monkeypatch.setattr("stages.chat.__main__.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"^gradio: not installed in .*; pip install -c constraints.txt -e '.\[web\]'"):
        main(argparse.Namespace(web=True, host=None, port=None))


def test_a_conversation_reads_the_turns_that_training_read() -> None:
    turns = [" ".join(turn.split()) for turn in max(tiny_dialogues(30), key=len)][:6]
    assert len(turns) == 6
    for history in (1, 2, 3, 99):
        settings = Pairs(stride=1, history=history, joined_by=" | ")
        trained, _ = pairs_of(Dialogue("d", turns), settings)
        conversation, said = Conversation(), []
        for at in range(0, len(turns) - 1, 2):
            said.append(conversation.query(turns[at], settings))
            conversation.add(turns[at], turns[at + 1])
        assert said == [pair.query for pair in trained if pair.position % 2 == 0]
    assert Conversation().query("cafe\u0301", settings) == "caf\u00e9"  # an accent of its own is no other question


@pytest.mark.parametrize(("history", "kept"), [(1, []), (4, ["answer", "again", "answer"])])
def test_a_pipe_that_does_not_end_keeps_only_the_turns_that_are_read(
    history: int, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation, settings = Conversation(), Pairs(stride=1, history=history, joined_by=" ")
    monkeypatch.setattr("stages.chat.terminal.Conversation", lambda: conversation)
    queries: list[str] = []

    def respond(asked: list[str]) -> list[str]:
        queries.extend(asked)
        return ["answer" for _ in asked]

    speaker: Any = SimpleNamespace(
        name="x", params=SimpleNamespace(pairs=settings), query=lambda talk, text: talk.query(text, settings),
        trained=SimpleNamespace(respond=respond),
    )  # fmt: skip
    out, into = os.pipe()
    os.write(into, b"again\n" * 50)
    os.close(into)
    answer_lines([speaker], out)
    os.close(out)
    assert conversation.turns == kept
    assert queries[-1] == " ".join(["again", "answer", "again", "answer", "again"][-history:])


def test_an_answer_is_shown_in_pieces_that_make_it_up(speakers: list[Speaker]) -> None:
    for query in QUERIES:
        pieces: list[str] = []
        answer = speakers[0].answer(query, pieces.append)
        assert "".join(pieces) == answer
    assert len(pieces) > 2


def test_lines_that_are_there_come_together_half_a_line_waits_and_one_that_is_not_utf_8_is_named() -> None:
    out, into = os.pipe()
    groups = line_groups(out)
    os.write(into, b"\xef\xbb\xbfone\n two \ncaf\xc3")  # the mark at the beginning of a file is no text
    assert next(groups) == ["one", "two"]
    os.write(into, b"\xa9\n")
    assert next(groups) == ["café"]
    os.write(into, b"fine\n\xff\n")
    os.close(into)
    with pytest.raises(StageError, match="standard input:5: not UTF-8"):
        next(groups)
    os.close(out)


def test_an_answer_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = "a\x1b[2Jb\x07\u202ec मी\u200cकर क्\u200dष"  # joiners stay: scripts need them
    speaker: Any = SimpleNamespace(query=lambda talk, text: text, trained=SimpleNamespace(respond=lambda asked: [said]))
    for terminal, shown in ((True, r"a\x1b[2Jb\x07\u202ec" + said[-11:]), (False, said)):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        print_answers([speaker], Conversation(), ["hello"])
        assert capsys.readouterr().out == f"{shown}\n"
