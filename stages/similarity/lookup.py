"""The lookup: the training pairs whose queries are most similar to a query, by TF-IDF. It learns nothing.

Similarity is the cosine between TF-IDF vectors over words and word bigrams, in lower case and separated by spaces, as
scikit-learn's TfidfVectorizer has it. That one keeps every bigram as a text and all vectors in memory. Here its
HashingVectorizer numbers the terms (of 130,000 about four pairs share one of 2**31 numbers), and vectors are made for a
block of pairs at a time, so that millions of pairs fit.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

ROWS = 1 << 15  # training queries in memory at a time
BLOCK = 1 << 21  # similarities in memory at a time: 16 MiB, a few times over
UNIT = 10**9  # a similarity has nine digits: what differs behind them is rounding, and counts as equal
PLACES = 2**32  # above the number of any pair

TERMS = HashingVectorizer(
    token_pattern=r"\S+", ngram_range=(1, 2), n_features=2**31 - 2, alternate_sign=False, norm=None
)


class Match(NamedTuple):
    """A training pair, and how similar its query is, from 0 to 1."""

    query: str
    response: str
    similarity: float


class Lookup:
    """M >= 1 training pairs, ready to be looked up.

    Of equally similar pairs it takes the alphabetically first, so that the order of the corpus does not matter. A query
    without any known word is similar to no pair and gets the alphabetically first ones.
    """

    def __init__(self, pairs: Dataset) -> None:
        """pairs: with the columns `query` and `response`."""
        texts = pairs.with_format("arrow", columns=["query", "response"])[:]
        order = pc.sort_indices(texts, sort_keys=[("query", "ascending"), ("response", "ascending")])
        self.pairs = pairs.select(order.cast("int64"))
        terms = np.concatenate([counts.indices for _, counts in self._blocks()])
        self.terms, frequency = np.unique(terms, return_counts=True)  # in order; the number of queries that have each
        self.idf = np.log((len(pairs) + 1) / (frequency + 1)) + 1

    def _blocks(self) -> Iterator[tuple[int, csr_matrix]]:
        """The number of a block's first pair, and how often each query of the block has each term."""
        for start in range(0, len(self.pairs), ROWS):
            yield start, TERMS.transform(self.pairs[start : start + ROWS]["query"])

    def _vectors(self, counts: csr_matrix) -> csr_matrix:
        """Vectors of length 1, [texts, terms of the training queries]; `counts` of all terms."""
        places = np.minimum(np.searchsorted(self.terms, counts.indices), len(self.terms) - 1)
        values = counts.data * self.idf[places] * (self.terms[places] == counts.indices)
        return normalize(csr_matrix((values, places, counts.indptr), shape=(counts.shape[0], len(self.terms))))

    def nearest(self, queries: Sequence[str], count: int = 1) -> list[list[Match]]:
        """For each of N queries the `count` most similar pairs, the best first; all pairs if there are fewer."""
        count, different = min(count, len(self.pairs)), list(dict.fromkeys(queries))
        asked = self._vectors(TERMS.transform(different))
        columns = np.unique(asked.indices)
        asked = asked[:, columns]
        # [N, count]: the best so far, least first: a pair's number, less its similarity in units in front of it.
        best = np.full((len(different), count), PLACES)
        for first, counts in self._blocks():
            known = self._vectors(counts)[:, columns].T.tocsr()
            numbers = np.arange(first, first + known.shape[1])
            step = max(1, BLOCK // known.shape[1])
            for start in range(0, len(different), step):
                rows = slice(start, start + step)
                similar = np.rint((asked[rows] @ known).toarray() * UNIT).astype(np.int64)
                found = np.hstack([best[rows], numbers - similar * PLACES])
                best[rows] = np.partition(found, count - 1)[:, :count]
        similar, numbers = np.divmod(np.sort(best).ravel(), PLACES)
        texts = self.pairs[numbers.tolist()]
        matches = map(Match, texts["query"], texts["response"], (-similar / UNIT).tolist())
        of_each = {query: list(islice(matches, count)) for query in different}
        return [of_each[query] for query in queries]
