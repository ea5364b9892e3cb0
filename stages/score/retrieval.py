"""Answer by looking up: the response that was given to the most similar training query. It learns nothing.

A scale for the scores, not a method of the paper: whatever a trained model scores below this lookup, copying from the
training dialogues would have scored too.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.records import Pair

BLOCK = 1 << 24  # similarities held at a time: 128 MiB of float64


def look_up(train: Sequence[Pair], queries: Sequence[str]) -> list[str]:
    """For each of N queries the response of the most similar of the M training pairs (at least one).

    Similar is the cosine between TF-IDF vectors over words and pairs of neighbouring words, where a word is what stands
    between spaces, in lower case, and the frequencies are those of the training queries; all else is scikit-learn's
    default. Among equally similar pairs the alphabetically first is taken, so that the order of the corpus decides
    nothing. A query without a known word is similar to none: it gets the first response of all.
    """
    ordered = sorted((pair.query, pair.response) for pair in train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    known = vectorizer.fit_transform([query for query, _ in ordered]).T.tocsr()  # [words, M]
    asked = vectorizer.transform(queries)  # [N, words]
    rows = max(1, BLOCK // len(ordered))
    nearest: list[int] = []
    for start in range(0, len(queries), rows):
        similarity = (asked[start : start + rows] @ known).toarray()  # [rows, M]
        nearest.extend(np.argmax(similarity, axis=1))  # the first of equals
    return [ordered[index][1] for index in nearest]
