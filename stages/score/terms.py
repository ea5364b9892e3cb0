"""The terms of many texts, words and word bigrams, as numbers: four bytes for each word."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS = 1 << 15  # texts whose terms are in memory at a time

Numbers = np.ndarray[tuple[int], np.dtype[Any]]


def split(text: str) -> list[str]:
    """The words: in lower case, separated by white space."""
    return text.lower().split()


def key_of(word: int, following: int | None = None) -> int:
    """A word, or a bigram, as one whole number."""
    return (word + 1) << 32 | (0 if following is None else following + 1)


@dataclass(frozen=True)
class Occurrences:
    """The terms of some texts as often as they stand there, first all words, then all bigrams: each [occurrences]."""

    rows: Numbers  # number of the text, counted from the first of these
    keys: Numbers  # of the term
    slots: Numbers  # a place for each occurrence: text by text, in a text first its words, then its bigrams


class Terms:
    """The words of M texts: `flat` are their numbers, those of text m from `starts[m]` to `starts[m + 1]`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.words: dict[str, int] = {}
        flat, starts = array("i"), array("q", [0])
        for text in texts:
            flat.extend([self.words.setdefault(word, len(self.words)) for word in split(text)])
            starts.append(len(flat))
        self.flat: Numbers = np.frombuffer(flat, dtype=np.int32) if flat else np.zeros(0, dtype=np.int32)
        self.starts: Numbers = np.frombuffer(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def slots(self) -> int:
        """How many slots there are: two for each word, of which one of a text is not used."""
        return 2 * len(self.flat)

    def blocks(self) -> Iterator[tuple[int, Occurrences]]:
        """All occurrences, ROWS texts at a time, each with the number of the first text."""
        for start in range(0, len(self), ROWS):
            yield start, self.occurrences(slice(start, start + ROWS))

    def occurrences(self, rows: slice) -> Occurrences:
        """The occurrences of the terms in some texts."""
        first, last, _ = rows.indices(len(self))
        starts = self.starts[first : last + 1]
        flat = self.flat[starts[0] : starts[-1]].astype(np.int64) + 1
        lengths = np.diff(starts)
        row = np.repeat(np.arange(last - first), lengths)
        slot = np.arange(starts[0], starts[-1]) + np.repeat(starts[:-1], lengths)  # 2 x start + place in the text
        pairs = np.flatnonzero(row[1:] == row[:-1])
        bigrams = flat[pairs] << 32 | flat[pairs + 1]
        behind = slot[pairs] + lengths[row[pairs]]
        return Occurrences(
            np.concatenate([row, row[pairs]]),
            np.concatenate([flat << 32, bigrams]),
            np.concatenate([slot, behind]),
        )
