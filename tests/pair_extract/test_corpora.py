"""Reading corpora: every format, every kind of bad input, the counts, and no dependence on the order in a file."""

import errno
import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from stages.pair_extract import formats
from stages.pair_extract.corpora import COUNTED, content_id, read_corpus
from stages.pair_extract.corpora import split_dialogues as parts_of
from stages.params.sources import Split
from stages.plumbing.errors import StageError, describe
from stages.records import Dialogue, on_disk, records_of
from tests.pair_extract.corpus import DIALOGUES, FORMATS, encode, entry, parquet, read, refusal, turns_in
from tests.tiny import tiny_dialogues


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_gives_the_same_dialogues_with_the_same_ids(format_: str, tmp_path: Path) -> None:
    dialogues, counts = read(tmp_path, format_, encode(format_, DIALOGUES))
    assert sorted(each.turns for each in dialogues) == sorted(DIALOGUES)
    assert {each.dialogue for each in dialogues} == {content_id(turns) for turns in DIALOGUES}
    assert +counts == Counter(dialogues=3, turns=9)
    assert set(counts) == set(COUNTED)  # zeros included, so that a report always has the same keys


@pytest.mark.parametrize("format_", FORMATS)
def test_the_order_in_the_file_makes_no_difference(format_: str, tmp_path: Path) -> None:
    corpus = [*tiny_dialogues(40), *tiny_dialogues(5)]  # with duplicates
    shuffled = random.Random(1).sample(corpus, len(corpus))
    assert read(tmp_path, format_, encode(format_, corpus)) == read(tmp_path, format_, encode(format_, shuffled))


@pytest.mark.parametrize(
    ("messages", "expected"), [("joined", ["hi you", "hello", "good so"]), ("one", ["", "hello", "good so"])]
)
def test_a_turn_of_chitchat_is_the_messages_in_a_row(messages: str, expected: list[str], tmp_path: Path) -> None:
    sent = [["hi", " ", "you"], [" ", "hello"], ["good\r\nso"]]
    turns = [[{"text": text} for text in turn] for turn in sent]
    content = json.dumps({"a": {"messages": turns, "start": 1}}).encode()
    (found,), counts = read(tmp_path, "chitchat", content, messages)
    assert found.turns == expected
    assert counts["turns_of_several_messages"] == 1


def test_a_bad_conversation_of_chitchat_is_left_out_up_to_the_limit(tmp_path: Path) -> None:
    content = json.dumps(json.loads(encode("chitchat", DIALOGUES)) | {"odd": {"messages": [["text"]]}}).encode()
    found, counts = read(tmp_path, "chitchat", content, bad=0.25)
    assert (len(found), counts["bad_rows"]) == (3, 1)
    assert refusal(tmp_path, "chitchat", content).startswith(" odd: messages[0]: not a turn but a list")


LONG = "word " * 250_000 + "end"
NOTHING = (
    "\u200b", "\u200e \u200f", "\ufeff", "\u00ad\u00ad", "\x07\x1b", "\u2060 \t", " \t\u00a0 ", "", "\u3164",
    "\u2800\ufe0f",
)  # fmt: skip
WRITTEN: list[tuple[list[list[str]], list[list[str]], dict[str, int]]] = [  # dialogues, what is read, what is counted
    # A turn without anything to read keeps its place.
    ([[text for each in NOTHING for text in ("a", each)]], [["a", ""] * len(NOTHING)], {"empty_turns": len(NOTHING)}),
    ([["a"], ["b", " "], ["c", "d"]], [["c", "d"]], {"unusable_dialogues": 2, "empty_turns": 1}),
    # Only a line feed ends a line, and no turn keeps a break.
    ([[f"one{mark}two" for mark in "\u2028\u2029\x85\x0b\x0c\x1c\r"]], [["one two"] * 7], {}),
    ([["👩‍👩‍👧 ok 🇩🇪", "مرحبا כן", "naïve ﬁ Å", "\u200bb\u00ad"]],) * 2 + ({},),
    ([["caf\u00e9 \uac00", "cafe\u0301 \u1100\u1161"]], [["caf\u00e9 \uac00"] * 2], {}),
    ([["a\0b", "c", "\0"]], [["ab", "c", ""]], {"removed_characters": 2, "empty_turns": 1}),
    ([[LONG, "ok"]], [[LONG, "ok"]], {}),
]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("row", range(len(WRITTEN)))
def test_whatever_people_write_comes_through_in_every_format(format_: str, row: int, tmp_path: Path) -> None:
    written, turns, others = WRITTEN[row]
    found, counts = read(tmp_path, format_, encode(format_, written))
    assert [each.turns for each in found] == turns
    assert +counts == Counter(dialogues=len(written), turns=sum(map(len, written)), **others)


@pytest.mark.parametrize("format_", ["chitchat", "jsonl"])
def test_halves_of_surrogate_pairs_are_removed_and_counted(format_: str, tmp_path: Path) -> None:
    content = encode(format_, [["c?d", "e"]]).replace(b"?", rb"\ud83d")
    (found,), counts = read(tmp_path, format_, content)
    assert (found.turns, counts["removed_characters"]) == (["cd", "e"], 1)


@pytest.mark.parametrize("format_", ["eou", "jsonl"])
def test_crlf_blank_lines_and_byte_order_marks_change_nothing(format_: str, tmp_path: Path) -> None:
    clean = encode(format_, DIALOGUES)
    dirty = b"".join(b"\xef\xbb\xbf" + line for line in clean.splitlines(keepends=True)).replace(b"\n", b"\r\n")
    dialogues, counts = read(tmp_path, format_, clean)
    counts["removed_characters"] = len(DIALOGUES)
    assert read(tmp_path, format_, dirty + b"\r\n  \n") == (dialogues, counts)


def test_line_breaks_inside_a_turn_are_counted(tmp_path: Path) -> None:
    (found,), counts = read(tmp_path, "jsonl", encode("jsonl", [["one\ntwo\r\n\nthree", "\nfour\n", "five"]]))
    assert found.turns == ["one two three", "four", "five"]
    assert counts["turns_of_several_lines"] == 1
    assert turns_in(tmp_path, "eou", b"a __eou__ b\n") == [["a", "b"]], "text behind the last mark is a turn"


def test_gzip_is_unpacked_and_damaged_gzip_is_named(tmp_path: Path) -> None:
    content = encode("jsonl", DIALOGUES)
    assert read(tmp_path, "jsonl", gzip.compress(content)) == read(tmp_path, "jsonl", content)
    assert "damaged gzip" in refusal(tmp_path, "jsonl", gzip.compress(content)[:-9])


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_be_one_array_of_rows(indent: int | None, tmp_path: Path) -> None:
    content = json.dumps([{"turns": DIALOGUES[0]}, *DIALOGUES[1:]], indent=indent).encode()
    for before in (b"", b"\n ", b"\xef\xbb\xbf\r\n"):
        assert turns_in(tmp_path, "jsonl", before + content) == sorted(DIALOGUES)
    assert turns_in(tmp_path, "jsonl", b'["a", "b"]') == [["a", "b"]]  # a dialogue, not two rows
    for mixed in (b'[["a", "b"]]\n[["c", "d"]]', b'[["a", "b"]] ["c", "d"]'):
        assert "a list of lists beside other rows" in refusal(tmp_path, "jsonl", mixed)
    assert "not a turn but a list" in refusal(tmp_path, "jsonl", b'["a", "b"]\n[["c", "d"]]'), "a bad row among others"
    assert refusal(tmp_path, "jsonl", content[:-1]).startswith("1: not JSON")
    odd = json.dumps([*DIALOGUES, None], indent=indent).encode()  # a bad row of the array, not a bad turn
    assert len(read(tmp_path, "jsonl", odd, bad=0.25)[0]) == 3
    assert refusal(tmp_path, "jsonl", odd).startswith("1[3]: not a list of turns but null")


@pytest.mark.parametrize("indent", [None, 0, 1])
def test_a_row_may_stand_on_any_number_of_lines(indent: int | None, tmp_path: Path) -> None:
    rows = [{"turns": list("abcdefgh"[: 2 + number % 7])} for number in range(20)]
    content = "\n".join(json.dumps(row, indent=indent) for row in rows).encode()
    assert sorted(turns_in(tmp_path, "jsonl", content)) == sorted(row["turns"] for row in rows)
    assert refusal(tmp_path, "jsonl", content + b"\n]").split(": ")[1] == "not JSON (Expecting value"


@pytest.mark.parametrize("cut", [b'{"turns": ["a', b'{"turns": ["a", "b"]', b'{"turns": ["a",', b'["a", }'])
def test_a_damaged_row_is_named_without_reading_all_behind_it(cut: bytes, tmp_path: Path) -> None:
    path, counts = tmp_path / "x.jsonl", Counter[str]()
    path.write_bytes(cut + b"\n" + b'\xef\xbb\xbf{"turns": ["c", "d"]}\n' * 99)
    with pytest.raises(StageError, match=r"x\.jsonl:1: not JSON"):
        next(formats.READERS["jsonl"](path, counts))
    assert counts["removed_characters"] < 4, "as many lines were read"


def test_a_split_may_have_several_files(tmp_path: Path) -> None:
    dataset = entry("jsonl", ["train-00000-of-00002", "train-1", "validation", "test"])
    for name in dataset.files:
        part = {"train-00000-of-00002": DIALOGUES[:2], "train-1": [DIALOGUES[0], DIALOGUES[2]]}.get(name, DIALOGUES)
        (tmp_path / dataset.file_name(name)).write_bytes(encode("jsonl", part))
    found, report = read_corpus("datasets.x", dataset, tmp_path, tmp_path)
    name = content_id(DIALOGUES[0])
    assert {name, f"{name}-2"} < set(found["train"]["dialogue"])
    assert (report["train"]["dialogues"], report["train"]["duplicate_dialogues"]) == (4, 1)


def test_a_parquet_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode("parquet", tiny_dialogues(40))
    whole = read(tmp_path, "parquet", content)
    monkeypatch.setattr(formats, "PARQUET_ROWS", 7)
    assert read(tmp_path, "parquet", content) == whole
    assert len(whole[0]) == 40


def test_equal_dialogues_are_numbered_and_sorted_by_their_names_as_texts(tmp_path: Path) -> None:
    turns = [["a", "b"], ["c", "d"], ["e", "f"]]
    found, counts = read(tmp_path, "jsonl", encode("jsonl", turns * 23))
    base = {tuple(each): content_id(each) for each in turns}
    expected = [name + (f"-{copy}" if copy > 1 else "") for name in base.values() for copy in range(1, 24)]
    assert [each.dialogue for each in found] == sorted(expected)  # id-10 before id-2
    assert all(base[tuple(each.turns)] == each.dialogue.partition("-")[0] for each in found)
    assert counts["duplicate_dialogues"] == 66


def test_what_keeps_parquet_from_being_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Mock()
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", failing)
    for failing.side_effect, expected in (
        (pa.ArrowMemoryError("malloc of size 8 failed"), "memory: not enough"),
        (OSError(errno.EIO, "Input/output error"), "test.parquet: the disk or the network"),
        (OSError("Couldn't deserialize thrift"), "test.parquet: not a Parquet file (Couldn't"),
    ):
        with pytest.raises(Exception) as caught:
            read(tmp_path, "parquet", encode("parquet", DIALOGUES))
        assert expected in describe(caught.value)


@pytest.mark.parametrize(
    ("format_", "content", "expected"),
    [
        ("eou", b"", " none of 0 dialogues has two turns with text"),
        ("eou", b"a __eou__ b __eou__\ncaf\xe9 __eou__\n", "2: not UTF-8 (byte 0xe9 at column 4)"),
        ("eou", b'["a", "b"]\n', "1: not a list of turns but a text (first of 1 such rows"),
        ("jsonl", b"[" * 100_000, "1: not JSON"),
        ("jsonl", b'{\n"chats": {"list": []}\n}', "1: not a list of turns but an object"),
        ("jsonl", encode("parquet", DIALOGUES), " a Parquet file; set"),
        ("chitchat", b'{"a": {"messages": [[', " not JSON"),
        ("chitchat", b"[]", " not a JSON object of conversations"),
        ("chitchat", b'{"a": {"messages": [[{"text": 1}]]}}', " a[0].text: not a text but a number"),
        ("chitchat", rb'{"\ud83d\n": {"turn": []}}', r" \ud83d: not a list of turns but an object"),
        ("parquet", encode("parquet", DIALOGUES)[:-100], " not a Parquet file"),
        (
            "parquet",
            parquet({"text": ["a", "b"]}),
            " row 1: not a list of turns but an object (first of 2 such rows, max_bad_rows allows 0); write",
        ),
        ("parquet", parquet({"dialog": pa.array([], pa.list_(pa.string()))}), " none of 0 dialogues"),
    ],
)
def test_another_shape_is_refused_with_its_place(format_: str, content: bytes, expected: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, format_, content).startswith(expected)


def many(count: int) -> list[Dialogue]:
    found = (Dialogue(content_id([str(number), "x"]), [str(number), "x"]) for number in range(count))
    return sorted(found, key=lambda each: each.dialogue)


def split_dialogues(folder: Path, dialogues: Sequence[Dialogue], **split: Any) -> dict[str, list[Dialogue]]:
    parts = parts_of("key", on_disk(dialogues, Dialogue, folder), Split(**split))
    return {name: list(records_of(part, Dialogue)) for name, part in parts.items()}


def test_a_split_is_a_seeded_partition_of_the_sizes_asked_for(tmp_path: Path) -> None:
    dialogues = many(100)
    parts = split_dialogues(tmp_path, dialogues, validation=10, test=20, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "validation": 10, "test": 20}
    together = [each for part in parts.values() for each in part]
    assert sorted(together, key=lambda each: each.dialogue) == dialogues
    assert all(part == sorted(part, key=lambda each: each.dialogue) for part in parts.values())
    assert split_dialogues(tmp_path, dialogues, validation=10, test=20, seed=1)["test"] != parts["test"]


@pytest.mark.parametrize(("part", "expected"), [(0.1, 10), (0.001, 1), (7, 7)])
def test_a_split_may_be_parts_of_the_corpus(part: float, expected: int, tmp_path: Path) -> None:
    assert len(split_dialogues(tmp_path, many(100), validation=part, test=5, seed=0)["validation"]) == expected


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (1.5, 1), (0, 1)])
def test_a_split_that_cannot_be_is_refused_before_any_download(validation: float, test: float) -> None:
    with pytest.raises(ValidationError):
        Split(validation=validation, test=test, seed=0)


def test_equal_dialogues_stay_in_one_part(tmp_path: Path) -> None:
    dialogues = [Dialogue(each.dialogue + end, each.turns) for each in many(30) for end in ("", "-2", "-3")]
    parts = split_dialogues(tmp_path, dialogues, validation=10, test=10, seed=0)
    in_parts = [name for part in parts.values() for name in {each.dialogue.partition("-")[0] for each in part}]
    assert len(in_parts) == len(set(in_parts)) == 30
    assert [len(parts[name]) for name in ("test", "validation")] == [12, 12]  # ten, and the rest of the last three


def test_a_split_that_leaves_nothing_for_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"key: 5 \+ 5 of 10 usable dialogues are set aside"):
        split_dialogues(tmp_path, many(10), validation=5, test=5, seed=0)
