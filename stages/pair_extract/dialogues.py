"""The dialogues of a corpus, sorted by name, of which no more than one is in memory.

They lie in a temporary file in the order in which they came; in memory are 24 bytes for each.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from stages.params.sources import Split
from stages.plumbing.errors import StageError
from stages.plumbing.sequences import LazySequence
from stages.records import Dialogue

Numbers = np.ndarray[tuple[int], np.dtype[Any]]


def content_id(turns: list[str]) -> str:
    """First 16 hex digits of the sha256 of the turns."""
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()[:16]


class Stored(LazySequence[Dialogue]):
    """Dialogues on disk, named by their content; equal ones are `id`, `id-2`, `id-3`, ... in the order they came.

    folder: for the temporary file, which has no name and is gone when nobody uses it any more; None: the system's.
    """

    def __init__(self, dialogues: Iterable[list[str]], folder: Path | None = None) -> None:
        self.file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115  it lives as long as this object
        contents, starts, start = array("Q"), array("q"), 0
        for turns in dialogues:
            contents.append(int(content_id(turns), 16))
            starts.append(start)
            start += self.file.write(json.dumps(turns).encode() + b"\n")
        self.file.flush()
        found = np.array(contents, dtype=np.uint64)
        order = np.argsort(found, kind="stable")
        found = found[order]
        begins = np.flatnonzero(np.diff(found, prepend=found[:1] + np.uint64(1)))
        number = np.arange(len(found)) - np.repeat(begins, np.diff(begins, append=len(found)))
        endings = np.where(number > 0, (number + 1).astype("S10"), b"")
        by_name = np.lexsort((endings, found))  # as texts: `id-10` comes before `id-2`
        self.contents, self.numbers = found[by_name], number[by_name] + 1
        self.starts = np.array(starts, dtype=np.int64)[order][by_name]

    @property
    def duplicates(self) -> int:
        """How many are equal to an earlier one."""
        return int((self.numbers > 1).sum())

    def __len__(self) -> int:
        return len(self.starts)

    def _item(self, number: int) -> Dialogue:
        self.file.seek(self.starts[number])
        copy = self.numbers[number]
        name = f"{self.contents[number]:016x}" + (f"-{copy}" if copy > 1 else "")
        return Dialogue(name, json.loads(self.file.readline()))


class Part(LazySequence[Dialogue]):
    """Some of the dialogues of a list, in the order of their names."""

    def __init__(self, whole: Sequence[Dialogue], places: Numbers) -> None:
        self.whole, self.places = whole, places

    def __len__(self) -> int:
        return len(self.places)

    def _item(self, number: int) -> Dialogue:
        return self.whole[int(self.places[number])]


def split_dialogues(subject: str, dialogues: Sequence[Dialogue], split: Split) -> dict[str, Sequence[Dialogue]]:
    """Set aside the dialogues with the lowest sha256 of `seed:id` for test and validation; train on the others.

    Equal dialogues (`id`, `id-2`, ...) stay together, so a set may get a few more than `split` asks for.

    Raises:
        StageError: no dialogue is left for training.
    """

    def ranks() -> Iterator[bytes]:
        for each in dialogues:
            yield hashlib.sha256(f"{split.seed}:{each.dialogue.partition('-')[0]}".encode()).digest()

    rank = np.fromiter(ranks(), dtype="V32", count=len(dialogues)).view("S32")
    order = np.argsort(rank, kind="stable")
    ordered = rank[order]
    part = np.full(len(dialogues), b"train", dtype="S10")
    sizes, first = {"test": 0, "validation": 0}, 0
    while first < len(order):
        wanting = [name for name in sizes if sizes[name] < getattr(split, name)]
        if not wanting:
            break
        last = first + int(np.searchsorted(ordered[first:], ordered[first], side="right"))
        part[order[first:last]] = wanting[0]
        sizes[wanting[0]] += last - first
        first = last
    if first == len(order):
        found = f"{split.validation} + {split.test} of {len(dialogues)} usable dialogues are set aside"
        raise StageError(subject, found, "set fewer aside: none is left for training")
    names = np.array([each.dialogue for each in dialogues]) if not isinstance(dialogues, Stored) else None
    by_name = np.arange(len(order)) if names is None else np.argsort(names)
    return {name: Part(dialogues, by_name[part[by_name] == name.encode()]) for name in ("train", "validation", "test")}
