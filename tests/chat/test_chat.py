"""A conversation in a real pseudo-terminal, and answers for scripts."""

import argparse
import json
import os
import pty
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.chat.__main__ import main
from stages.chat.speakers import Conversation, Speaker, load_speakers
from stages.chat.terminal import answer_lines, line_groups, print_answers, printable
from stages.methods.trained_method import load_trained
from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_manifest
from stages.records import Dialogue
from stages.report.results import WORKSPACE
from tests.helpers_report import switch
from tests.tiny import tiny_dialogues
from tests.trained import QUERIES, trained_copy, trained_workspace

SECONDS = 240  # limit for every step, for busy machines


class Terminal:
    """`python -m stages.chat` in its own terminal."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="dumb", COLUMNS="100", LANG="C.UTF-8")
            os.execv(sys.executable, [sys.executable, "-m", "stages.chat", *words])
        self.unread = ""

    def until(self, text: str, seconds: float = SECONDS) -> str:
        """Everything it prints up to and including a text."""
        deadline = time.monotonic() + seconds
        while text not in self.unread:
            assert time.monotonic() < deadline, self.unread
            if select.select([self.file], [], [], 1)[0]:
                try:
                    self.unread += os.read(self.file, 1 << 16).decode("utf-8", "replace")
                except OSError:  # the other side is closed
                    raise AssertionError(self.unread) from None
        seen, _, self.unread = self.unread.partition(text)
        return (seen + text).replace("\r\n", "\n")

    def say(self, text: str) -> str:
        """Type a line; return what is printed before the next prompt."""
        os.write(self.file, text.encode() + b"\n")
        return self.until("you> ")

    def end(self, key: bytes) -> tuple[int, str]:
        """Press a key that ends it; return its exit code and its last output.

        Python's input() misses a Ctrl-C that comes just after it has printed its prompt. A person presses it again.
        """
        for _ in range(5):
            os.write(self.file, key)
            with suppress(AssertionError):
                seen = self.until("Bye.", SECONDS / 10)
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), seen
        raise AssertionError(self.unread)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_copy(tmp_path_factory)


@pytest.fixture(scope="module")
def speakers(project: Path) -> list[Speaker]:
    return load_speakers(project, [None, "softly"])


def test_a_conversation_with_turns_an_empty_line_commands_and_a_comparison(
    project: Path, speakers: list[Speaker]
) -> None:
    workspace, softly = speakers
    terminal = Terminal(project)
    opening = terminal.until("you> ")
    assert workspace.introduction() in opening and "dynamic on gpt2, dailydialog" in opening
    conversation = Conversation()

    first = workspace.answer("How was your day ?")
    assert f"workspace> {printable(first)}" in terminal.say("How was your day ?")
    conversation.add("How was your day ?", first)
    assert "workspace>" not in terminal.say("")
    assert softly.introduction() in terminal.say("/compare softly")
    text = "שלום, как дела? 😀"
    compared = terminal.say(text)
    for speaker in (workspace, softly):
        assert f"{speaker.name}> {printable(speaker.answer(speaker.query(conversation, text)))}" in compared
    assert "experiment nobody: there is none of that name" in terminal.say("/compare nobody")
    assert "no command /dance" in terminal.say("/dance")
    terminal.say("/compare")
    assert "new conversation" in terminal.say("/reset")
    again = terminal.say("How was your day ?")  # the same answer as at the start
    assert f"workspace> {printable(first)}" in again and "softly>" not in again
    assert terminal.end(b"\x04")[0] == 0


def test_ctrl_c_stops_an_answer_and_where_there_is_none_the_conversation(tmp_path: Path) -> None:
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

    (folder / "stages").symlink_to(Path(__file__).parents[2] / "stages")
    terminal = Terminal(folder)
    terminal.until("you> ")
    os.write(terminal.file, QUERIES[longest].encode() + b"\n")
    terminal.until("workspace> ")
    os.write(terminal.file, b"\x03")
    stopped = terminal.until("you> ")
    assert "(stopped" in stopped
    assert printable(trained.texts([answers[longest]])[0]) not in stopped
    code, last = terminal.end(b"\x03")
    assert (code, "Traceback" in last, "ERROR" in last) == (0, False, False)


def chat(project: Path, given: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.chat", *words]
    return subprocess.run(command, cwd=project, input=given, capture_output=True, text=True, check=False)


def test_a_thousand_lines_get_a_thousand_answers(tmp_path: Path) -> None:
    folder = trained_workspace(tmp_path / "piped")
    (folder / "stages").symlink_to(Path(__file__).parents[2] / "stages")
    turns = [turn for turns in tiny_dialogues(400) for turn in turns]
    lines = [*turns[:997], "", "naïve café שלום", "last, no line break"]
    done = chat(folder, "\n".join(lines))
    assert done.returncode == 0, done.stderr
    trained = load_trained(folder / "data/train", folder / "data/download/model")
    expected = trained.respond(lines)
    assert done.stdout.splitlines() == [answer if line else "" for line, answer in zip(lines, expected, strict=True)]
    assert "workspace: dynamic on smollm2" in done.stderr


def test_one_answer_of_each_speaker_for_a_script(project: Path, speakers: list[Speaker]) -> None:
    done = chat(project, "", "--once", "Are you sure ?", "--compare", "softly")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{each.name}\t{each.answer('Are you sure ?')}" for each in speakers]


def test_the_workspace_has_a_name_too_and_nobody_answers_twice(project: Path, speakers: list[Speaker]) -> None:
    workspace, softly = speakers
    loaded = load_speakers(project, ["softly", WORKSPACE, None, "softly"])
    assert [each.name for each in loaded] == [softly.name, workspace.name]


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


def test_an_experiment_that_is_not_there_is_one_line(project: Path) -> None:
    done = chat(project, "", "--once", "hello", "--experiment", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR chat: experiment nobody: there is none of that name")
    assert not done.stdout and len(done.stderr.splitlines()) == 1


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


def test_a_pipe_that_does_not_end_keeps_only_the_turns_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for history, kept in ((1, []), (4, ["answer", "again", "answer"])):
        conversation, settings = Conversation(), Pairs(stride=1, history=history, joined_by=" ")
        monkeypatch.setattr("stages.chat.terminal.Conversation", lambda kept=conversation: kept)
        queries: list[str] = []
        trained = SimpleNamespace(
            respond=lambda asked, queries=queries: queries.extend(asked) or ["answer" for _ in asked]
        )
        speaker = SimpleNamespace(
            name="x", params=SimpleNamespace(pairs=settings), trained=trained,
            query=lambda talk, text, settings=settings: talk.query(text, settings),
        )  # fmt: skip
        out, into = os.pipe()
        os.write(into, b"again\n" * 50)
        os.close(into)
        answer_lines([speaker], out)  # type: ignore[list-item]
        os.close(out)
        assert conversation.turns == kept
        assert queries[-1] == " ".join(["again", "answer", "again", "answer", "again"][-history:])


def test_an_accent_of_its_own_is_no_other_question() -> None:
    asked = Conversation().query("cafe\u0301", Pairs(stride=1, history=1, joined_by=" "))
    assert asked == "caf\u00e9"


def test_an_answer_is_shown_in_pieces_that_make_it_up(speakers: list[Speaker]) -> None:
    for query in QUERIES:
        pieces: list[str] = []
        answer = speakers[0].answer(query, pieces.append)
        assert "".join(pieces) == answer
    assert len(pieces) > 2


def test_lines_that_are_there_come_together_and_half_a_line_waits() -> None:
    out, into = os.pipe()
    groups = line_groups(out)
    os.write(into, "one\n two \ncaf\u00e9".encode()[:-1])
    assert next(groups) == ["one", "two"]
    os.write(into, "\u00e9\n".encode()[1:] + b"last")
    assert next(groups) == ["café"]
    os.close(into)
    assert list(groups) == [["last"]]
    os.close(out)


def test_a_mark_at_the_beginning_is_no_text_and_a_line_that_is_not_utf_8_is_named() -> None:
    out, into = os.pipe()
    os.write(into, b"\xef\xbb\xbfone\n")
    groups = line_groups(out)
    assert next(groups) == ["one"]
    os.write(into, b"fine\n\xff\n")
    os.close(into)
    with pytest.raises(StageError, match="standard input:3: not UTF-8"):
        next(groups)
    os.close(out)


def test_an_answer_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = "a\x1b[2Jb\x07\u202ec"
    speaker: Any = SimpleNamespace(query=lambda talk, text: text, trained=SimpleNamespace(respond=lambda asked: [said]))
    for terminal, shown in ((True, r"a\x1b[2Jb\x07\u202ec"), (False, said)):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        print_answers([speaker], Conversation(), ["hello"])
        assert capsys.readouterr().out == f"{shown}\n"


def test_a_text_keeps_the_joiners_that_its_script_needs() -> None:
    for text in ("मी\u200cकर", "क्\u200dष", "👨\u200d👩\u200d👧"):
        assert printable(text) == text
