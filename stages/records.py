"""The records that stages pass to each other: JSON lines of dialogues, pairs and responses.

What grows with a corpus is read one by one with `each_record`, or loaded with `load_records` as a `Dataset` whose
memory is on disk. `read_records` is for what fits into memory: validation, the test set, its responses.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from stages.plumbing.errors import StageError

if TYPE_CHECKING:  # it takes a second to load, for which those that need it not do not wait
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
REMEDY = "remove its folder and run `dvc repro` again"
ROWS = 1000  # of a Dataset, at a time
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
    loss: float | None = None  # cross-entropy of the reference's tokens, summed, in nats; None as above
    tokens: int | None = None  # of the reference, with the one that ends it unless it was cut


@dataclass(frozen=True)
class Fit:
    """How well an answer fits its query, as the untouched model sees it (stages/greedy_generate/relevance.py)."""

    row: str  # whose answer: test, human, shuffled
    dialogue: str
    relevance: float  # how much likelier it is with its query, in nats
    hit: bool | None  # it is likelier after its query than after others; None: there are no others


@dataclass(frozen=True)
class References:
    """What further people answered to the query of a pair, beside the pair's own response: none equal, sorted."""

    dialogue: str
    position: int
    references: list[str]


Record = TypeVar("Record", Dialogue, Pair, Response, References, Fit)


def single_line(text: str) -> str:
    """The words joined by single spaces, so that no line break of any kind (U+2028 too) is left."""
    return " ".join(text.split())


def composed(text: str) -> str:
    """Accents as part of their letters (NFC), as some tokenizers have them: apart, the same words were another text."""
    return unicodedata.normalize("NFC", text)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object per line, in UTF-8."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(vars(record), ensure_ascii=False) + "\n" for record in records)


def each_record(path: Path, kind: type[Record]) -> Iterator[Record]:
    """The records of a file, one after another.

    Raises:
        StageError: a line is not such a record; the message names file and line.
    """
    parse = TypeAdapter(kind).validate_json
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = parse(line, strict=True)
            except ValidationError as error:
                found = f"not a {kind.__name__} ({error.errors()[0]['msg']})"
                raise StageError(f"{path}:{number}", found, REMEDY) from None
            yield record


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """All records of a file, in memory; raises as `each_record`."""
    return list(each_record(path, kind))


def load_records(path: Path, kind: type[Record], cache: Path) -> "Dataset":
    """All records of a file, as `on_disk` has them; raises as `each_record`."""
    return on_disk(each_record(path, kind), kind, cache)


def on_disk(records: Iterable[Record], kind: type[Record], cache: Path) -> "Dataset":
    """Records with their fields as columns, memory-mapped from a file in the folder `cache`.

    The library's own readers start threads, and Python waits for ever for one that finds no memory to start.
    """
    import pyarrow
    from datasets import Dataset
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # nor does a bar of the library start one
    text = pyarrow.string()
    types: dict[Any, Any] = {str: text, int: pyarrow.int64(), bool: pyarrow.bool_(), list[str]: pyarrow.list_(text)}
    schema = pyarrow.schema([(field.name, types[field.type]) for field in fields(kind)])
    rest = map(vars, records)
    with NamedTemporaryFile(dir=cache, delete=False) as file, pyarrow.ipc.new_stream(file, schema) as writer:
        while some := list(islice(rest, ROWS)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(some, schema=schema))
    return Dataset.from_file(file.name)


def records_of(dataset: "Dataset", kind: type[Record]) -> Iterator[Record]:
    """The records of a `Dataset`, one after another."""
    names = [field.name for field in fields(kind)]
    for rows in dataset.iter(batch_size=ROWS):
        yield from map(kind, *(rows[name] for name in names))


def read_references(folder: Path) -> list[References]:
    """The further references of the test pairs in the folder of a stage; raises as `read_records`."""
    path = folder / REFERENCES
    return read_records(path, References) if path.exists() else []
