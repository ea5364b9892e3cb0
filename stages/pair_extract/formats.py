"""Read the files of a corpus, in four formats, row by row: each row is one dialogue as the file has it."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.pair_extract.chats import KEYS, one_turn, turns_key
from stages.plumbing.errors import StageError, of_the_machine
from stages.plumbing.files import naming

END_OF_TURN = "__eou__"
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"  # how such files begin
PARQUET_ROWS = 1024  # in memory at a time

Counts = Counter[str]
Row = tuple[str, Any]  # its place in the file, for errors; a list of turns, or an object with one


def read_rows(path: Path, file_format: str, joined: bool, counts: Counts) -> Iterator[Row]:
    """The rows of a file.

    Args:
        path: the file.
        file_format: one of those of `READERS`.
        joined: for chitchat: see `one_turn`.
        counts: what is counted.

    Raises:
        StageError: it is empty, not UTF-8 or not in the format; the message names the line.
    """
    with path.open("rb") as file:
        begin = file.read(len(PARQUET))
    if not begin:
        raise StageError(path, "an empty file", "use a corpus that has dialogues")
    if (begin == PARQUET) != (file_format == "parquet"):
        found = "a Parquet file" if begin == PARQUET else f"not a Parquet file: it begins with {begin!r}"
        raise StageError(path, found, f"the corpus's format is {file_format}: set it to what this file is")
    return READERS[file_format](path, counts, joined)


def lines_of(path: Path, counts: Counts) -> Iterator[tuple[int, str]]:
    """Number and text of each non-blank line; only a line feed ends a line (U+2028 does not). gzip is unpacked."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = _decode(path, number, line)
                kept = text.lstrip("\ufeff")
                counts["byte_order_marks"] += len(text) - len(kept)
                if kept.strip():
                    yield number, kept
                else:
                    counts["blank_lines"] += 1
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StageError(path, f"damaged gzip ({error})", "download it again") from None


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
        raise StageError(f"{path}:{number}", found, "save the corpus as UTF-8") from None


def parse_json(subject: str, text: str) -> Any:
    """The value of a JSON text; `subject` is the place that errors name.

    Raises:
        StageError: it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StageError(subject, f"not JSON ({error})", "fix that line") from None


def _read_eou(path: Path, counts: Counts, joined: bool) -> Iterator[Row]:
    """DailyDialog's own format: one dialogue per line, `__eou__` after each turn."""
    remedy = f"write one dialogue per line, with {END_OF_TURN} after each turn"
    for number, line in lines_of(path, counts):
        *turns, rest = line.split(END_OF_TURN)
        if not turns:
            raise StageError(f"{path}:{number}", f"a line without {END_OF_TURN}", remedy)
        if rest.strip():
            if not line.endswith("\n"):
                raise StageError(f"{path}:{number}", "an incomplete last line, without __eou__ or line break", remedy)
            counts["unmarked_turns"] += 1
            turns.append(rest)
        yield f"{path}:{number}", turns


def _read_jsonl(path: Path, counts: Counts, joined: bool) -> Iterator[Row]:
    """JSON lines, each a row; or one JSON array of rows, on any number of lines."""
    lines = lines_of(path, counts)
    for number, line in lines:
        place = f"{path}:{number}"
        try:
            value = parse_json(place, line)
        except StageError:
            whole = [line, *(text for _, text in lines)] if number == 1 and line.startswith("[") else []
            try:
                value = json.loads("\n".join(whole))
            except (ValueError, RecursionError):
                value = None
            if not _is_array_of_rows(value):
                raise
        if _is_array_of_rows(value):
            yield from ((f"{path}: [{at}]", row) for at, row in enumerate(value))
        else:
            yield place, value


def _is_array_of_rows(value: Any) -> bool:
    """Whether all in it are dialogues; in a dialogue are turns."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, list) or turns_key(row) for row in value)


def _read_chitchat(path: Path, counts: Counts, joined: bool) -> Iterator[Row]:
    """BYU's format: an object of conversations; a turn is the list of messages that one speaker sends in a row."""
    text = "\n".join(line.rstrip("\n") for _, line in lines_of(path, counts))
    counts["blank_lines"] = 0  # inside a JSON document they mean nothing
    conversations = parse_json(str(path), text)
    if not isinstance(conversations, dict):
        remedy = 'it must be {"<id>": {"messages": [[{"text": "..."}, ...], ...]}, ...}'
        raise StageError(path, "not a JSON object of conversations", remedy)
    for name, conversation in conversations.items():
        try:
            turns = [[message["text"] for message in turn] for turn in conversation["messages"]]
            yield f"{path}: {name}", [one_turn(turn, joined, counts) for turn in turns]
        except (TypeError, KeyError, AttributeError):
            yield f"{path}: {name}", None


def _read_parquet(path: Path, counts: Counts, joined: bool) -> Iterator[Row]:
    """Parquet with columns of `KEYS`: lists of texts, or of messages; a part of the file is in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with naming(path), pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not (columns := [name for name in KEYS if name in names]):
                found = f"columns {', '.join(names)}"
                raise StageError(path, found, f"one column must be called {', '.join(KEYS[:-1])} or {KEYS[-1]}")
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        if of_the_machine(error):
            raise
        raise StageError(path, f"not a Parquet file ({error})", "download it again") from None
    if not number:
        raise StageError(path, "no rows", "use a corpus that has dialogues")


READERS: dict[str, Callable[[Path, Counts, bool], Iterator[Row]]] = {
    "chitchat": _read_chitchat,
    "eou": _read_eou,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
