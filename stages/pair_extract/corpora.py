"""The dialogues of a corpus: cleaned, named by their content, sorted by name, split; and what was counted.

A turn without text stays in its dialogue as an empty string. So positions are those of the corpus, and two turns are
neighbours only if they were neighbours there.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute

from stages.pair_extract.chats import COUNTED_IN_CHATS, turns_of
from stages.pair_extract.formats import Counts, Row, read_rows
from stages.params.sources import Dataset, Split
from stages.plumbing.errors import StageError
from stages.records import SPLITS, Dialogue, composed, on_disk, single_line

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
    "turns_of_several_lines",  # a line break in them becomes a space
    "bad_rows",  # not a dialogue; left out
)
NOTED = {  # what the stage prints, if there were any
    **dict.fromkeys(("system_turns", *COUNTED_IN_CHATS, "bad_rows"), "left out"),
    "turns_of_several_lines": "are one line now",
}
CHAT_FORMATS = ("jsonl", "parquet")  # what else is counted there: COUNTED_IN_CHATS
NAMED = 10  # bad rows, in the report

REMOVED = re.compile("[\0\ud800-\udfff]")
BREAK = re.compile(r"\S[^\S\n]*\n\s*\S")  # within a text, not around it
UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Zs"}  # Unicode's categories of characters that show nothing


@dataclass(frozen=True)
class Found(Dialogue):
    """A dialogue, and whether an assistant says every second turn, so that nobody else's turn is a response."""

    roles: bool


def content_id(turns: list[str]) -> str:
    """First 16 hex digits of the sha256 of the turns."""
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()[:16]


def read_corpus(
    key: str, dataset: Dataset, folder: Path, scratch: Path
) -> tuple[dict[str, datasets.Dataset], dict[str, dict[str, Any]]]:
    """Read the files of a corpus.

    Args:
        key: the corpus's key in params.yaml, for errors.
        dataset: its entry.
        folder: the output of the download stage.
        scratch: a folder for what is too large for memory.

    Returns:
        The usable dialogues (at least two turns with text) of train, validation and test, as `Found`, sorted by id; and
        of each file the counts, with the first bad rows. The order of dialogues in the files makes no difference.

    Raises:
        StageError: a file is empty, not UTF-8, or not in the format; or it has too many bad rows. The message names
            the line.
    """
    read: dict[str, tuple[Any, Any]] = {}
    for split in ("all",) if dataset.split else sorted(SPLITS):
        paths = [folder / dataset.file_name(name) for name in dataset.names_of(split)]
        read[split] = _read_split(paths, dataset, scratch / split)
    corpus, report = ({split: both[at] for split, both in read.items()} for at in (0, 1))
    if dataset.split is not None:
        corpus = split_dialogues(f"{key}.split", corpus["all"], dataset.split)
    return corpus, report


def _read_split(paths: Sequence[Path], dataset: Dataset, scratch: Path) -> tuple[Any, Any]:
    """The dialogues of some files, sorted by id, and what was counted."""
    names = (*COUNTED, *(COUNTED_IN_CHATS if dataset.format in CHAT_FORMATS else ()))
    counts, bad, joined = Counter(dict.fromkeys(names, 0)), list[StageError](), dataset.messages != "one"

    def dialogues() -> Iterator[Found]:
        rows = chain.from_iterable(read_rows(path, dataset.format, joined, counts) for path in paths)
        yield from _named(_dialogues(rows, joined, counts, bad), counts)
        usable = counts["dialogues"] - counts["unusable_dialogues"]
        limit = math.ceil(dataset.max_bad_rows * (counts["dialogues"] + counts["bad_rows"]))
        if bad and (counts["bad_rows"] > limit or not usable):
            raise bad[0]
        if not usable:
            found = f"none of {counts['dialogues']} dialogues has two turns with text"
            raise StageError(paths[0], found, "a pair needs two turns")

    found = on_disk(dialogues(), Found, scratch)
    order = pyarrow.compute.sort_indices(found.data["dialogue"]).to_numpy()
    report = {**counts, **({"first_bad_rows": [str(error) for error in bad]} if bad else {})}
    return found.select(order.astype("int64")), report  # without a sign, NumPy would make fractions of them


def _dialogues(
    rows: Iterable[Row], joined: bool, counts: Counts, bad: list[StageError]
) -> Iterator[tuple[list[str], bool]]:
    """Clean and count the dialogues; drop those with fewer than two turns with text, and rows that are none."""
    for place, row in rows:
        try:
            texts, roles = turns_of(place, row, joined, counts)
        except StageError as error:
            counts["bad_rows"] += 1
            bad += [error] if len(bad) < NAMED else []
            continue
        turns = [clean(text, counts) for text in texts]
        with_text = sum(1 for turn in turns if turn)
        counts["dialogues"] += 1
        counts["turns"] += len(turns)
        counts["empty_turns"] += len(turns) - with_text
        if with_text < 2:
            counts["unusable_dialogues"] += 1
        else:
            yield turns, roles


def _named(dialogues: Iterable[tuple[list[str], bool]], counts: Counts) -> Iterator[Found]:
    """The dialogues with their ids; equal ones are `id`, `id-2`, `id-3`, ... in the order in which they come."""
    copies: Counter[str] = Counter()
    for turns, roles in dialogues:
        name = content_id(turns)
        copies[name] += 1
        counts["duplicate_dialogues"] += copies[name] > 1
        yield Found(name if copies[name] == 1 else f"{name}-{copies[name]}", turns, roles)


def clean(text: str, counts: Counts) -> str:
    """The text on one line, its accents composed, without NUL and halves of surrogate pairs.

    It is empty if it has nothing to read: only white space, control characters and such as the zero-width space.
    """
    kept = REMOVED.sub("", text)
    counts["removed_characters"] += len(text) - len(kept)
    if all(unicodedata.category(character) in UNSEEN for character in kept):
        return ""
    counts["turns_of_several_lines"] += BREAK.search(kept) is not None
    return single_line(composed(kept))


def split_dialogues(subject: str, dialogues: datasets.Dataset, split: Split) -> dict[str, datasets.Dataset]:
    """Set aside the dialogues with the lowest sha256 of `seed:id` for test and validation; train on the others.

    Equal dialogues (`id`, `id-2`, ...) stay together, so a set may get a few more than `split` asks for.

    Raises:
        StageError: no dialogue is left for training.
    """
    copies: dict[str, list[int]] = defaultdict(list)  # id -> places of equal dialogues
    for place, name in enumerate(dialogues.with_format("arrow")[:]["dialogue"].to_pylist()):
        copies[name.partition("-")[0]].append(place)
    whole = len(dialogues)
    wanted = {name: split.number(name, whole) for name in ("test", "validation")}
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for name in sorted(copies, key=lambda name: hashlib.sha256(f"{split.seed}:{name}".encode()).digest()):
        part = next((part for part in wanted if len(parts[part]) < wanted[part]), "train")
        parts[part] += copies[name]
    if not parts["train"]:
        found = f"{wanted['validation']} + {wanted['test']} of {whole} usable dialogues are set aside"
        raise StageError(subject, found, "set fewer aside: none is left for training")
    return {name: dialogues.select(sorted(parts[name])) for name in SPLITS}
