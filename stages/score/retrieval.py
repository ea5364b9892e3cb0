"""A baseline that learns nothing: answer with the response to the most similar training query.

It is not a method of the paper. It shows the scores that copying from the training dialogues can reach.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.records import Pair

BLOCK = 1 << 24  # similarities in memory at a time: 128 MiB of float64


def look_up(train: Sequence[Pair], queries: Sequence[str]) -> list[str]:
    """For each of N queries, the response of the training pair with the most similar query, of M >= 1 pairs.

    Similarity is the cosine between TF-IDF vectors over words and word bigrams. Words are in lower case and separated
    by spaces, frequencies are those of the training queries; all else is scikit-learn's default. Of equally similar
    pairs it takes the alphabetically first, so that the order of the corpus does not matter. A query without any known
    word is similar to no pair and gets the alphabetically first pair's response.
    """
    ordered = sorted((pair.query, pair.response) for pair in train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    known = vectorizer.fit_transform([query for query, _ in ordered]).T.tocsr()  # [words, M]
    asked = vectorizer.transform(queries)  # [N, words]
    rows = max(1, BLOCK // len(ordered))
    nearest: list[int] = []
    for start in range(0, len(queries), rows):
        similarity = (asked[start : start + rows] @ known).toarray()  # [rows, M]
        nearest.extend(np.argmax(similarity, axis=1))  # the first of equal ones
    return [ordered[index][1] for index in nearest]
