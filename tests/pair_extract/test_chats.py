"""Chats as the hub keeps them: both formats, in JSON lines and in Parquet, and everything that is no chat."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet
import pytest

from stages.pair_extract.chats import KEYS
from stages.pair_extract.corpora import Found, read_corpus
from stages.pair_extract.pairs import pairs_of
from stages.params.schema import Pairs
from stages.params.sources import Dataset
from stages.plumbing.errors import StageError
from stages.records import Dialogue, records_of

Format = Literal["jsonl", "parquet"]
Messages = list[tuple[str, str]]
CHAT_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value"), "dialogue": ("speaker", "text")}
FORMATS: tuple[Format, ...] = ("jsonl", "parquet")
TALK: Messages = [("user", "hi"), ("assistant", "hello"), ("user", "how are you"), ("assistant", "fine")]
JOINED = "hi are you there"
PLAIN = [text for _, text in TALK]


def chat(key: str, messages: Messages) -> list[dict[str, str]]:
    speaker, text = CHAT_KEYS[key]
    return [{speaker: who, text: what} for who, what in messages]


def encode(format_: Format, key: str, dialogues: Sequence[Any]) -> bytes:
    if format_ == "jsonl":
        return "".join(json.dumps({"id": 7, key: each}) + "\n" for each in dialogues).encode()
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"id": [7] * len(dialogues), key: list(dialogues)}), buffer)
    return bytes(buffer.getvalue().to_pybytes())


def read(
    folder: Path, format_: Format, content: bytes, messages: str | None = None, bad: float = 0.0
) -> tuple[list[list[str]], Counter[str]]:
    """The turns of each training dialogue, sorted, and the counts; all three files have this content."""
    found, counts = corpus(folder, format_, content, messages, bad)
    return sorted(each.turns for each in found), counts


def corpus(
    folder: Path, format_: Format, content: bytes, messages: str | None = None, bad: float = 0.0
) -> tuple[list[Dialogue], Counter[str]]:
    files = {split: {"path": f"x.{format_}", "sha256": "0" * 64} for split in ("train", "validation", "test")}
    value = {"format": format_, "source": "file:x", "files": files, "messages": messages, "max_bad_rows": bad}
    dataset = Dataset.model_validate(value)
    for split in dataset.files:
        (folder / dataset.file_name(split)).write_bytes(content)
    with TemporaryDirectory(dir=folder) as scratch:
        dialogues, report = read_corpus("datasets.x", dataset, folder, Path(scratch))
        counts = Counter({name: count for name, count in report["train"].items() if name != "first_bad_rows"})
        return list(records_of(dialogues["train"], Found)), counts


def refusal(folder: Path, format_: Format, content: bytes) -> str:
    with pytest.raises(StageError) as caught:
        read(folder, format_, content)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("key", CHAT_KEYS)
def test_a_chat_has_the_turns_of_its_messages(format_: Format, key: str, tmp_path: Path) -> None:
    turns, counts = read(tmp_path, format_, encode(format_, key, [chat(key, TALK)]))
    assert turns == [PLAIN]
    assert +counts == Counter(dialogues=1, turns=4)


@pytest.mark.parametrize("format_", FORMATS)
def test_utterances_is_a_column_of_turns(format_: Format, tmp_path: Path) -> None:
    assert read(tmp_path, format_, encode(format_, "utterances", [PLAIN]))[0] == [PLAIN]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("key", CHAT_KEYS)
@pytest.mark.parametrize("speaker", ["system", "developer", "System", "SYSTEM ", "Developer"])
def test_a_system_turn_is_left_out_and_counted(format_: Format, key: str, speaker: str, tmp_path: Path) -> None:
    talks = [[(speaker, "Be kind."), *TALK], [*TALK[:2], (speaker, "Be brief."), *TALK[2:]], TALK[:2]]
    turns, counts = read(tmp_path, format_, encode(format_, key, [chat(key, talk) for talk in talks]))
    assert turns == [PLAIN[:2], PLAIN, PLAIN]
    assert counts["system_turns"] == 2
    assert counts["turns"] == 10


@pytest.mark.parametrize(
    ("messages", "expected"), [(None, "hi are you there"), ("joined", "hi are you there"), ("one", "")]
)
@pytest.mark.parametrize("format_", FORMATS)
def test_messages_of_one_speaker_in_a_row_are_one_turn(
    format_: Format, messages: str | None, expected: str, tmp_path: Path
) -> None:
    talk = [("user", "hi"), ("system", "Be kind."), ("user", " "), ("user", "are you there"), *TALK[1:]]
    turns, counts = read(tmp_path, format_, encode(format_, "messages", [chat("messages", talk)]), messages)
    assert turns == [[expected, *PLAIN[1:]]]
    assert counts["turns_of_several_messages"] == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_speakers_may_have_any_name_and_messages_more_fields(format_: Format, tmp_path: Path) -> None:
    rows = [[{"from": "Ann", "value": "hi", "weight": 1}, {"from": "Bo", "value": "hello", "weight": 0}]]
    assert read(tmp_path, format_, encode(format_, "conversations", rows))[0] == [["hi", "hello"]]


@pytest.mark.parametrize("format_", FORMATS)
def test_either_list_may_have_the_fields_of_the_other(format_: Format, tmp_path: Path) -> None:
    content = encode(format_, "conversations", [chat("messages", TALK)])
    assert read(tmp_path, format_, content)[0] == [PLAIN]


@pytest.mark.parametrize("format_", FORMATS)
def test_an_empty_message_keeps_its_place(format_: Format, tmp_path: Path) -> None:
    talk = [("user", "hi"), ("assistant", ""), ("user", "hello?"), ("assistant", "yes")]
    assert read(tmp_path, format_, encode(format_, "messages", [chat("messages", talk)]))[0] == [
        ["hi", "", "hello?", "yes"]
    ]


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


CALL = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
ASKED, ANSWERED = {"role": "user", "content": "is it warm"}, {"role": "assistant", "content": "it is"}
WARM = ["is it warm", "it is"]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "call",
    [
        {"content": None, "tool_calls": CALL},
        {"content": "", "tool_calls": CALL},
        {"tool_calls": CALL},
        {"content": None, "function_call": {"name": "weather", "arguments": "{}"}},
    ],
)
@pytest.mark.parametrize("tool", [{"role": "tool", "content": "23"}, {"role": "Function", "content": None}])
def test_a_call_of_a_tool_and_its_answer_are_no_turns_and_are_counted(
    format_: Format, call: dict[str, Any], tool: dict[str, Any], tmp_path: Path
) -> None:
    chats = [[ASKED, {"role": "assistant", **call}, tool, ANSWERED]]
    turns, counts = read(tmp_path, format_, encode(format_, "messages", chats))
    assert turns == [WARM]
    assert (counts["tool_calls"], counts["tool_turns"], counts["turns"]) == (1, 1, 2)


@pytest.mark.parametrize("format_", FORMATS)
def test_so_are_messages_that_only_have_parts_of_a_tool(format_: Format, tmp_path: Path) -> None:
    parts = [[text(WARM[0])], [{"type": "tool_use"}], [{"type": "tool_result"}], [text(WARM[1])]]
    chat = [{"role": who, "content": each} for who, each in zip(("user", "assistant") * 2, parts, strict=True)]
    turns, counts = read(tmp_path, format_, encode(format_, "messages", [chat]))
    assert turns == [WARM]
    assert (counts["tool_calls"], counts["other_parts"], counts["turns"]) == (2, 2, 2)


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_said_with_a_call_of_a_tool_is_a_turn(format_: Format, tmp_path: Path) -> None:
    chats = [[ASKED, {"role": "assistant", "content": "I look", "tool_calls": CALL}, {**ANSWERED, "tool_calls": []}]]
    turns, counts = read(tmp_path, format_, encode(format_, "messages", chats))
    assert turns == [["is it warm", "I look it is"]]
    assert counts["tool_calls"] == 0


@pytest.mark.parametrize("format_", FORMATS)
def test_an_empty_text_without_a_call_keeps_its_place_whatever_fields_the_others_have(
    format_: Format, tmp_path: Path
) -> None:
    nothing = {"name": None, "arguments": None}
    chats = [[{**each, "function_call": nothing} for each in (ASKED, {**ANSWERED, "content": ""}, ASKED)]]
    assert read(tmp_path, format_, encode(format_, "messages", chats))[0] == [["is it warm", "", "is it warm"]]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_texts_among_the_parts_of_a_message_are_joined_and_the_others_counted(
    format_: Format, tmp_path: Path
) -> None:
    image = {"type": "image_url", "text": None, "image_url": {"url": "x"}}
    chat = [
        {"role": "user", "content": [text("look"), image, text("at this")]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "nice"}]},
        {"role": "user", "content": [image]},  # a turn without text: it keeps its place
        {"role": "assistant", "content": [text("that too")]},
    ]
    turns, counts = read(tmp_path, format_, encode(format_, "messages", [chat]), "one")
    assert turns == [["look at this", "nice", "", "that too"]]
    assert (counts["other_parts"], counts["empty_turns"], counts["turns_of_several_messages"]) == (2, 1, 0)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_case_of_a_speaker_makes_no_difference(format_: Format, tmp_path: Path) -> None:
    talk = [("User", "hi"), ("user", "are you there"), ("Assistant", "hello")]
    assert read(tmp_path, format_, encode(format_, "messages", [chat("messages", talk)]))[0] == [[JOINED, "hello"]]


@pytest.mark.parametrize(
    "row",
    [
        {"turns": 2, "messages": [ASKED, ANSWERED]},
        {"turns": None, "messages": [ASKED, ANSWERED]},
        {"messages": None, "conversations": [{"from": "human", "value": WARM[0]}, {"from": "gpt", "value": WARM[1]}]},
        {"dialog": "is it warm?", "utterances": WARM},
    ],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_the_first_list_is_the_dialogue(format_: Format, row: dict[str, Any], tmp_path: Path) -> None:
    if format_ == "jsonl":
        content = json.dumps(row).encode()
    else:
        buffer = pa.BufferOutputStream()
        pyarrow.parquet.write_table(pa.table({name: [value] for name, value in row.items()}), buffer)
        content = bytes(buffer.getvalue().to_pybytes())
    assert read(tmp_path, format_, content)[0] == [WARM]


def test_each_row_of_a_parquet_file_has_its_own_first_list(tmp_path: Path) -> None:
    rows = pa.table({"messages": [None, [ASKED, ANSWERED]], "turns": [["a", "b"], None]})
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(rows, buffer)
    assert read(tmp_path, "parquet", bytes(buffer.getvalue().to_pybytes()))[0] == [["a", "b"], WARM]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("key", CHAT_KEYS)
def test_names_that_are_null_are_passed_over(format_: Format, key: str, tmp_path: Path) -> None:
    nulls = {"role": None, "content": None}
    chats = [[{**nulls, "from": who, "value": what} for who, what in TALK]]
    assert read(tmp_path, format_, encode(format_, key, chats))[0] == [PLAIN]


def message(who: str, what: str) -> dict[str, str]:
    return {"role": who, "content": what}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("user", "assistant"), [("user", "assistant"), ("human", "gpt"), ("User", "model")])
def test_the_assistant_is_the_one_who_answers_whoever_begins(
    user: str, assistant: str, stride: Any, tmp_path: Path
) -> None:
    talk = [(assistant, "welcome"), (user, "hi"), (assistant, "hello"), (user, "bye"), (assistant, "see you")]
    (tmp_path / "a").mkdir()
    content = encode("jsonl", "messages", [chat("messages", talk), chat("messages", talk[1:])])
    settings = Pairs(stride=stride, history=1, joined_by=" ")
    found, counts = corpus(tmp_path / "a", "jsonl", content)
    pairs = [(pair.query, pair.response) for each in found for pair in pairs_of(each, settings)[0]]
    assert pairs == [("hi", "hello"), ("bye", "see you")] * 2
    assert counts["turns_before_the_user"] == 1
    content = encode("jsonl", "messages", [chat("messages", [("Ann", "hi"), ("Bo", "hello"), ("Ann", "bye")])])
    (others,), counts = corpus(tmp_path, "jsonl", content)
    assert len(pairs_of(others, settings)[0]) == 3 - stride and counts["turns_before_the_user"] == 0


@pytest.mark.parametrize("key", KEYS)
def test_turns_are_texts_or_messages_of_any_kind_under_any_key(key: str, tmp_path: Path) -> None:
    turns = ["hi", {"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}, {"speaker": "user", "text": "c"}]
    assert read(tmp_path, "jsonl", json.dumps({key: turns}).encode())[0] == [["hi", "a", "b", "c"]]
    assert read(tmp_path, "jsonl", json.dumps({key: [*turns[:2], "hi", "hi"]}).encode())[0] == [["hi", "a", "hi", "hi"]]


@pytest.mark.parametrize("bad", [None, [message("user", "hi"), {"role": "assistant", "content": None}], "hi", [3]])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_bad_row_is_left_out_counted_and_named_up_to_the_limit(format_: Format, bad: Any, tmp_path: Path) -> None:
    if (format_ == "parquet" and not isinstance(bad, list | None)) or bad == [3]:
        format_ = "jsonl"  # a column has one type
    rows = [chat("messages", [*TALK, ("user", str(number))]) for number in range(99)]
    content = encode(format_, "messages", [*rows[:7], bad, *rows[7:]])
    turns, counts = read(tmp_path, format_, content, bad=0.01)
    assert (len(turns), counts["bad_rows"], counts["dialogues"]) == (99, 1, 99)
    for limit, rows_ in ((0.0, [*rows, bad]), (0.01, [*rows, bad, bad, bad])):
        with pytest.raises(StageError, match=r"(row |jsonl:)100: messages"):
            read(tmp_path, format_, encode(format_, "messages", rows_), bad=limit)


GOOD = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("messages", [GOOD, {"content": "hello"}], "messages[1]: no role; a message has role and content"),
        ("messages", [GOOD, {"role": "assistant"}], "messages[1]: no content; a message has role and content"),
        (
            "messages",
            [GOOD, {"role": "assistant", "content": None}],
            "messages[1].content: not a text but null; write it",
        ),
        ("messages", [{"role": "user", "content": ["hi"]}], "messages[0].content: not a text but a list; write it"),
        ("messages", [{"role": "user", "content": {"text": "hi"}}], "messages[0].content: not a text but an object"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]}],
            "messages[0].content[1].text: not a text but null; write it",
        ),
        ("messages", [{"role": "user", "content": [{"x": 1}]}], "messages[0].content[0].text: not a text but null"),
        ("messages", [{**GOOD, "tool_calls": [1], "content": 1}], "messages[0].content: not a text but a number"),
        ("messages", [{"role": "user", "content": None, "tool_calls": []}], "messages[0].content: not a text but null"),
        ("messages", [{"role": None, "content": "hi"}], "messages[0].role: not a text but null"),
        ("messages", [{"role": 1, "content": "hi"}], "messages[0].role: not a text but a number"),
        ("messages", None, "messages: not a list of turns but null; write one dialogue per row"),
        ("messages", "hi", "messages: not a list of turns but a text; write one dialogue per row"),
        ("conversations", [{"value": "hi"}], "conversations[0]: no from; a message has from and value"),
        ("conversations", [{"from": "human"}], "conversations[0]: no value; a message has from and value"),
        ("conversations", [{"from": "human", "value": None}], "conversations[0].value: not a text but null"),
    ],
)
def test_what_is_no_chat_is_refused_with_its_place(key: str, value: Any, expected: str, tmp_path: Path) -> None:
    good = json.dumps({key: chat(key, TALK)})
    bad = json.dumps({key: value})
    assert refusal(tmp_path, "jsonl", f"{good}\n{bad}\n".encode()).startswith(f"test.jsonl:2: {expected}")


@pytest.mark.parametrize(
    ("key", "rows", "expected"),
    [
        (
            "messages",
            [[GOOD], [GOOD, {"role": "assistant", "content": None}]],
            "row 2: messages[1].content: not a text but",
        ),
        ("messages", [[GOOD], None], "row 2: messages: not a list of turns but null; "),
        (
            "messages",
            [[{"role": "user", "text": "hi"}]],
            "row 1: messages[0]: no content; a message has role",
        ),
        ("conversations", [[{"value": "hi"}]], "row 1: conversations[0]: no from; a message has from and value"),
        ("utterances", [["hi", None]], "row 1: utterances[1]: not a turn but null"),
    ],
)
def test_in_parquet_too(key: str, rows: list[Any], expected: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, "parquet", encode("parquet", key, rows)).startswith(f"test.parquet: {expected}")
