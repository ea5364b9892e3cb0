"""Reading corpora: every format, every kind of bad input, the counts, and no dependence on the order in a file."""

import errno
import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from stages.pair_extract import formats
from stages.pair_extract.chats import COUNTED_IN_CHATS
from stages.pair_extract.corpora import COUNTED, Found, content_id, read_corpus
from stages.pair_extract.corpora import split_dialogues as parts_of
from stages.params.sources import Dataset, Split
from stages.plumbing.errors import StageError, describe
from stages.records import Dialogue, on_disk, records_of
from tests.tiny import tiny_dialogues

DIALOGUES = [["hi", "hello", "how are you"], ["what is that", "a dog"], ["one", "two", "three", "four"]]
SPLIT = {"validation": 1, "test": 1, "seed": 0}
FORMATS = ("chitchat", "eou", "jsonl", "parquet")


def entry(format_: str, splits: Sequence[str] = ("train", "validation", "test"), messages: str = "joined") -> Dataset:
    suffix = {"chitchat": "json", "eou": "txt"}.get(format_, format_)
    files = {split: {"path": f"x.{suffix}", "sha256": "0" * 64} for split in splits}
    split = SPLIT if "all" in splits else None
    value = {"format": format_, "source": "file:x", "files": files, "split": split, "max_bad_rows": 0}
    return Dataset.model_validate({**value, "messages": messages} if format_ == "chitchat" else value)


def encode(format_: str, dialogues: Sequence[Sequence[str]]) -> bytes:
    if format_ == "chitchat":
        turns = [[[{"text": text, "sender": "x"}] for text in dialogue] for dialogue in dialogues]
        return json.dumps({f"id{number}": {"messages": each} for number, each in enumerate(turns)}).encode()
    if format_ == "eou":
        return "".join("".join(f"{turn} __eou__ " for turn in turns) + "\n" for turns in dialogues).encode()
    if format_ == "jsonl":
        return "".join(json.dumps(turns) + "\n" for turns in dialogues).encode()
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"dialog": dialogues, "act": [[1]] * len(dialogues)}), buffer)
    return bytes(buffer.getvalue().to_pybytes())


def read(format_: str, content: bytes, folder: Path, messages: str = "joined") -> tuple[list[Dialogue], Counter[str]]:
    """The training dialogues and counts of a corpus whose training file has this content."""
    dataset = entry(format_, messages=messages)
    for split in ("train", "validation", "test"):
        (folder / dataset.file_name(split)).write_bytes(content if split == "train" else encode(format_, DIALOGUES))
    with TemporaryDirectory(dir=folder) as scratch:
        dialogues, report = read_corpus("datasets.x", dataset, folder, Path(scratch))
        bad = report["train"].pop("first_bad_rows", [])
        assert len(bad) == report["train"]["bad_rows"]
        return list(records_of(dialogues["train"], Found)), Counter(report["train"])


def split_dialogues(key: str, dialogues: Sequence[Dialogue], split: Split) -> dict[str, list[Dialogue]]:
    with TemporaryDirectory() as scratch:
        parts = parts_of(key, on_disk(dialogues, Dialogue, Path(scratch)), split)
        return {name: list(records_of(part, Dialogue)) for name, part in parts.items()}


def turns_of(dialogues: Sequence[Dialogue]) -> list[list[str]]:
    return sorted(dialogue.turns for dialogue in dialogues)


def refusal(format_: str, content: bytes, folder: Path) -> str:
    with pytest.raises(StageError) as caught:
        read(format_, content, folder)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_gives_the_same_dialogues_with_the_same_ids(format_: str, tmp_path: Path) -> None:
    dialogues, counts = read(format_, encode(format_, DIALOGUES), tmp_path)
    assert turns_of(dialogues) == sorted(DIALOGUES)
    assert {each.dialogue for each in dialogues} == {content_id(turns) for turns in DIALOGUES}
    assert +counts == Counter(dialogues=3, turns=9)
    in_chats = COUNTED_IN_CHATS if format_ in ("jsonl", "parquet") else ()
    assert set(counts) == {*COUNTED, *in_chats}  # zeros included, so that a report always has the same keys


@pytest.mark.parametrize("format_", FORMATS)
def test_the_order_in_the_file_makes_no_difference(format_: str, tmp_path: Path) -> None:
    corpus = [*tiny_dialogues(40), *tiny_dialogues(5)]  # with duplicates
    shuffled = random.Random(1).sample(corpus, len(corpus))
    assert read(format_, encode(format_, corpus), tmp_path) == read(format_, encode(format_, shuffled), tmp_path)


def test_a_turn_of_chitchat_is_the_messages_sent_in_a_row(tmp_path: Path) -> None:
    messages = [[{"text": "hi "}, {"text": " "}, {"text": "how are you"}], [{"text": "fine\r\nthanks"}]]
    dialogues, _ = read("chitchat", json.dumps({"a": {"messages": messages, "start": 1}}).encode(), tmp_path)
    assert turns_of(dialogues) == [["hi how are you", "fine thanks"]]


def test_of_one_message_a_turn_that_was_sent_as_several_keeps_its_place_and_is_empty(tmp_path: Path) -> None:
    turns = [["hi", " "], ["hello", "how are you"], ["fine"], ["good"]]
    messages = [[{"text": text} for text in turn] for turn in turns]
    content = json.dumps({"a": {"messages": messages}}).encode()
    dialogues, counts = read("chitchat", content, tmp_path, messages="one")
    assert turns_of(dialogues) == [["hi", "", "fine", "good"]]
    assert counts["turns_of_several_messages"] == 1


@pytest.mark.parametrize("line", [["a", "b"], {"turns": ["a", "b"]}, {"dialog": ["a", "b"], "act": [1, 2]}])
def test_a_json_line_is_a_list_or_has_one(line: Any, tmp_path: Path) -> None:
    dialogues, _ = read("jsonl", json.dumps(line).encode(), tmp_path)
    assert turns_of(dialogues) == [["a", "b"]]


# --- dirt that is removed and counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["eou", "jsonl"])
def test_crlf_blank_lines_and_a_byte_order_mark_change_nothing(format_: str, tmp_path: Path) -> None:
    clean = encode(format_, DIALOGUES)
    dirty = b"\xef\xbb\xbf" + clean.replace(b"\n", b"\r\n") + b"\r\n  \n"
    dialogues, counts = read(format_, dirty, tmp_path)
    assert dialogues == read(format_, clean, tmp_path)[0]
    assert +counts == Counter(dialogues=3, turns=9, byte_order_marks=1, blank_lines=2)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
@pytest.mark.parametrize("format_", FORMATS)
def test_only_a_line_feed_ends_a_line_and_no_turn_keeps_a_break(format_: str, separator: str, tmp_path: Path) -> None:
    content = encode(format_, [[f"one{separator}two", "three"]])
    if format_ in ("chitchat", "jsonl"):  # the raw character instead of its JSON escape
        content = content.decode().replace("\\u2028", "\u2028").replace("\\u2029", "\u2029").encode()
    dialogues, _ = read(format_, content, tmp_path)
    assert turns_of(dialogues) == [["one two", "three"]]


@pytest.mark.parametrize("format_", FORMATS)
def test_emoji_and_right_to_left_text_stay_as_they_are(format_: str, tmp_path: Path) -> None:
    turns = ["👩‍👩‍👧 ok 🇩🇪", "مرحبا כן", "naïve ﬁ Å"]
    assert turns_of(read(format_, encode(format_, [turns]), tmp_path)[0]) == [turns]


def test_accents_that_are_characters_of_their_own_make_no_other_text(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9 \uac00", "cafe\u0301 \u1100\u1161"
    dialogues, _ = read("jsonl", encode("jsonl", [[composed, apart]]), tmp_path)
    assert turns_of(dialogues) == [[composed, composed]]


@pytest.mark.parametrize("format_", ["chitchat", "jsonl"])
def test_nul_and_halves_of_surrogate_pairs_are_removed_and_counted(format_: str, tmp_path: Path) -> None:
    dialogues, counts = read(format_, encode(format_, [["a\0b", "c\ud83dd", "\0"]]), tmp_path)
    assert turns_of(dialogues) == [["ab", "cd", ""]]
    assert counts["removed_characters"] == 3
    assert counts["empty_turns"] == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_an_empty_or_blank_turn_keeps_its_place_and_is_counted(format_: str, tmp_path: Path) -> None:
    dialogues, counts = read(format_, encode(format_, [["a", "", "b", " \t\u00a0 ", "c"]]), tmp_path)
    assert turns_of(dialogues) == [["a", "", "b", "", "c"]]
    assert +counts == Counter(dialogues=1, turns=5, empty_turns=2)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_dialogue_of_one_turn_is_left_out_and_counted(format_: str, tmp_path: Path) -> None:
    dialogues, counts = read(format_, encode(format_, [["a"], ["b", " "], ["c", "d"]]), tmp_path)
    assert turns_of(dialogues) == [["c", "d"]]
    assert +counts == Counter(dialogues=3, turns=5, empty_turns=1, unusable_dialogues=2)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_turn_of_a_megabyte_is_kept(format_: str, tmp_path: Path) -> None:
    long = "word " * 250_000 + "end"
    assert turns_of(read(format_, encode(format_, [[long, "ok"]]), tmp_path)[0]) == [[long, "ok"]]


def test_text_behind_the_last_mark_is_a_turn_if_the_line_goes_on_and_is_counted(tmp_path: Path) -> None:
    dialogues, counts = read("eou", b"a __eou__ b\nc __eou__ d __eou__\n", tmp_path)
    assert turns_of(dialogues) == [["a", "b"], ["c", "d"]]
    assert counts["unmarked_turns"] == 1


NOTHING = ("\u200b", "\u200e \u200f", "\ufeff", "\u00ad\u00ad", "\x07\x1b", "\u2060 \t")


def test_a_turn_without_anything_to_read_is_empty(tmp_path: Path) -> None:
    turns = [text for nothing in NOTHING for text in ("a", nothing)] + ["\u200bb\u00ad", "🫨"]
    dialogues, counts = read("jsonl", encode("jsonl", [turns]), tmp_path)
    assert dialogues[0].turns == [*["a", ""] * len(NOTHING), "\u200bb\u00ad", "🫨"]
    assert counts["empty_turns"] == len(NOTHING)


@pytest.mark.parametrize("format_", ["chitchat", "eou", "jsonl"])
def test_a_byte_order_mark_at_the_beginning_of_any_line_is_dropped_and_counted(format_: str, tmp_path: Path) -> None:
    clean = encode(format_, DIALOGUES)
    marked = b"".join(b"\xef\xbb\xbf" + line for line in clean.splitlines(keepends=True))
    dialogues, counts = read(format_, marked, tmp_path)
    assert dialogues == read(format_, clean, tmp_path)[0]
    assert counts["byte_order_marks"] == len(clean.splitlines())


def test_line_breaks_inside_a_turn_are_counted(tmp_path: Path) -> None:
    dialogues, counts = read("jsonl", encode("jsonl", [["one\ntwo\r\n\nthree", "\nfour\n", "five"]]), tmp_path)
    assert dialogues[0].turns == ["one two three", "four", "five"]
    assert counts["turns_of_several_lines"] == 1


@pytest.mark.parametrize("format_", ["eou", "jsonl", "chitchat"])
def test_gzip_is_unpacked_and_damaged_gzip_is_named(format_: str, tmp_path: Path) -> None:
    content = encode(format_, DIALOGUES)
    assert read(format_, gzip.compress(content), tmp_path) == read(format_, content, tmp_path)
    assert "damaged gzip" in refusal(format_, gzip.compress(content)[:-9], tmp_path)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_be_one_array_of_rows(indent: int | None, tmp_path: Path) -> None:
    plain = read("jsonl", encode("jsonl", DIALOGUES), tmp_path)
    rows = [{"turns": DIALOGUES[0]}, *DIALOGUES[1:]]
    assert read("jsonl", json.dumps(rows, indent=indent).encode(), tmp_path) == plain
    (only,), _ = read("jsonl", json.dumps(["a", "b"], indent=None).encode(), tmp_path)
    assert only.turns == ["a", "b"]  # a dialogue, not two rows
    assert refusal("jsonl", json.dumps(rows, indent=indent).encode()[:-1], tmp_path).startswith(
        "train.jsonl:1: not JSON"
    )


def test_a_split_may_have_several_files(tmp_path: Path) -> None:
    dataset = entry("jsonl", ["train-0", "train-1", "validation", "test"])
    for name in dataset.files:
        part = {"train-0": DIALOGUES[:2], "train-1": [DIALOGUES[0], DIALOGUES[2]]}.get(name, DIALOGUES)
        (tmp_path / dataset.file_name(name)).write_bytes(encode("jsonl", part))
    found, report = read_corpus("datasets.x", dataset, tmp_path, tmp_path / "scratch")
    name = content_id(DIALOGUES[0])
    assert {name, f"{name}-2"} < set(found["train"]["dialogue"])
    assert (report["train"]["dialogues"], report["train"]["duplicate_dialogues"]) == (4, 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (pa.ArrowMemoryError("malloc of size 8 failed"), "memory: not enough"),
        (OSError(errno.EIO, "Input/output error"), "test.parquet: the disk or the network"),
        (PermissionError(errno.EACCES, "Permission denied"), "test.parquet: Permission denied"),
        (pa.ArrowInvalid("Parquet magic bytes not found"), "test.parquet: not a Parquet file (Parquet magic"),
        (OSError("Couldn't deserialize thrift"), "test.parquet: not a Parquet file (Couldn't"),
    ],
)
def test_what_keeps_parquet_from_being_read_is_called_what_it_is(
    error: Exception, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", fails)
    with pytest.raises(Exception) as caught:
        read("parquet", encode("parquet", DIALOGUES), tmp_path)
    assert expected in describe(caught.value)


# --- bad input that is refused, with its line ----------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_an_empty_file_is_refused(format_: str, tmp_path: Path) -> None:
    assert refusal(format_, b"", tmp_path).startswith("train.")


@pytest.mark.parametrize("format_", ["chitchat", "eou", "jsonl"])
def test_bad_utf8_is_refused_with_its_line(format_: str, tmp_path: Path) -> None:
    good = {"chitchat": b"{\n", "eou": b"a __eou__ b __eou__\n", "jsonl": b'["a", "b"]\n'}[format_]
    message = refusal(format_, good + b"caf\xe9 __eou__ x __eou__\n", tmp_path)
    assert ":2: not UTF-8 (byte 0xe9 at column 4); save the corpus as UTF-8" in message


@pytest.mark.parametrize(
    ("format_", "content", "expected"),
    [
        ("jsonl", b'["a", "b"]\n["c", "d', "train.jsonl:2: not JSON"),
        (
            "jsonl",
            b'["a", "b"]\n\n{"turn": ["a", "b"]}\n',
            "train.jsonl:3: not a list of turns but an object; write",
        ),
        ("jsonl", b'["a", 1]\n', "train.jsonl:1[1]: not a turn but a number"),
        ("jsonl", b'"ab"\n', "train.jsonl:1: not a list of turns but a text"),
        ("jsonl", b"[" * 100_000, "train.jsonl:1: not JSON"),
        ("eou", b"a __eou__ b __eou__\nc __eou__ d", "train.txt:2: an incomplete last line, without __eou__"),
        ("eou", b'["a", "b"]\n', "train.txt:1: a line without __eou__"),
        ("chitchat", b'{"a": {"messages": [[', "train.json: not JSON"),
        ("chitchat", b"[]", "train.json: not a JSON object of conversations"),
        ("chitchat", b'{"a": {"messages": [["text"]]}}', "train.json: a: not a list of turns"),
        ("chitchat", b'{"a": {"messages": [[{"text": 1}]]}}', "train.json: a: not a list of turns"),
        ("chitchat", b'{"a": {"turns": []}}', "train.json: a: not a list of turns"),
        ("chitchat", b'{"a": ["x"]}', "train.json: a: not a list of turns"),
        ("parquet", b"PAR1 not at all", "train.parquet: not a Parquet file"),
        (
            "parquet",
            b'["a", "b"]\n',
            "train.parquet: not a Parquet file: it begins with b'[\"a\"'; the corpus's format is",
        ),
        ("jsonl", encode("parquet", DIALOGUES), "train.jsonl: a Parquet file; the corpus's format is jsonl: set it to"),
        ("eou", encode("parquet", DIALOGUES), "train.txt: a Parquet file; the corpus's format is eou: set it to"),
        ("parquet", encode("parquet", DIALOGUES)[:-100], "train.parquet: not a Parquet file"),
    ],
)
def test_another_shape_is_refused_with_its_place(format_: str, content: bytes, expected: str, tmp_path: Path) -> None:
    assert refusal(format_, content, tmp_path).startswith(expected)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"text": ["a", "b"]},
            "columns text; one column must be called turns, dialog, utterances, dialogue,",
        ),
        ({"dialog": ["a", "b"]}, "row 1: dialog: not a list of turns but a text"),
        ({"dialog": [["a", None]]}, "row 1: dialog[1]: not a turn but null"),
        ({"dialog": pa.array([], pa.list_(pa.string()))}, "no rows"),
    ],
)
def test_parquet_of_another_shape_is_refused(columns: dict[str, Any], expected: str, tmp_path: Path) -> None:
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), buffer)
    assert refusal("parquet", buffer.getvalue().to_pybytes(), tmp_path).startswith(f"train.parquet: {expected}")


# --- splitting a corpus that comes without a split -----------------------------------------------------------------


def many(count: int) -> list[Dialogue]:
    found = (Dialogue(content_id([str(number), "x"]), [str(number), "x"]) for number in range(count))
    return sorted(found, key=lambda each: each.dialogue)


def names(dialogues: Sequence[Dialogue]) -> set[str]:
    return {dialogue.dialogue for dialogue in dialogues}


def test_equal_dialogues_are_numbered_and_sorted_by_their_names_as_texts(tmp_path: Path) -> None:
    turns = [["a", "b"], ["c", "d"], ["e", "f"]]
    found, counts = read("jsonl", encode("jsonl", turns * 23), tmp_path)
    base = {tuple(each): content_id(each) for each in turns}
    expected = [name + (f"-{copy}" if copy > 1 else "") for name in base.values() for copy in range(1, 24)]
    assert [each.dialogue for each in found] == sorted(expected)  # id-10 before id-2
    assert all(base[tuple(each.turns)] == each.dialogue.partition("-")[0] for each in found)
    assert counts["duplicate_dialogues"] == 66


def test_a_parquet_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tiny_dialogues(40)
    whole = read("parquet", encode("parquet", corpus), tmp_path)
    monkeypatch.setattr(formats, "PARQUET_ROWS", 7)
    assert read("parquet", encode("parquet", corpus), tmp_path) == whole
    assert len(whole[0]) == 40


def test_a_split_is_a_partition_of_the_sizes_asked_for() -> None:
    dialogues = many(100)
    parts = split_dialogues("key", dialogues, Split(validation=10, test=20, seed=0))
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "validation": 10, "test": 20}
    assert set.union(*map(names, parts.values())) == names(dialogues)
    assert all(part == sorted(part, key=lambda each: each.dialogue) for part in parts.values())


@pytest.mark.parametrize(("part", "expected"), [(0.1, 10), (0.001, 1), (7, 7), (0.25, 25)])
def test_a_split_may_be_parts_of_the_corpus(part: float, expected: int) -> None:
    parts = split_dialogues("key", many(100), Split(validation=part, test=5, seed=0))
    assert len(parts["validation"]) == expected


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (1.5, 1), (0, 1)])
def test_a_split_that_cannot_be_is_refused_before_any_download(validation: float, test: float) -> None:
    with pytest.raises(ValidationError):
        Split(validation=validation, test=test, seed=0)


def test_a_split_depends_on_the_seed() -> None:
    dialogues = many(100)
    split = Split(validation=10, test=20, seed=0)
    other = split_dialogues("key", dialogues, Split(validation=10, test=20, seed=1))
    assert other["test"] != split_dialogues("key", dialogues, split)["test"]


def test_equal_dialogues_stay_in_one_part() -> None:
    dialogues = [Dialogue(each.dialogue + end, each.turns) for each in many(30) for end in ("", "-2", "-3")]
    parts = split_dialogues("key", dialogues, Split(validation=10, test=10, seed=0))
    of_part = {name: {each.dialogue.partition("-")[0] for each in part} for name, part in parts.items()}
    assert not of_part["train"] & of_part["test"]
    assert not of_part["train"] & of_part["validation"]
    assert not of_part["validation"] & of_part["test"]
    assert [len(parts[name]) for name in ("test", "validation")] == [12, 12]  # ten, and the rest of the last three


def test_a_split_that_leaves_nothing_for_training_is_refused() -> None:
    with pytest.raises(StageError, match=r"key: 5 \+ 5 of 10 usable dialogues are set aside; set fewer aside"):
        split_dialogues("key", many(10), Split(validation=5, test=5, seed=0))


def test_a_corpus_with_one_file_is_split(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_bytes(encode("jsonl", [*DIALOGUES, ["alone"]]))
    dialogues, counts = read_corpus("datasets.x", entry("jsonl", ["all"]), tmp_path, tmp_path / "scratch")
    assert {name: len(part) for name, part in dialogues.items()} == {"train": 1, "validation": 1, "test": 1}
    assert +Counter(counts["all"]) == Counter(dialogues=4, turns=10, unusable_dialogues=1)
