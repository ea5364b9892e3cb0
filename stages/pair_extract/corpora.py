"""Corpora as they come (four file formats) become dialogues: cleaned, named by their content, split, all of it counted.

A turn without text keeps its place in its dialogue as an empty string, so that positions stay those of the corpus and
no two turns become neighbours that were not.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from stages.params.sources import Dataset, Split
from stages.plumbing.errors import StageError
from stages.records import Dialogue, single_line

END_OF_TURN = "__eou__"
TURN_KEYS = ("turns", "dialog")
COUNTED = (
    "dialogues",
    "turns",
    "empty_turns",  # keep their position, are in no pair
    "unusable_dialogues",  # fewer than two turns with text: dropped
    "duplicate_dialogues",  # word for word another one of the file: kept
    "blank_lines",
    "unmarked_turns",  # text behind the last __eou__ of a line: taken as a turn
    "removed_characters",  # NUL, and halves of surrogate pairs, which no UTF-8 file can hold
    "byte_order_marks",
    "turns_of_several_messages",  # in chitchat: with `messages: one` they count as empty turns
)

Counts = Counter[str]


def read_corpus(key: str, dataset: Dataset, folder: Path) -> tuple[dict[str, list[Dialogue]], dict[str, Counts]]:
    """Read the files of a corpus.

    Args:
        key: of the corpus in params.yaml, for errors.
        dataset: its entry.
        folder: the output of the download stage.

    Returns:
        The usable dialogues (at least two turns with text) of train, validation and test, sorted by their id, and
        what was counted in each file. The order within the files makes no difference.

    Raises:
        StageError: a file is empty, not UTF-8, or not in the format; the message names the line.
    """
    dialogues: dict[str, list[Dialogue]] = {}
    counts: dict[str, Counts] = {}
    for split in sorted(dataset.files):
        counts[split] = Counter(dict.fromkeys(COUNTED, 0))
        path = folder / dataset.file_name(split)
        options = {"joined": dataset.messages == "joined"} if dataset.messages else {}
        dialogues[split] = _dialogues(READERS[dataset.format](path, counts[split], **options), counts[split])
    if dataset.split is not None:
        return split_dialogues(f"{key}.split", dialogues["all"], dataset.split), counts
    return dialogues, counts


def content_id(turns: list[str]) -> str:
    """First 16 hex digits of the sha256 of the turns."""
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()[:16]


def split_dialogues(subject: str, dialogues: list[Dialogue], split: Split) -> dict[str, list[Dialogue]]:
    """Set test and validation dialogues aside, those of lowest sha256 of `seed:id`; the others are for training.

    Equal dialogues (`id`, `id-2`, ...) stay together, so a set may get a few more than `split` asks for.

    Raises:
        StageError: nothing would be left for training.
    """

    def rank(dialogue: Dialogue) -> tuple[str, str]:
        base = dialogue.dialogue.partition("-")[0]
        return hashlib.sha256(f"{split.seed}:{base}".encode()).hexdigest(), base

    parts: dict[str, list[Dialogue]] = {"train": [], "validation": [], "test": []}
    for _, equal in groupby(sorted(dialogues, key=rank), key=rank):
        wanting = [name for name in ("test", "validation") if len(parts[name]) < getattr(split, name)]
        parts[(wanting or ["train"])[0]].extend(equal)
    if not parts["train"]:
        found = f"{split.validation} + {split.test} dialogues are set aside of {len(dialogues)} usable ones"
        raise StageError(subject, found, "set fewer aside: none is left for training")
    return {name: sorted(part, key=lambda dialogue: dialogue.dialogue) for name, part in parts.items()}


def _dialogues(raw: Iterable[list[str]], counts: Counts) -> list[Dialogue]:
    """Clean, count and name; dialogues with fewer than two turns with text are left out."""
    found: list[Dialogue] = []
    seen: Counts = Counter()
    for texts in raw:
        turns = [_clean(text, counts) for text in texts]
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


def _clean(text: str, counts: Counts) -> str:
    """One line, without the characters that no text holds on purpose."""
    kept = "".join(character for character in text if character != "\0" and not "\ud800" <= character <= "\udfff")
    counts["removed_characters"] += len(text) - len(kept)
    return single_line(kept)


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
        raise StageError(f"{path}:{number}", found, "save the corpus as UTF-8") from None


def _lines(path: Path, counts: Counts) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank; only a line feed ends a line (U+2028 does not)."""
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
        raise StageError(path, "an empty file", "give a corpus with dialogues in it")


def _read_eou(path: Path, counts: Counts) -> Iterator[list[str]]:
    """DailyDialog's own format: a dialogue a line, `__eou__` behind every turn."""
    remedy = f"write a dialogue a line, each turn followed by {END_OF_TURN}"
    for number, line in _lines(path, counts):
        *turns, rest = line.split(END_OF_TURN)
        if not turns:
            raise StageError(f"{path}:{number}", f"a line without {END_OF_TURN}", remedy)
        if rest.strip():
            if not line.endswith("\n"):
                raise StageError(f"{path}:{number}", "half a last line: no line break and no mark at its end", remedy)
            counts["unmarked_turns"] += 1
            turns.append(rest)
        yield turns


def _without_twins(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python would keep the last of equal keys and say nothing."""
    table = dict(items)
    if len(table) < len(items):
        twin = next(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        raise ValueError(f"the key {twin!r} is there twice")
    return table


def _parse(subject: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise StageError(subject, f"not JSON ({error})", "mend that line") from None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _read_jsonl(path: Path, counts: Counts) -> Iterator[list[str]]:
    """JSON lines, each a list of turns or an object with such a list under `turns` or `dialog`."""
    for number, line in _lines(path, counts):
        value = _parse(f"{path}:{number}", line)
        if isinstance(value, dict):
            value = next((value[key] for key in TURN_KEYS if key in value), None)
        if not _are_texts(value):
            remedy = 'write a dialogue a line: ["turn", "turn"] or {"turns": ["turn", "turn"]}'
            raise StageError(f"{path}:{number}", "not a list of texts", remedy)
        yield value


def _read_chitchat(path: Path, counts: Counts, joined: bool) -> Iterator[list[str]]:
    """BYU's format: an object of conversations; a turn is the list of messages sent before the other one answers.

    Several messages that one person sent in a row are not one utterance: glued together they read as none that anybody
    would say. joined: take them as one turn all the same; else such a turn is empty, so that no pair has it.
    """
    text = "\n".join(line.rstrip("\n") for _, line in _lines(path, counts))
    counts["blank_lines"] = 0  # they mean nothing inside a JSON document
    conversations = _parse(str(path), text)
    remedy = 'it should be {"<id>": {"messages": [[{"text": "..."}, ...], ...]}, ...}'
    if not isinstance(conversations, dict):
        raise StageError(path, "not a JSON object of conversations", remedy)
    for name, conversation in conversations.items():
        try:
            turns = [[message["text"] for message in turn] for turn in conversation["messages"]]
        except (TypeError, KeyError):
            turns = [[None]]
        if not all(_are_texts(turn) for turn in turns):
            raise StageError(f"{path}: {name}", "a conversation of another shape", remedy)
        glued = [sum(bool(message.strip()) for message in turn) > 1 for turn in turns]
        counts["turns_of_several_messages"] += sum(glued)
        yield ["" if several and not joined else " ".join(turn) for turn, several in zip(turns, glued, strict=True)]


def _read_parquet(path: Path, counts: Counts) -> Iterator[list[str]]:
    """Parquet with a column `dialog` (or `turns`) of lists of texts."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise StageError(path, f"not a Parquet file ({error})", "download it again") from None
    column = next((name for name in reversed(TURN_KEYS) if name in table.column_names), None)
    if column is None:
        found = f"columns {', '.join(table.column_names)}"
        raise StageError(path, found, f"one of them must be called {' or '.join(TURN_KEYS)}")
    if not table.num_rows:
        raise StageError(path, "no rows", "give a corpus with dialogues in it")
    for number, value in enumerate(table.column(column).to_pylist(), start=1):
        if not _are_texts(value):
            raise StageError(f"{path}: row {number} of {column}", "not a list of texts", "mend that row")
        yield value


READERS: dict[str, Callable[..., Iterator[list[str]]]] = {
    "chitchat": _read_chitchat,
    "eou": _read_eou,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
