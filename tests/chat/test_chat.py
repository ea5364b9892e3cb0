"""A conversation in a terminal, and answers for scripts."""

import argparse
import dataclasses
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.chat.__main__ import main
from stages.chat.speakers import Speaker, load_speakers
from stages.chat.terminal import TerminalChat, answer_lines, line_groups, printable
from stages.methods.trained_method import load_trained
from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.records import Dialogue
from stages.report.markdown import CUT
from stages.report.results import WORKSPACE
from tests.tiny import change_params, tiny_dialogues
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
    lines: list[str | bytes] = [
        hello,
        "",
        "/compare softly",
        text,
        "/compare nobody",
        "/dance",
        "/compare",
        "/reset",
        b"\xe9",
        hello,
    ]
    said, heard = iter(lines), []

    def typed(prompt: str) -> str:
        heard.append(capsys.readouterr().out)
        try:
            line = next(said)
            return line if isinstance(line, str) else line.decode()
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    TerminalChat(project, [workspace]).run()
    (answer,) = workspace.trained.respond([hello])
    first, after = f"workspace> {printable(answer)}\n", [hello, answer]
    both = [f"{each.name}> {printable(each.answer(each.query(after, text))[0])}\n" for each in speakers]
    assert workspace.introduction() in heard[0] and "dynamic on gpt2, dailydialog" in heard[0]
    assert heard[1:3] == [first, ""]
    assert softly.introduction() in heard[3] and heard[4] == "".join(both)
    assert "experiment nobody: there is none of that name" in heard[5] and "no command /dance" in heard[6]
    assert "softly" not in heard[7] and "new conversation" in heard[8]
    assert "not UTF-8" in heard[9]
    assert heard[10] == first  # the same answer as at the start


def test_ctrl_c_stops_an_answer_and_where_there_is_none_the_conversation(
    project: Path, speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(["hello", "again"])

    def typed(prompt: str) -> str:
        if (line := next(said, None)) is None:
            signal.raise_signal(signal.SIGINT)
        return str(line)

    def answer(speaker: Speaker, query: str, heard: Callable[[str], object]) -> tuple[str, list[str]]:
        heard(f"half of it to {query}")
        signal.raise_signal(signal.SIGINT)
        return "all of it", []

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(Speaker, "answer", answer)
    chat = TerminalChat(project, speakers)
    chat.run()
    first, second, bye = re.split(r"\n\(stopped.*\n", capsys.readouterr().out)
    assert first.endswith("workspace> half of it to hello") and second == "workspace> half of it to again"
    assert bye == "\nBye.\n" and chat.turns == []


def given(**changes: Any) -> argparse.Namespace:
    """What the command line gives, without an option or with some."""
    options: dict[str, Any] = {"experiment": None, "compare": [], "once": None, "web": False}
    return argparse.Namespace(**options | {"host": None, "port": None} | changes)


def test_each_line_gets_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained_workspace(tmp_path / "piped"))
    lines = [*(turn for turns in tiny_dialogues(40) for turn in turns), "", "naïve café שלום", "last, no line break"]
    Path("lines").write_text("\n".join(lines), encoding="utf-8")
    with Path("lines").open(encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        main(given())
    expected = load_trained(Path("data/train"), Path("data/download/model")).respond(lines)
    printed, told = capsys.readouterr()
    assert printed.splitlines() == [answer if line else "" for line, answer in zip(lines, expected, strict=True)]
    assert "workspace: dynamic on smollm2" in told


def test_one_answer_of_each_speaker_for_a_script(
    project: Path, speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    main(given(once="Are you sure ?", compare=["softly", WORKSPACE]))  # nobody answers twice
    expected = [f"{each.name}\t{each.answer('Are you sure ?')[0]}" for each in speakers]
    assert capsys.readouterr().out.splitlines() == expected


def test_what_params_yaml_no_longer_describes_does_not_speak(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    try:
        for change, key in (({"method": "soft"}, "method"), ({"pairs.history": 1}, "pairs.history")):
            change_params(project, change)
            with pytest.raises(StageError, match=rf"workspace: the stage .* was run with a different {key}"):
                load_speakers(project, [None])
            (project / "params.yaml").write_bytes(before)
        change_params(project, {"forgetting.tokens": 512})
        load_speakers(project, [None])  # what a conversation does not depend on is no reason
    finally:
        (project / "params.yaml").write_bytes(before)
    lock = (project / "dvc.lock").read_text(encoding="utf-8")
    (made,) = set(re.findall(r"path: data/train\n +hash: md5\n +md5: (\w+)", lock))
    (project / "dvc.lock").write_text(lock.replace(made, "0" * 32), encoding="utf-8")  # as Git brings another one
    with pytest.raises(StageError, match=r"data/train: not what dvc\.lock records"):
        load_speakers(project, [None])
    (project / "dvc.lock").write_text(lock, encoding="utf-8")


def test_options_that_lead_nowhere_and_a_missing_library_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, port in ((None, 0), ("::1", None)):
        with pytest.raises(StageError, match="given without --web"):
            main(given(host=host, port=port))
    monkeypatch.setattr("stages.chat.__main__.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"^gradio: not installed in .*; pip install -c constraints.txt -e '.\[web\]'"):
        main(given(web=True))


def test_a_conversation_reads_the_turns_that_training_read() -> None:
    turns = [" ".join(turn.split()) for turn in max(tiny_dialogues(30), key=len)][:6]
    assert len(turns) == 6
    for history in (1, 2, 3, 99):
        settings = Pairs(stride=1, history=history, joined_by=" | ")
        trained, _ = pairs_of(Dialogue("d", turns), settings)
        one: Any = SimpleNamespace(params=SimpleNamespace(pairs=settings))
        said = [Speaker.query(one, turns[:at], turns[at]) for at in range(0, len(turns) - 1, 2)]
        assert said == [pair.query for pair in trained if pair.position % 2 == 0]
    assert Speaker.query(one, [], "cafe\u0301") == "caf\u00e9"  # an accent of its own is no other question
    with pytest.raises(StageError, match=r"^what was said: not UTF-8"):
        Speaker.query(one, [], "gr\udcfc\udcdfe")


def parrot(heard: Callable[[Sequence[str], str], str], history: int = 1) -> Any:
    """A speaker that answers with its query, which `heard` makes of the turns so far and a line."""
    params, trained = SimpleNamespace(pairs=SimpleNamespace(history=history)), SimpleNamespace(respond=list)
    return SimpleNamespace(query=heard, params=params, trained=trained)


def test_a_pipe_is_a_conversation_of_which_only_what_is_read_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    one = parrot(lambda turns, text: f"{text}{len(turns)}", history=3)
    answer_lines([one], [["a", "b", "c"], ["", "d"]])
    assert capsys.readouterr().out.splitlines() == ["a0", "b2", "c3", "", "d0"]


def test_an_answer_is_shown_in_pieces_that_make_it_up(speakers: list[Speaker]) -> None:
    for query in QUERIES:
        pieces: list[str] = []
        answer, _ = speakers[0].answer(query, pieces.append)
        assert "".join(pieces) == answer
    assert len(pieces) > 2


def test_an_answer_is_cut_only_if_it_has_not_ended(speakers: list[Speaker]) -> None:
    one, query = speakers[0], QUERIES[0]
    trained = dataclasses.replace(one.trained, lengths=one.trained.lengths.model_copy(update={"max_new_tokens": 2}))
    trained.__dict__["ends"] = {}
    ((_, last),) = trained.decode_and_score(trained.encode([query])).answers
    assert CUT in dataclasses.replace(one, trained=trained).answer(query)[1]
    trained.__dict__["ends"] = {last: [last]}  # an end that is a part of the answer, as a full stop with a line break
    assert CUT not in dataclasses.replace(one, trained=trained).answer(query)[1]


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
    for terminal, shown in ((True, r"a\x1b[2Jb\x07\u202ec" + said[-11:]), (False, said)):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        answer_lines([parrot(lambda turns, text: said)], [["hello"]])
        assert capsys.readouterr().out == f"{shown}\n"
