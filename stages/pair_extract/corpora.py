"""The dialogues of a corpus: cleaned, named by their content, sorted by name, split; and what was counted.

A turn without text stays in its dialogue as an empty string. So positions are those of the corpus, and two turns are
neighbours only if they were neighbours there.
"""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute

from stages.pair_extract.chats import is_seen, turns_of
from stages.pair_extract.formats import READERS
from stages.params.sources import Dataset, Split
from stages.plumbing.errors import StageError
from stages.records import SPLITS, Dialogue, composed, on_disk, records_of, single_line

COUNTED = {  # name -> what the stage prints if there were any
    "dialogues": "",
    "turns": "",
    "empty_turns": "",  # keep their position but are in no pair
    "unusable_dialogues": "",  # fewer than two turns with text; dropped
    "duplicate_dialogues": "",  # equal to an earlier one of the file; kept
    "removed_characters": "",  # NUL, halves of surrogate pairs (no UTF-8), byte-order marks that begin a line
    "turns_of_several_messages": "",  # with `messages: one` they count as empty turns
    "system_turns": "left out",
    "tool_turns": "left out",
    "tool_calls": "left out",  # messages that only call a tool, or only have parts of one
    "other_parts": "left out",  # parts of messages that are no text
    "turns_before_the_user": "left out",  # what the assistant says before it is asked
    "bad_rows": "left out",  # not a dialogue
    "turns_of_several_lines": "are one line now",
}
NAMED = 10  # bad rows, in the report

REMOVED = re.compile("[\0\ud800-\udfff]")
BREAK = re.compile(r"\S[^\S\n]*\n\s*\S")  # within a text, not around it


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
    """Read the files of a corpus from the folder of the stage download; `key` is that of its entry, `dataset`.

    Returns:
        The usable dialogues (at least two turns with text) of train, validation and test, as `Found`, sorted by id; and
        of each file the counts, with the first bad rows. The order of dialogues in the files makes no difference.

    Raises:
        StageError: a file is not UTF-8 or not in the format, or has no dialogue or too many bad rows; it names a line.
    """
    corpus, report = {}, {}
    for split in ("all",) if dataset.split else sorted(SPLITS):
        paths = [folder / dataset.file_name(name) for name in dataset.names_of(split)]
        corpus[split], report[split] = _read_split(paths, dataset, scratch)
    return split_dialogues(f"{key}.split", corpus["all"], dataset.split) if dataset.split else corpus, report


def _read_split(paths: Sequence[Path], dataset: Dataset, scratch: Path) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The dialogues of some files, sorted by id, and what was counted."""
    counts, bad = Counter(dict.fromkeys(COUNTED, 0)), list[StageError]()
    found = on_disk(_dialogues(paths, dataset, counts, bad), Found, scratch)
    limit = math.ceil(dataset.max_bad_rows * (counts["dialogues"] + counts["bad_rows"]))
    if counts["bad_rows"] > limit:
        told = f"(first of {counts['bad_rows']} such rows, max_bad_rows allows {limit})"
        raise StageError(bad[0].subject, f"{bad[0].found} {told}", bad[0].remedy)
    if not len(found):
        out = [name for name in COUNTED if COUNTED[name] == "left out" and counts[name]]
        told = "".join(f", {counts[name]} {name.replace('_', ' ')} left out" for name in out)
        none = f"none of {counts['dialogues']} dialogues has two turns with text{told}"
        raise StageError(paths[0], none, "a pair needs two turns") if counts["dialogues"] or not bad else bad[0]
    order = pyarrow.compute.sort_indices(found.data["dialogue"]).cast("int64")
    return found.select(order), {**counts, **({"first_bad_rows": [str(error) for error in bad]} if bad else {})}


def _dialogues(paths: Sequence[Path], dataset: Dataset, counts: Counter[str], bad: list[StageError]) -> Iterator[Found]:
    """The usable dialogues; equal ones are `id`, `id-2`, `id-3`, ... The first rows that are none go to `bad`."""
    copies: Counter[str] = Counter()
    for place, row in chain.from_iterable(READERS[dataset.format](path, counts) for path in paths):
        try:
            texts, roles = turns_of(place, row, dataset.messages != "one", counts)
        except StageError as error:
            counts["bad_rows"] += 1
            bad += [error] if len(bad) < NAMED else []
            continue
        turns = [clean(text, counts) for text in texts]
        with_text = sum(map(bool, turns))
        counts["dialogues"] += 1
        counts["turns"] += len(turns)
        counts["empty_turns"] += len(turns) - with_text
        if with_text < 2:
            counts["unusable_dialogues"] += 1
            continue
        name = content_id(turns)
        copies[name] += 1
        counts["duplicate_dialogues"] += copies[name] > 1
        yield Found(name if copies[name] == 1 else f"{name}-{copies[name]}", turns, roles)


def clean(text: str, counts: Counter[str]) -> str:
    """The text on one line, its accents composed, without NUL and halves of surrogate pairs; empty if not seen."""
    kept = REMOVED.sub("", text)
    counts["removed_characters"] += len(text) - len(kept)
    if not is_seen(kept):
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
    for place, each in enumerate(records_of(dialogues, Dialogue)):
        copies[each.dialogue.partition("-")[0]].append(place)
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
