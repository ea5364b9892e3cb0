"""Rows as people have them: chats of all kinds, in JSON lines and in Parquet, and everything that is no dialogue."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.pair_extract.chats import KEYS
from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from tests.pair_extract.corpus import read, refusal, rows, turns_in

Messages = list[tuple[str, str]]
TALK: Messages = [("user", "hi"), ("assistant", "hello"), ("user", "how are you"), ("assistant", "fine")]
PLAIN = [text for _, text in TALK]
each_format = pytest.mark.parametrize("format_", ["jsonl", "parquet"])


def said(messages: Messages, who: str = "role", what: str = "content") -> list[dict[str, str]]:
    return [{who: speaker, what: text} for speaker, text in messages]


def chats(format_: str, *given: Any, key: str = "messages") -> bytes:
    return rows(format_, [{"id": 7, key: each} for each in given])


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


CALL = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
IMAGE = {"type": "image_url", "text": None, "image_url": {"url": "x"}}
ASKED, ANSWERED = {"role": "user", "content": "is it warm"}, {"role": "assistant", "content": "it is"}
WARM = ["is it warm", "it is"]
NOTHING = {"function_call": {"name": None, "arguments": None}}
CALLS: tuple[dict[str, Any], ...] = (
    {"content": None, "tool_calls": CALL}, {"content": "", "tool_calls": CALL}, {"tool_calls": CALL},
    {"content": None, "function_call": {"name": "weather", "arguments": "{}"}},
)  # fmt: skip
ROWS: list[tuple[Any, list[str], dict[str, int]]] = [  # a chat, its turns and what is counted beside these
    *(([{"role": who, "content": "Be kind."}, *said(TALK)], PLAIN, {"system_turns": 1})
      for who in ("developer", "SYSTEM ")),
    # A call of a tool and its answer are no turns.
    *(([ASKED, {"role": "assistant", **call}, {"role": tool, "content": None}, ANSWERED], WARM,
       {"tool_calls": 1, "tool_turns": 1}) for call, tool in zip(CALLS, ("tool", "Function") * 2, strict=True)),
    ([{"role": who, "content": each} for who, each in zip(("user", "assistant") * 2,
      ([text(WARM[0])], [{"type": "tool_use"}], [{"type": "tool_result"}], [text(WARM[1])]), strict=True)],
     WARM, {"tool_calls": 2, "other_parts": 2}),
    # What is said with a call is a turn.
    ([ASKED, {"role": "assistant", "content": "I look", "tool_calls": CALL}, {**ANSWERED, "tool_calls": []}],
     ["is it warm", "I look it is"], {"turns_of_several_messages": 1}),
    # A text without a call keeps its place, whatever fields the others have.
    ([{**each, **NOTHING} for each in (ASKED, {**ANSWERED, "content": ""}, ASKED)],
     ["is it warm", "", "is it warm"], {"empty_turns": 1}),
    # Texts among the parts are joined.
    ([{"role": "user", "content": [text("look"), IMAGE, text("at this")]},
      {"role": "assistant", "content": [{"type": "output_text", "text": "nice"}]},
      {"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": [text("that too")]}],
     ["look at this", "nice", "", "that too"], {"other_parts": 2, "empty_turns": 1}),
    # The case of a speaker makes no difference, and messages may have more fields.
    ([{"role": "User", "content": "hi"}, {"role": "user", "content": "you"}, {"role": "Bo", "content": "yes"}],
     ["hi you", "yes"], {"turns_of_several_messages": 1}),
    ([{"from": "Ann", "value": "hi", "weight": 1}, {"from": "Bo", "value": "hello", "weight": 0}], ["hi", "hello"], {}),
    ([{"speaker": "USER", "text": WARM[0]}, {"speaker": "SYSTEM", "text": WARM[1]}], WARM, {}),
    # ShareGPT's calls and what they gave back.
    ([{"from": who, "value": what} for who, what in (("human", WARM[0]), ("function_call", "{}"), ("observation", "7"),
      ("gpt", WARM[1]))], WARM, {"tool_calls": 1, "tool_turns": 1}),
    # A message without anything to read is no second one.
    ([{"role": "user", "content": "\u200b"}, ASKED, ANSWERED], WARM, {}),
    # Names that are null are passed over.
    ([{"role": None, "content": None, "from": who, "value": what} for who, what in TALK], PLAIN, {}),
]  # fmt: skip


@each_format
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_chat_has_its_turns_and_what_is_no_turn_is_counted(format_: str, row: int, tmp_path: Path) -> None:
    messages, turns, others = ROWS[row]
    (found,), counts = read(tmp_path, format_, chats(format_, messages))
    assert found.turns == turns
    assert +counts == Counter(dialogues=1, turns=len(turns), **others)


@pytest.mark.parametrize(("messages", "expected"), [(None, "hi you there"), ("joined", "hi you there"), ("one", "")])
def test_messages_of_one_speaker_in_a_row_are_one_turn(messages: str | None, expected: str, tmp_path: Path) -> None:
    talk = [("user", "hi"), ("system", "Be kind."), ("user", " "), ("user", "you there"), *TALK[1:]]
    (found,), counts = read(tmp_path, "jsonl", chats("jsonl", said(talk)), messages)
    assert found.turns == [expected, *PLAIN[1:]]
    assert counts["turns_of_several_messages"] == 1


@each_format
@pytest.mark.parametrize(
    "row",
    [
        {"turns": 2, "messages": [ASKED, ANSWERED]},
        {"turns": None, "messages": [ASKED, ANSWERED]},
        {"messages": None, "conversations": [{"from": "human", "value": WARM[0]}, {"from": "gpt", "value": WARM[1]}]},
        {"dialog": "is it warm?", "utterances": WARM},
    ],
)
def test_the_first_list_is_the_dialogue(format_: str, row: dict[str, Any], tmp_path: Path) -> None:
    assert turns_in(tmp_path, format_, rows(format_, [row])) == [WARM]


@pytest.mark.parametrize(("user", "assistant", "stride"), [("user", "assistant", 1), ("human", "gpt", 2)])
def test_the_assistant_answers_whoever_begins(user: str, assistant: str, stride: Any, tmp_path: Path) -> None:
    talk = [(assistant, "welcome"), (user, "hi"), (assistant, "hello"), (user, "bye"), (assistant, "see you")]
    settings = Pairs(stride=stride, history=1, joined_by=" ")
    found, counts = read(tmp_path, "jsonl", chats("jsonl", said(talk), said(talk[1:])))
    pairs = [(pair.query, pair.response) for each in found for pair in pairs_of(each, settings)[0]]
    assert pairs == [("hi", "hello"), ("bye", "see you")] * 2
    assert counts["turns_before_the_user"] == 1
    (others,), counts = read(tmp_path, "jsonl", chats("jsonl", said([("Ann", "hi"), ("Bo", "hello"), ("Ann", "bye")])))
    assert len(pairs_of(others, settings)[0]) == 3 - stride and counts["turns_before_the_user"] == 0


@pytest.mark.parametrize("key", KEYS)
def test_turns_are_texts_or_messages_of_any_kind_under_any_key(key: str, tmp_path: Path) -> None:
    turns = ["hi", {"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}, {"speaker": "user", "text": "c"}]
    content = chats("jsonl", turns, [*turns[:2], "hi", "hi"], key=key)
    assert turns_in(tmp_path, "jsonl", content) == [["hi", "a", "b", "c"], ["hi", "a", "hi", "hi"]]


@pytest.mark.parametrize(
    ("format_", "bad"),
    [("jsonl", "hi"), ("jsonl", [3]), ("parquet", None), ("parquet", [ASKED, {"role": "assistant", "content": None}])],
)
def test_a_bad_row_is_left_out_counted_and_named_up_to_the_limit(format_: str, bad: Any, tmp_path: Path) -> None:
    good = [said([*TALK, ("user", str(number))]) for number in range(99)]
    found, counts = read(tmp_path, format_, chats(format_, *good[:7], bad, *good[7:]), bad=0.01)
    assert (len(found), counts["bad_rows"], counts["dialogues"]) == (99, 1, 99)
    for limit, given in ((0.0, [*good, bad]), (0.01, [*good, bad, bad, bad])):
        assert "100: " in refusal(tmp_path, format_, chats(format_, *given), bad=limit)


GOOD = {"role": "user", "content": "hi"}


def one(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


@pytest.mark.parametrize(
    ("format_", "key", "value", "expected"),
    [
        ("jsonl", "messages", [GOOD, {"content": "hello"}], "messages[1].role: not a text but null"),
        ("jsonl", "messages", [GOOD, {"role": "assistant"}], "messages[1].content: not a text but null"),
        ("jsonl", "messages", one(["hi"]), "messages[0].content: not a part of a message but a text"),
        ("jsonl", "messages", one([text("a"), {"type": "text"}]), "messages[0].content: not a text but null"),
        ("jsonl", "messages", one(1, tool_calls=[1]), "messages[0].content: not a text but a number"),
        ("jsonl", "messages", one(None, tool_calls=[]), "messages[0].content: not a text but null"),
        ("jsonl", "utterances", ["hi", 3], "utterances[1]: not a turn but a number"),
        ("jsonl", "turn", ["hi", "you"], "not a list of turns but an object"),
        ("parquet", "messages", one(None), "messages[0].content: not a text but null"),
        ("parquet", "messages", None, "not a list of turns but an object"),
        ("parquet", "utterances", ["hi", None], "utterances[1]: not a turn but null"),
    ],
)
def test_what_is_no_dialogue_is_refused(format_: str, key: str, value: Any, expected: str, tmp_path: Path) -> None:
    found = refusal(tmp_path, format_, chats(format_, value, key=key))
    assert found.startswith(f"{'1' if format_ == 'jsonl' else ' row 1'}: {expected}")
