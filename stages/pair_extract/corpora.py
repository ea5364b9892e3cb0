"""Read corpora in four file formats: clean the dialogues, name them by their content, split them, count what happened.

A turn without text stays in its dialogue as an empty string. So positions are those of the corpus, and two turns are
neighbours only if they were neighbours there.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.pair_extract.chats import CHAT_KEYS, COUNTED_IN_CHATS, SHAPE, one_turn, turns_of_chat
from stages.pair_extract.dialogues import Stored, split_dialogues
from stages.params.sources import Dataset
from stages.plumbing.errors import StageError
from stages.records import Dialogue, composed, single_line

END_OF_TURN = "__eou__"
PARQUET_ROWS = 1024  # in memory at a time
TURN_KEYS = ("turns", "dialog", "utterances")
KEYS = (*TURN_KEYS, *CHAT_KEYS)  # where a dialogue stands in a JSON line or a Parquet row; the first list counts
COUNTED = (
    "dialogues",
    "turns",
    "empty_turns",  # keep their position but are in no pair
    "unusable_dialogues",  # fewer than two turns with text; dropped
    "duplicate_dialogues",  # equal to an earlier one of the file; kept
    "blank_lines",
    "unmarked_turns",  # text after the last __eou__ of a line; counts as a turn
    "removed_characters",  # NUL, and halves of surrogate pairs, which UTF-8 cannot encode
    "byte_order_marks",
    "turns_of_several_messages",  # in chitchat and chats; with `messages: one` they count as empty turns
    "system_turns",  # in chats; left out
)

CHAT_FORMATS = ("jsonl", "parquet")  # what else is counted there: COUNTED_IN_CHATS

REMOVED = re.compile("[\0\ud800-\udfff]")

Counts = Counter[str]


def read_corpus(
    key: str, dataset: Dataset, folder: Path, scratch: Path | None = None
) -> tuple[Mapping[str, Sequence[Dialogue]], dict[str, Counts]]:
    """Read the files of a corpus.

    Args:
        key: the corpus's key in params.yaml, for errors.
        dataset: its entry.
        folder: the output of the download stage.
        scratch: a folder for temporary files; None: the system's.

    Returns:
        The usable dialogues (at least two turns with text) of train, validation and test, sorted by id, and the counts
        of each file. The order of dialogues in the files makes no difference.

    Raises:
        StageError: a file is empty, not UTF-8, or not in the format; the message names the line.
    """
    dialogues: dict[str, Stored] = {}
    counts: dict[str, Counts] = {}
    for split in sorted(dataset.files):
        names = (*COUNTED, *(COUNTED_IN_CHATS if dataset.format in CHAT_FORMATS else ()))
        counts[split] = Counter(dict.fromkeys(names, 0))
        path = folder / dataset.file_name(split)
        joined = dataset.messages != "one"
        raw = READERS[dataset.format](path, counts[split], joined)
        dialogues[split] = Stored(_usable(raw, counts[split]), scratch)
        counts[split]["duplicate_dialogues"] = dialogues[split].duplicates
    if dataset.split is not None:
        return split_dialogues(f"{key}.split", dialogues["all"], dataset.split), counts
    return dialogues, counts


def _usable(raw: Iterable[list[str]], counts: Counts) -> Iterator[list[str]]:
    """Clean and count the dialogues; drop those with fewer than two turns with text."""
    for texts in raw:
        turns = [clean(text, counts) for text in texts]
        with_text = sum(1 for turn in turns if turn)
        counts["dialogues"] += 1
        counts["turns"] += len(turns)
        counts["empty_turns"] += len(turns) - with_text
        if with_text < 2:
            counts["unusable_dialogues"] += 1
        else:
            yield turns


def clean(text: str, counts: Counts) -> str:
    """The text on one line, its accents composed, without NUL and halves of surrogate pairs."""
    kept = REMOVED.sub("", text)
    counts["removed_characters"] += len(text) - len(kept)
    return single_line(composed(kept))


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
        raise StageError(f"{path}:{number}", found, "save the corpus as UTF-8") from None


def lines_of(path: Path, counts: Counts) -> Iterator[tuple[int, str]]:
    """Number and text of each non-blank line; only a line feed ends a line (U+2028 does not)."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decode(path, number, line)
            if number == 1 and text.startswith("\ufeff"):
                counts["byte_order_marks"] += 1
                text = text[1:]
            if text.strip():
                yield number, text
            else:
                counts["blank_lines"] += 1
    if not path.stat().st_size:
        raise StageError(path, "an empty file", "use a corpus that has dialogues")


def _read_eou(path: Path, counts: Counts, joined: bool) -> Iterator[list[str]]:
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
        yield turns


def _without_duplicate_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, but refuse duplicate keys, of which Python would silently keep the last."""
    table = dict(items)
    if len(table) < len(items):
        duplicate = next(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        raise ValueError(f"the key {duplicate!r} occurs twice")
    return table


def parse_json(subject: str, text: str) -> Any:
    """The value of a JSON text; `subject` is the place that errors name.

    Raises:
        StageError: it is not JSON, or an object in it has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise StageError(subject, f"not JSON ({error})", "fix that line") from None


def are_texts(value: Any) -> bool:
    """Whether a value from a JSON text is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _key_of(value: Mapping[str, Any], among: Iterable[str]) -> str:
    """The first key of `among` under which there is a list; if there is none, the first that is there at all."""
    there = [key for key in among if key in value]
    return next((key for key in there if isinstance(value[key], list)), [*there, TURN_KEYS[0]][0])


def _turns(subject: str, key: str, value: Any, joined: bool, counts: Counts, remedy: str) -> list[str]:
    """The turns of a dialogue that stands under a key of `KEYS`."""
    if key in CHAT_KEYS:
        return turns_of_chat(subject, key, value, joined, counts)
    if not are_texts(value):
        raise StageError(subject, "not a list of texts", remedy)
    return list(value)


def _read_jsonl(path: Path, counts: Counts, joined: bool) -> Iterator[list[str]]:
    """JSON lines: each is a list of turns, or an object with a dialogue under a key of `KEYS`."""
    remedy = f'write one dialogue per line: ["turn", "turn"], {{"turns": ["turn", "turn"]}} or {SHAPE}'
    for number, line in lines_of(path, counts):
        value, key = parse_json(f"{path}:{number}", line), TURN_KEYS[0]
        if isinstance(value, dict):
            key = _key_of(value, KEYS)
            value = value.get(key)
        yield _turns(f"{path}:{number}", key, value, joined, counts, remedy)


def _read_chitchat(path: Path, counts: Counts, joined: bool) -> Iterator[list[str]]:
    """BYU's format: an object of conversations; a turn is the list of messages that one speaker sends in a row."""
    text = "\n".join(line.rstrip("\n") for _, line in lines_of(path, counts))
    counts["blank_lines"] = 0  # inside a JSON document they mean nothing
    conversations = parse_json(str(path), text)
    remedy = 'it must be {"<id>": {"messages": [[{"text": "..."}, ...], ...]}, ...}'
    if not isinstance(conversations, dict):
        raise StageError(path, "not a JSON object of conversations", remedy)
    for name, conversation in conversations.items():
        try:
            turns = [[message["text"] for message in turn] for turn in conversation["messages"]]
        except (TypeError, KeyError):
            turns = [[None]]
        if not all(are_texts(turn) for turn in turns):
            raise StageError(f"{path}: {name}", "not a conversation of this format", remedy)
        yield [one_turn(turn, joined, counts) for turn in turns]


def _read_parquet(path: Path, counts: Counts, joined: bool) -> Iterator[list[str]]:
    """Parquet with columns of `KEYS`: lists of texts, or of messages."""
    import pyarrow
    import pyarrow.parquet

    def rows() -> Iterator[tuple[str, Any]]:
        """The dialogue of each row, with the name of its column; a part of the file is in memory at a time."""
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in KEYS if name in names]
            if not columns:
                found = f"columns {', '.join(names)}"
                raise StageError(path, found, f"one column must be called {', '.join(KEYS[:-1])} or {KEYS[-1]}")
            if not file.metadata.num_rows:
                raise StageError(path, "no rows", "use a corpus that has dialogues")
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
                for row in batch.to_pylist():
                    column = _key_of(row, columns)
                    yield column, row[column]

    values = enumerate(rows(), start=1)
    while True:
        try:
            number, (column, value) = next(values)
        except StopIteration:
            return
        except (pyarrow.ArrowException, OSError) as error:
            raise StageError(path, f"not a Parquet file ({error})", "download it again") from None
        place = f"{path}: row {number}" + ("" if column in CHAT_KEYS else f" of {column}")
        yield _turns(place, column, value, joined, counts, "fix that row")


READERS: dict[str, Callable[[Path, Counts, bool], Iterator[list[str]]]] = {
    "chitchat": _read_chitchat,
    "eou": _read_eou,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
