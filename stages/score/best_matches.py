"""The most similar of many vectors for each of N queries, found block by block without all products.

All vectors have length 1, so what some terms of a query add to a similarity is at most the length of the query's part
in these terms. Once a query has met a vector of similarity s, one that shares only terms of a part shorter than s
cannot be better. These terms, the frequent ones of low weight, are left out of the product; what could be better after
it is computed in full, in the order of scipy's own product, so that it has the same bits.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from stages.score.terms import Numbers

LEFT_OUT = 0.6  # length of the part that is left out, of the similarity that is known: a matter of speed alone
MARGIN = 1e-9  # for rounding


@dataclass(frozen=True)
class Known:
    """Vectors of a block of R texts, [R, terms], and the texts by term, [terms, R]."""

    vectors: csr_matrix

    @cached_property
    def by_term(self) -> csr_matrix:
        """The same, transposed."""
        return self.vectors.T.tocsr()

    def __len__(self) -> int:
        return int(self.vectors.shape[0])


@dataclass(frozen=True)
class BestMatches:
    """N queries and the best match of each so far; before any, the first text of all, with similarity 0."""

    keys: Numbers  # [terms], of the terms that the queries have, in order
    idf: Numbers  # [terms]
    vectors: csr_matrix  # [N, terms]; the terms of a row in alphabetical order
    similarity: Numbers = field(init=False)  # [N]
    number: Numbers = field(init=False)  # [N], of the best match

    def __post_init__(self) -> None:
        object.__setattr__(self, "similarity", np.zeros(self.vectors.shape[0]))
        object.__setattr__(self, "number", np.zeros(self.vectors.shape[0], dtype=np.int64))

    @cached_property
    def lengths(self) -> Numbers:
        """For each entry of `vectors`: the length of the part of its row in the entries up to this size."""
        starts, data = self.vectors.indptr, self.vectors.data
        row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.lexsort((data, row))
        sums = np.cumsum(data[order] ** 2)
        before = np.concatenate([[0.0], sums])[starts[:-1]]
        found = np.empty(len(data))
        found[order] = np.sqrt(sums - before[row])
        return found

    def improve(self, rows: slice, known: Known, first: int) -> None:
        """Compare some of the queries with a block of texts, of which the first has the number `first`.

        The blocks come in the order of the texts. Of equally similar texts the first is kept.
        """
        best = self.similarity[rows]
        asked, left_out = self._frequent_left_out(rows)
        product = asked @ known.by_term
        row, column, partly = np.repeat(np.arange(len(best)), np.diff(product.indptr)), product.indices, product.data
        if not len(row):
            return
        begins = product.indptr[:-1][np.diff(product.indptr) > 0]
        highest = np.zeros(len(best))
        highest[row[begins]] = np.maximum.reduceat(partly, begins)
        # What is shared of the terms left out can only add to it, so the highest is a bound from below.
        enough = np.maximum(best, highest) * (1 - MARGIN)
        could = np.flatnonzero(partly + left_out[row] >= enough[row])
        row, column = row[could], column[could]
        exact = _similarities(self.vectors[rows], known.vectors, row, column)
        order = np.lexsort((column, -exact, row))
        top = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
        top = top[exact[top] > best[row[top]]]
        self.similarity[rows][row[top]] = exact[top]
        self.number[rows][row[top]] = first + column[top]

    def _frequent_left_out(self, rows: slice) -> tuple[csr_matrix, Numbers]:
        """The queries without terms that cannot decide, and the length of the part left out of each."""
        asked = self.vectors[rows].copy()
        start, stop = self.vectors.indptr[rows.start], self.vectors.indptr[min(rows.stop, len(self.number))]
        lengths = self.lengths[start:stop]
        row = np.repeat(np.arange(asked.shape[0]), np.diff(asked.indptr))
        out = lengths < LEFT_OUT * self.similarity[rows][row]
        asked.data[out] = 0.0
        asked.eliminate_zeros()
        left_out = np.zeros(asked.shape[0])
        np.maximum.at(left_out, row[out], lengths[out])
        return asked, left_out

    def best(self) -> tuple[list[int], list[float]]:
        """Number and similarity of the best match of each query."""
        return self.number.tolist(), self.similarity.tolist()


def _similarities(asked: csr_matrix, known: csr_matrix, row: Numbers, column: Numbers) -> Numbers:
    """Products of the rows `row` of `asked` with the rows `column` of `known`, terms in the order of `asked`."""
    counts = np.diff(asked.indptr)[row]
    pair = np.repeat(np.arange(len(row)), counts)
    entry = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts) + asked.indptr[row[pair]]
    values = np.asarray(known[column[pair], asked.indices[entry]]).ravel()
    return np.bincount(pair, weights=asked.data[entry] * values, minlength=len(row))
