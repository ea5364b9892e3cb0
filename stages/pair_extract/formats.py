"""Read the files of a corpus, in four formats, row by row: each row is one dialogue as the file has it."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from stages.pair_extract.chats import KEYS, SHAPE
from stages.plumbing.errors import StageError, of_the_machine, one_line
from stages.plumbing.files import naming

END_OF_TURN = "__eou__"
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"  # how such files begin
PARQUET_ROWS = 1024  # in memory at a time

Row = tuple[str, Any]  # its place in the file, for errors; a list of turns, or an object with one


def lines_of(path: Path, counts: Counter[str]) -> Iterator[tuple[int, str]]:
    """Number and text of each non-blank line; only a line feed ends a line (U+2028 does not). gzip is unpacked.

    A byte-order mark at the beginning of a line is removed and counted.

    Raises:
        StageError: it is not UTF-8, damaged gzip, or Parquet.
    """
    with path.open("rb") as file:
        begins = file.read(len(PARQUET))
    if begins == PARQUET:
        raise StageError(path, "a Parquet file", "set the corpus's format to parquet")
    try:
        with gzip.open(path) if begins.startswith(GZIP) else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                whole = line.decode("utf-8")
                text = whole.lstrip("\ufeff")
                counts["removed_characters"] += len(whole) - len(text)
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
        raise StageError(f"{path}:{number}", found, "save the corpus as UTF-8, or correct its format") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StageError(path, f"damaged gzip ({error})", "download it again") from None


def _parse_json(place: str, text: str, rest: Iterator[str]) -> tuple[Any, str]:
    """A JSON value and the text behind it; while only its end is missing, it is read on in `rest`, twice as far."""
    more, text = 1, text.lstrip()
    while True:
        try:
            value, end = json.JSONDecoder().raw_decode(text)
            return value, text[end:].lstrip()
        except (ValueError, RecursionError) as error:
            is_cut = getattr(error, "pos", 0) >= len(text.rstrip())
            added = "".join(islice(rest, more)) if is_cut else ""
            if not added:
                said = str(error)
                if isinstance(error, json.JSONDecodeError):  # what is in front of it may have been read already
                    where = f"line {error.lineno} column {error.colno} from there"
                    said = f"{error.msg}: {where}, at {text[error.pos : error.pos + 1]!r}"
                remedy = "fix it there, or correct the corpus's format"
                raise StageError(place, f"not JSON ({said})", remedy) from None
        text, more = text + added, 2 * more


def _read_eou(path: Path, counts: Counter[str]) -> Iterator[Row]:
    """DailyDialog's own format: one dialogue per line, `__eou__` after each turn; a text after the last one counts."""
    for number, line in lines_of(path, counts):
        *turns, rest = line.split(END_OF_TURN)
        yield f"{path}:{number}", [*turns, *filter(str.strip, [rest])] if turns else line  # a bad row


def _read_jsonl(path: Path, counts: Counter[str]) -> Iterator[Row]:
    """JSON values, each a row or an array of rows; mostly one a line. The place of a row is where reading began.

    A list of lists is an array of rows if the file has nothing else. One among others may as well be a dialogue.
    """
    lines, first = lines_of(path, counts), True
    for number, line in lines:
        place, left = f"{path}:{number}", line
        while left:
            value, left = _parse_json(place, left, (text for _, text in lines))
            if isinstance(value, list) and any(map(_is_row, value)):
                of_lists = any(isinstance(each, list) for each in value)
                if of_lists and first and (left or next(lines, None)):
                    raise StageError(place, "a list of lists beside other rows", SHAPE)
                if of_lists and not first:
                    yield place, value  # a bad row
                    continue
                yield from ((f"{place}[{at}]", row) for at, row in enumerate(value))
            else:
                yield place, value
            first = False


def _is_row(value: Any) -> bool:
    """Whether it is a dialogue in an array of them, and no turn in an array of turns."""
    found = [value.get(key) for key in KEYS] if isinstance(value, dict) else [value]
    return any(isinstance(each, list) for each in found)


def _read_chitchat(path: Path, counts: Counter[str]) -> Iterator[Row]:
    """BYU's format: an object of conversations; a turn is the list of messages that one speaker sends in a row."""
    conversations, more = _parse_json(str(path), "", (text for _, text in lines_of(path, counts)))
    if more or not isinstance(conversations, dict):
        remedy = 'it must be {"<id>": {"messages": [[{"text": "..."}, ...], ...]}, ...}'
        raise StageError(path, "not a JSON object of conversations", remedy)
    for name, conversation in conversations.items():
        row = conversation
        with suppress(KeyError, TypeError):  # of another shape: then it is what it would be in other formats
            turns = enumerate(conversation["messages"])
            row = [{"speaker": f"{at}", "text": each["text"]} for at, turn in turns for each in turn]
        yield f"{path}: {one_line(name)}", row


def _read_parquet(path: Path, _: Counter[str]) -> Iterator[Row]:
    """Parquet with columns of `KEYS`: lists of texts, or of messages; a part of the file is in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with naming(path), pyarrow.parquet.ParquetFile(path) as file:
            columns = [name for name in KEYS if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=columns or None):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        if of_the_machine(error):
            raise
        raise StageError(path, f"not a Parquet file ({error})", "correct the corpus's format") from None


READERS: dict[str, Callable[[Path, Counter[str]], Iterator[Row]]] = {  # a file they cannot read is a StageError
    "chitchat": _read_chitchat,
    "eou": _read_eou,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
