"""The records that stages pass to each other: JSON lines of dialogues, pairs and responses."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from stages.plumbing.errors import StageError

SPLITS = ("train", "validation", "test")
REFERENCES = "references.jsonl"  # further references of the test pairs, where the corpus has any


@dataclass(frozen=True)
class Dialogue:
    """One conversation: its turns in order, each on one line."""

    dialogue: str  # id, which depends on the turns and not on the place in the file
    turns: list[str]


@dataclass(frozen=True)
class Pair:
    """A query and a person's response: turns `position` and `position + 1` of a dialogue."""

    dialogue: str
    position: int
    query: str
    response: str


@dataclass(frozen=True)
class Response:
    """A generated response, with its query and the human reference."""

    dialogue: str
    position: int
    query: str
    reference: str
    response: str
    unended: bool | None = None  # it met the length limit; None in files older than this field


@dataclass(frozen=True)
class References:
    """What further people answered to the query of a pair, beside the pair's own response: none equal, sorted."""

    dialogue: str
    position: int
    references: list[str]


Record = TypeVar("Record", Dialogue, Pair, Response, References)


def single_line(text: str) -> str:
    """The words joined by single spaces, so that no line break of any kind (U+2028 too) is left."""
    return " ".join(text.split())


def write_records(path: Path, records: Iterable[Dialogue | Pair | Response | References]) -> int:
    """Write one JSON object per line, in UTF-8; return how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
            count += 1
    return count


def _parse(kind: type[Record], value: Any) -> Record:
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    record = kind(**value)
    for name, expected in kind.__annotations__.items():
        if not isinstance(getattr(record, name), list if expected == list[str] else expected):
            raise TypeError(f"{name} is not {expected}")
    return record


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read JSON lines that `write_records` wrote.

    Raises:
        StageError: a line is not such a record; the message names file and line.
    """
    records = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                records.append(_parse(kind, json.loads(line)))
            except (ValueError, TypeError) as error:
                remedy = "remove its folder and run `dvc repro` again"
                raise StageError(f"{path}:{number}", f"not a {kind.__name__} ({error})", remedy) from None
    return records


def read_references(folder: Path) -> list[References]:
    """The further references of the test pairs in the folder of a stage; raises as `read_records`."""
    path = folder / REFERENCES
    return read_records(path, References) if path.exists() else []
