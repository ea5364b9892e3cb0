"""TF-IDF vectors of M texts, equal to those of scikit-learn's TfidfVectorizer bit for bit, in less memory.

The vectorizer holds every bigram as a text, and every vector. Here are the words as numbers and one norm for each text;
the part of the vectors that some queries ask for is made when it is needed. Rounding decides which of two equally
similar texts is found, so sums are taken in scikit-learn's order. The norm of a training text sums its terms in the
order in which they first occur in the texts, words of a text before its bigrams; that of a query, and a similarity, in
alphabetical order.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix

from stages.score.best_matches import BestMatches, Known
from stages.score.terms import Numbers, Terms, key_of, split

SORTED = 1 << 23  # occurrences that are sorted at a time


def runs(*columns: Numbers) -> Numbers:
    """Where runs of equal entries begin, in columns of the same length; and their length at the end."""
    changed = np.zeros(len(columns[0]), dtype=np.bool_)
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    changed[:1] = True
    return np.append(np.flatnonzero(changed), len(changed))


def first_and_frequency(terms: Terms) -> tuple[Numbers, Numbers]:
    """For the term in each slot: the first slot that has it, and the number of texts that have it.

    A part of the terms at a time, so that only part of them is sorted at a time.
    """
    if terms.slots >= 1 << 32:
        raise MemoryError("too many words for numbers of 32 bits")
    first, frequency = (np.zeros(terms.slots, dtype=np.uint32) for _ in range(2))
    parts = 1 + 2 * (terms.slots // (2 * SORTED))  # odd: a remainder depends on both words of a bigram
    for part in range(parts):
        chosen = []
        for start, found in terms.blocks():
            mine = slice(None) if parts == 1 else found.keys % parts == part
            chosen.append((found.keys[mine], found.slots[mine].astype(np.uint32), found.rows[mine] + start))
        keys, slots, rows = (np.concatenate(each) for each in zip(*chosen, strict=True))
        del chosen
        order = np.argsort(keys, kind="stable")  # the slots of a term stay in their order
        keys, slots, rows = keys[order], slots[order], rows[order]
        begins = runs(keys)
        texts = np.searchsorted(runs(keys, rows), begins)  # runs of one term in one text, before each term
        first[slots] = np.repeat(slots[begins[:-1]], np.diff(begins))
        frequency[slots] = np.repeat(np.diff(texts), np.diff(begins))
    return first, frequency


def norms_of(rows: Numbers, values: Numbers, count: int) -> Numbers:
    """Euclidean norms of `count` vectors from the values of their entries, summed in the order given."""
    return np.sqrt(np.bincount(rows, weights=values * values, minlength=count))


class TfIdf:
    """The vectors of M >= 1 texts."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.norms = np.zeros(len(terms))
        first, frequency = first_and_frequency(terms)
        for start, found in terms.blocks():
            order = np.lexsort((first[found.slots], found.rows))
            rows, slots = found.rows[order], found.slots[order]
            begins = runs(rows, first[slots])
            rows, slots = rows[begins[:-1]], slots[begins[:-1]]
            values = np.diff(begins) * self.idf(frequency[slots])
            count = min(len(terms) - start, int(rows.max(initial=-1)) + 1)
            self.norms[start : start + count] = norms_of(rows, values, count)

    def idf(self, frequency: Numbers) -> Numbers:
        """The inverse document frequency of terms that so many texts have."""
        return np.asarray(np.log(np.full(len(frequency), len(self.terms) + 1.0) / (frequency + 1.0)) + 1.0)

    def queries(self, texts: Sequence[str]) -> BestMatches:
        """The vectors of N texts, over the terms that the M texts have."""
        counted = [self._terms_of(text) for text in texts]
        keys = np.unique(np.array([key for own in counted for key, _ in own.values()], dtype=np.int64))
        idf, frequency = np.zeros(len(keys)), self._frequencies(keys)
        idf[frequency > 0] = self.idf(frequency[frequency > 0])
        numbers = {key: number for number, key in enumerate(keys.tolist()) if frequency[number]}
        rows, columns, values = [], [], []
        for row, own in enumerate(counted):
            for _, (key, times) in sorted(own.items()):
                if key in numbers:
                    rows.append(row)
                    columns.append(numbers[key])
                    values.append(times * idf[numbers[key]])
        row_numbers, data = np.array(rows, dtype=np.int64), np.array(values, dtype=np.float64)
        data /= norms_of(row_numbers, data, len(texts))[row_numbers]
        starts = np.searchsorted(row_numbers, np.arange(len(texts) + 1))
        return BestMatches(keys, idf, csr_matrix((data, columns, starts), shape=(len(texts), len(keys))))

    def _terms_of(self, text: str) -> dict[str, tuple[int, int]]:
        """The terms of a text of which all words are known -> key and how often."""
        own = split(text)
        found = Counter((word,) for word in own) + Counter(pairwise(own))
        known = self.terms.words
        return {
            " ".join(term): (key_of(*(known[word] for word in term)), times)
            for term, times in found.items()
            if all(word in known for word in term)
        }

    def _frequencies(self, keys: Numbers) -> Numbers:
        found = np.zeros(len(keys), dtype=np.int64)
        for _, occurrences in self.terms.blocks():
            rows, columns = _those_of(keys, occurrences.rows, occurrences.keys)
            each = np.unique(rows * len(keys) + columns) % max(1, len(keys))
            found += np.bincount(each, minlength=len(keys))
        return found

    def rows(self, asked: BestMatches, rows: slice) -> Known:
        """The vectors of some of the M texts, as far as the queries have the same terms."""
        first, last, _ = rows.indices(len(self.terms))
        occurrences = self.terms.occurrences(rows)
        row, column = _those_of(asked.keys, occurrences.rows, occurrences.keys)
        entries, times = np.unique(row * len(asked.keys) + column, return_counts=True)
        row, column = np.divmod(entries, max(1, len(asked.keys)))
        data = times * asked.idf[column] / self.norms[first:last][row]
        starts = np.searchsorted(row, np.arange(last - first + 1))
        return Known(csr_matrix((data, column, starts), shape=(last - first, len(asked.keys))))


def _those_of(keys: Numbers, rows: Numbers, found: Numbers) -> tuple[Numbers, Numbers]:
    """The occurrences of some terms, `keys` in order: number of the text and of the key."""
    places = np.searchsorted(keys, found)
    places[places == len(keys)] = 0
    hits = np.flatnonzero(keys[places] == found) if len(keys) else np.zeros(0, dtype=np.int64)
    return rows[hits], places[hits]
