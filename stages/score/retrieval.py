"""A baseline that learns nothing: answer with the response to the most similar training query.

It is not a method of the paper. It shows the scores that copying from the training dialogues can reach.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from stages.records import Pair
from stages.score.sorted_texts import sorted_texts
from stages.score.terms import Terms
from stages.score.tf_idf import TfIdf

ROWS = 1 << 15  # training queries that are compared at a time
BLOCK = 1 << 23  # similarities in memory at a time: up to 96 MiB


class Lookup:
    """M >= 1 training pairs, ready to be looked up.

    Similarity is the cosine between TF-IDF vectors over words and word bigrams. Words are in lower case and separated
    by spaces, frequencies are those of the training queries; all else is scikit-learn's default, and so is every bit
    of the result (tf_idf.py). Of equally similar pairs it takes the alphabetically first, so that the order of the
    corpus does not matter. A query without any known word is similar to no pair and gets the alphabetically first pair.

    Texts stay on disk where there are many (sorted_texts.py); in memory are about 300 bytes for each pair.
    """

    def __init__(self, train: Iterable[Pair], scratch: Path | None = None) -> None:
        """scratch: a folder for temporary files, which are needed from a million pairs on; None: the system's."""
        self.pairs = sorted_texts(((pair.query, pair.response) for pair in train), scratch)
        self.vectors = TfIdf(Terms(query for query, _ in self.pairs))

    def nearest(self, queries: Sequence[str]) -> list[tuple[str, str, float]]:
        """For each of N queries: the most similar training query, its response, the similarity from 0 to 1."""
        different = list(dict.fromkeys(queries))
        asked = self.vectors.queries(different)
        for start in range(0, len(self.pairs), ROWS):
            known = self.vectors.rows(asked, slice(start, start + ROWS))
            step = max(1, BLOCK // len(known))
            for first in range(0, len(different), step):
                asked.improve(slice(first, first + step), known, start)
        found = {text: (*self.pairs[row], best) for text, row, best in zip(different, *asked.best(), strict=True)}
        return [found[text] for text in queries]


def look_up(train: Iterable[Pair], queries: Sequence[str], scratch: Path | None = None) -> list[str]:
    """For each of N queries, the response of the training pair with the most similar query, of M >= 1 pairs."""
    return [response for _, response, _ in Lookup(train, scratch).nearest(queries)]
