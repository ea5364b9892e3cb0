"""Rows as people have them: chats of all kinds, in JSON lines and in Parquet, and everything that is no dialogue."""

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
FORMATS: tuple[Format, ...] = ("jsonl", "parquet")
CHAT_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value"), "dialogue": ("speaker", "text")}
TALK: Messages = [("user", "hi"), ("assistant", "hello"), ("user", "how are you"), ("assistant", "fine")]
PLAIN = [text for _, text in TALK]


def chat(key: str, messages: Messages) -> list[dict[str, str]]:
    speaker, text = CHAT_KEYS[key]
    return [{speaker: who, text: what} for who, what in messages]


def encode_rows(format_: Format, rows: Sequence[dict[str, Any]]) -> bytes:
    if format_ == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), buffer)
    return bytes(buffer.getvalue().to_pybytes())


def encode(format_: Format, key: str, dialogues: Sequence[Any]) -> bytes:
    return encode_rows(format_, [{"id": 7, key: each} for each in dialogues])


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
    for split in files:
        (folder / dataset.file_name(split)).write_bytes(content)
    with TemporaryDirectory(dir=folder) as scratch:
        dialogues, report = read_corpus("datasets.x", dataset, folder, Path(scratch))
        counts = Counter({name: count for name, count in report["train"].items() if name != "first_bad_rows"})
        return list(records_of(dialogues["train"], Found)), counts


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


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
    *(([{"role": who, "content": "Be kind."}, *chat("messages", TALK)], PLAIN, {"system_turns": 1})
      for who in ("system", "developer", "SYSTEM ")),
    # A call of a tool and its answer are no turns.
    *(([ASKED, {"role": "assistant", **call}, tool, ANSWERED], WARM, {"tool_calls": 1, "tool_turns": 1})
      for call in CALLS for tool in ({"role": "tool", "content": "23"}, {"role": "Function", "content": None})),
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
    # Names that are null are passed over.
    ([{"role": None, "content": None, "from": who, "value": what} for who, what in TALK], PLAIN, {}),
]  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_chat_has_its_turns_and_what_is_no_turn_is_counted(format_: Format, row: int, tmp_path: Path) -> None:
    messages, turns, others = ROWS[row]
    found, counts = read(tmp_path, format_, encode(format_, "messages", [messages]))
    assert found == [turns]
    assert +counts == Counter(dialogues=1, turns=len(turns), **others)


@pytest.mark.parametrize(("messages", "expected"), [(None, "hi you there"), ("joined", "hi you there"), ("one", "")])
@pytest.mark.parametrize("format_", FORMATS)
def test_messages_of_one_speaker_in_a_row_are_one_turn(
    format_: Format, messages: str | None, expected: str, tmp_path: Path
) -> None:
    talk = [("user", "hi"), ("system", "Be kind."), ("user", " "), ("user", "you there"), *TALK[1:]]
    turns, counts = read(tmp_path, format_, encode(format_, "messages", [chat("messages", talk)]), messages)
    assert turns == [[expected, *PLAIN[1:]]]
    assert counts["turns_of_several_messages"] == 1


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
    assert read(tmp_path, format_, encode_rows(format_, [row]))[0] == [WARM]


def test_each_row_of_a_parquet_file_has_its_own_first_list(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"messages": None, "turns": ["a", "b"]}]
    rows.append({"messages": [ASKED, ANSWERED], "turns": None})
    assert read(tmp_path, "parquet", encode_rows("parquet", rows))[0] == [["a", "b"], WARM]


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


@pytest.mark.parametrize("bad", [None, [ASKED, {"role": "assistant", "content": None}], "hi", [3]])
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


def said(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("messages", [GOOD, {"content": "hello"}], "messages[1]: no role; a message has role and content"),
        ("messages", [GOOD, {"role": "assistant"}], "messages[1]: no content; a message has role and content"),
        ("messages", said(None), "messages[0].content: not a text but null; write it"),
        ("messages", said(["hi"]), "messages[0].content: not a text but a list; write it"),
        ("messages", said({"text": "hi"}), "messages[0].content: not a text but an object"),
        ("messages", said([text("a"), {"type": "text"}]), "messages[0].content[1].text: not a text but null; write it"),
        ("messages", said([{"x": 1}]), "messages[0].content[0].text: not a text but null"),
        ("messages", said(1, tool_calls=[1]), "messages[0].content: not a text but a number"),
        ("messages", said(None, tool_calls=[]), "messages[0].content: not a text but null"),
        ("messages", [{"role": None, "content": "hi"}], "messages[0].role: not a text but null"),
        ("messages", None, "messages: not a list of turns but null; write one dialogue per row"),
        ("messages", "hi", "messages: not a list of turns but a text; write one dialogue per row"),
        ("conversations", [{"value": "hi"}], "conversations[0]: no from; a message has from and value"),
        ("conversations", [{"from": "human"}], "conversations[0]: no value; a message has from and value"),
        ("utterances", ["hi", 3], "utterances[1]: not a turn but a number"),
    ],
)
def test_what_is_no_dialogue_is_refused_with_its_place(key: str, value: Any, expected: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{key: chat("messages", TALK)}, {key: value}]
    assert refusal(tmp_path, "jsonl", encode_rows("jsonl", rows)).startswith(f"test.jsonl:2: {expected}")


@pytest.mark.parametrize(
    ("key", "rows", "expected"),
    [
        ("messages", [[GOOD], [*said(None)]], "row 2: messages[0].content: not a text but null"),
        ("messages", [[GOOD], None], "row 2: messages: not a list of turns but null; "),
        ("utterances", [["hi", None]], "row 1: utterances[1]: not a turn but null"),
    ],
)
def test_in_parquet_too(key: str, rows: list[Any], expected: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, "parquet", encode("parquet", key, rows)).startswith(f"test.parquet: {expected}")


def refusal(folder: Path, format_: Format, content: bytes) -> str:
    with pytest.raises(StageError) as caught:
        read(folder, format_, content)
    return str(caught.value).removeprefix(f"{folder}/")
