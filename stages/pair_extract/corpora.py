"""Read corpora in four file formats: clean the dialogues, name them by their content, split them, count what happened.

A turn without text stays in its dialogue as an empty string. So positions are those of the corpus, and two turns are
neighbours only if they were neighbours there.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from stages.pair_extract.chats import CHAT_KEYS, SHAPE, one_turn, turns_of_chat
from stages.params.sources import Dataset, Split
from stages.plumbing.errors import StageError
from stages.records import Dialogue, single_line

END_OF_TURN = "__eou__"
TURN_KEYS = ("turns", "dialog", "utterances")
KEYS = (
    *TURN_KEYS,
    *CHAT_KEYS,
)  # where a dialogue stands in a JSON line or a Parquet row; the first that is there counts
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

Counts = Counter[str]


def read_corpus(key: str, dataset: Dataset, folder: Path) -> tuple[dict[str, list[Dialogue]], dict[str, Counts]]:
    """Read the files of a corpus.

    Args:
        key: the corpus's key in params.yaml, for errors.
        dataset: its entry.
        folder: the output of the download stage.

    Returns:
        The usable dialogues (at least two turns with text) of train, validation and test, sorted by id, and the counts
        of each file. The order of dialogues in the files makes no difference.

    Raises:
        StageError: a file is empty, not UTF-8, or not in the format; the message names the line.
    """
    dialogues: dict[str, list[Dialogue]] = {}
    counts: dict[str, Counts] = {}
    for split in sorted(dataset.files):
        counts[split] = Counter(dict.fromkeys(COUNTED, 0))
        path = folder / dataset.file_name(split)
        joined = dataset.messages != "one"
        dialogues[split] = _dialogues(READERS[dataset.format](path, counts[split], joined), counts[split])
    if dataset.split is not None:
        return split_dialogues(f"{key}.split", dialogues["all"], dataset.split), counts
    return dialogues, counts


def content_id(turns: list[str]) -> str:
    """First 16 hex digits of the sha256 of the turns."""
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()[:16]


def split_dialogues(subject: str, dialogues: list[Dialogue], split: Split) -> dict[str, list[Dialogue]]:
    """Set aside the dialogues with the lowest sha256 of `seed:id` for test and validation; train on the others.

    Equal dialogues (`id`, `id-2`, ...) stay together, so a set may get a few more than `split` asks for.

    Raises:
        StageError: no dialogue is left for training.
    """

    def rank(dialogue: Dialogue) -> tuple[str, str]:
        base = dialogue.dialogue.partition("-")[0]
        return hashlib.sha256(f"{split.seed}:{base}".encode()).hexdigest(), base

    parts: dict[str, list[Dialogue]] = {"train": [], "validation": [], "test": []}
    for _, equal in groupby(sorted(dialogues, key=rank), key=rank):
        wanting = [name for name in ("test", "validation") if len(parts[name]) < getattr(split, name)]
        parts[(wanting or ["train"])[0]].extend(equal)
    if not parts["train"]:
        found = f"{split.validation} + {split.test} of {len(dialogues)} usable dialogues are set aside"
        raise StageError(subject, found, "set fewer aside: none is left for training")
    return {name: sorted(part, key=lambda dialogue: dialogue.dialogue) for name, part in parts.items()}


def _dialogues(raw: Iterable[list[str]], counts: Counts) -> list[Dialogue]:
    """Clean, count and name the dialogues; drop those with fewer than two turns with text."""
    found: list[Dialogue] = []
    seen: Counts = Counter()
    for texts in raw:
        turns = [clean(text, counts) for text in texts]
        with_text = sum(1 for turn in turns if turn)
        counts.update(dialogues=1, turns=len(turns), empty_turns=len(turns) - with_text)
        if with_text < 2:
            counts["unusable_dialogues"] += 1
            continue
        base = content_id(turns)
        seen[base] += 1
        counts["duplicate_dialogues"] += seen[base] > 1
        found.append(Dialogue(base if seen[base] == 1 else f"{base}-{seen[base]}", turns))
    return sorted(found, key=lambda dialogue: dialogue.dialogue)


def clean(text: str, counts: Counts) -> str:
    """The text on one line, without NUL and halves of surrogate pairs."""
    kept = "".join(character for character in text if character != "\0" and not "\ud800" <= character <= "\udfff")
    counts["removed_characters"] += len(text) - len(kept)
    return single_line(kept)


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
            key = next((each for each in KEYS if each in value), key)
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
    """Parquet with a column of `KEYS`: lists of texts, or of messages."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise StageError(path, f"not a Parquet file ({error})", "download it again") from None
    column = next((name for name in KEYS if name in table.column_names), None)
    if column is None:
        found = f"columns {', '.join(table.column_names)}"
        raise StageError(path, found, f"one column must be called {', '.join(KEYS[:-1])} or {KEYS[-1]}")
    if not table.num_rows:
        raise StageError(path, "no rows", "use a corpus that has dialogues")
    for number, value in enumerate(table.column(column).to_pylist(), start=1):
        place = f"{path}: row {number}" + ("" if column in CHAT_KEYS else f" of {column}")
        yield _turns(place, column, value, joined, counts, "fix that row")


READERS: dict[str, Callable[[Path, Counts, bool], Iterator[list[str]]]] = {
    "chitchat": _read_chitchat,
    "eou": _read_eou,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
