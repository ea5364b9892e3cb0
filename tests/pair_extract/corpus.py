"""A corpus in each format, and what the stage reads of it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from stages.pair_extract.corpora import Found, read_corpus
from stages.params.sources import Dataset
from stages.plumbing.errors import StageError
from stages.records import SPLITS, Dialogue, records_of

DIALOGUES = [["hi", "hello", "how are you"], ["what is that", "a dog"], ["one", "two", "three", "four"]]
FORMATS = ("chitchat", "eou", "jsonl", "parquet")


def entry(format_: str, files: Sequence[str] = SPLITS, messages: str | None = None, bad: float = 0.0) -> Dataset:
    """The entry of `datasets` for files of these names."""
    suffix = {"chitchat": "json", "eou": "txt"}.get(format_, format_)
    pinned = {name: {"path": f"x.{suffix}", "sha256": "0" * 64} for name in files}
    split = {"validation": 1, "test": 1, "seed": 0} if "all" in files else None
    value = {"format": format_, "source": "file:x", "files": pinned, "split": split, "max_bad_rows": bad}
    value["messages"] = messages or ("joined" if format_ == "chitchat" else None)
    return Dataset.model_validate(value)


def parquet(columns: Mapping[str, Any]) -> bytes:
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), buffer)
    return bytes(buffer.getvalue().to_pybytes())


def rows(format_: str, given: Sequence[Any]) -> bytes:
    """Rows as JSON lines or, with the same keys in each, as Parquet."""
    if format_ == "parquet":
        return parquet({name: [row[name] for row in given] for name in given[0]})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given).encode()


def encode(format_: str, dialogues: Sequence[Sequence[str]]) -> bytes:
    if format_ == "chitchat":
        turns = [[[{"text": text, "sender": "x"}] for text in dialogue] for dialogue in dialogues]
        whole = {f"id{number}": {"messages": each} for number, each in enumerate(turns)}
        return json.dumps(whole, ensure_ascii=False).encode()
    if format_ == "eou":
        return "".join("".join(f"{turn} __eou__ " for turn in turns) + "\n" for turns in dialogues).encode()
    return rows(format_, [{"dialog": turns, "act": [1]} for turns in dialogues])


def read(
    folder: Path, format_: str, content: bytes, messages: str | None = None, bad: float = 0.0
) -> tuple[list[Dialogue], Counter[str]]:
    """The training dialogues of a corpus whose training file has this content, and their counts."""
    dataset = entry(format_, messages=messages, bad=bad)
    for split in SPLITS:
        path = folder / dataset.file_name(split)
        path.write_bytes(content if split == "train" else encode(format_, DIALOGUES))
    with TemporaryDirectory(dir=folder) as scratch:
        dialogues, report = read_corpus("datasets.x", dataset, folder, Path(scratch))
        assert len(report["train"].pop("first_bad_rows", [])) == report["train"]["bad_rows"]
        return list(records_of(dialogues["train"], Found)), Counter(report["train"])


def turns_in(folder: Path, format_: str, content: bytes) -> list[list[str]]:
    return sorted(each.turns for each in read(folder, format_, content)[0])


def refusal(folder: Path, format_: str, content: bytes, bad: float = 0.0) -> str:
    with pytest.raises(StageError) as caught:
        read(folder, format_, content, bad=bad)
    return str(caught.value).removeprefix(f"{folder}/train.{entry(format_).file_name('train').partition('.')[2]}:")
