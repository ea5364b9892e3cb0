"""Pairs of texts in alphabetical order: in memory if they are few, otherwise merged on disk from sorted parts."""

import heapq
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from stages.plumbing.sequences import LazySequence

PART = 200_000  # pairs that are sorted in memory

Texts = tuple[str, str]


class TextsOnDisk(LazySequence[Texts]):
    """Pairs of texts in a temporary file without a name, which is gone when nobody uses it any more."""

    def __init__(self, pairs: Iterable[Texts], folder: Path | None) -> None:
        self.file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115  it lives as long as this object
        self.starts, start = array("q"), 0
        for pair in pairs:
            self.starts.append(start)
            start += self.file.write(json.dumps(pair).encode() + b"\n")
        self.file.flush()

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Texts]:
        self.file.seek(0)
        return map(_read, self.file)

    def _item(self, number: int) -> Texts:
        self.file.seek(self.starts[number])
        return _read(self.file.readline())


def _read(line: bytes) -> Texts:
    first, second = json.loads(line)
    return first, second


def sorted_texts(pairs: Iterable[Texts], folder: Path | None = None, part: int = PART) -> Sequence[Texts]:
    """The pairs in alphabetical order; more than `part` of them are not in memory.

    folder: for the temporary files; None: the system's.
    """
    rest = iter(pairs)
    parts = iter(lambda: sorted(islice(rest, part)), [])
    first, second = next(parts, []), next(parts, [])
    if not second:
        return first
    with ExitStack() as stack:
        written = []
        for each in chain((first, second), parts):
            written.append(TextsOnDisk(each, folder))
            stack.callback(written[-1].file.close)
            first = second = each = []  # noqa: PLW2901  only one part is in memory
        return TextsOnDisk(heapq.merge(*written), folder)
