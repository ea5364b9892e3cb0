"""A baseline that learns nothing: answer with the response to the most similar training query.

It is not a method of the paper. It shows the scores that copying from the training dialogues can reach.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.records import Pair

BLOCK = 1 << 24  # similarities in memory at a time: 128 MiB of float64


class Lookup:
    """M >= 1 training pairs, ready to be looked up.

    Similarity is the cosine between TF-IDF vectors over words and word bigrams. Words are in lower case and separated
    by spaces, frequencies are those of the training queries; all else is scikit-learn's default. Of equally similar
    pairs it takes the alphabetically first, so that the order of the corpus does not matter. A query without any known
    word is similar to no pair and gets the alphabetically first pair.
    """

    def __init__(self, train: Sequence[Pair]) -> None:
        self.pairs = sorted((pair.query, pair.response) for pair in train)
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
        self.known = self.vectorizer.fit_transform([query for query, _ in self.pairs]).T.tocsr()  # [words, M]

    def nearest(self, queries: Sequence[str]) -> list[tuple[str, str, float]]:
        """For each of N queries: the most similar training query, its response, the similarity from 0 to 1."""
        asked = self.vectorizer.transform(queries)  # [N, words]
        rows = max(1, BLOCK // len(self.pairs))
        found: list[tuple[str, str, float]] = []
        for start in range(0, len(queries), rows):
            similarity = (asked[start : start + rows] @ self.known).toarray()  # [rows, M]
            best = np.argmax(similarity, axis=1)  # the first of equal ones
            found.extend((*self.pairs[index], float(row[index])) for row, index in zip(similarity, best, strict=True))
        return found


def look_up(train: Sequence[Pair], queries: Sequence[str]) -> list[str]:
    """For each of N queries, the response of the training pair with the most similar query, of M >= 1 pairs."""
    return [response for _, response, _ in Lookup(train).nearest(queries)]
