"""The rule for texts that say nearly the same, and the training pairs that, by this rule, give a held-out pair away.

Two texts overlap when

- they are equal except for case, punctuation and white space, or
- both have at least six different words and share most of them: twice the number of shared words, divided by the sum
  of both numbers of words, is at least 0.8. Shorter texts ("Thank you for your help .") are similar without being
  copies.

Queries are compared with queries, responses with responses. `score` uses this rule to count what leaks into the test
set (stages/score/leakage.py). `subset` uses it for the switch `drop_overlap`, which removes each training pair that
gives a validation or test pair away. A training pair does so if both its sides overlap those of one held-out pair, or
if one side overlaps a held-out text of at least six different words. A short text that recurs ("Yes , please .") gives
nothing away. The turns of removed pairs leave the training regime too; validation and test stay as they are. On
DailyDialog this removes 4,243 of 41,637 training pairs, and BLEU-4 of the lookup (stages/score/retrieval.py) falls from
0.3257 to 0.0197: that much of its score came from copies (tests/test_overlap.py, with DailyDialog's text files).

The ratio of shared words is the one in the code that Wen, Luo and Mou published with "An Empirical Study on the
Overlapping Problem of Open-Domain Dialogue Datasets" (LREC 2022; github.com/yq-wen/overlapping-datasets,
preprocessing/preprocess_utils.py): it compares sets of lower-case words without punctuation, and takes the smaller
ratio of a pair's two sides. The limits of 0.8 and six words are ours. They split the dialogues anew and put those least
similar to others into validation and test. We keep the corpus's split and remove pairs from training, so our counts
cannot be compared with theirs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from stages.records import Pair

SHARED = 0.8
LONG = 6
BLOCK = 1 << 23  # comparisons in memory at a time: 32 MiB of float32

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Table = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; a text with only punctuation counts as one word.

    >>> words("I ' m fine , thanks .") == words("i'm fine... Thanks!")
    True
    """
    return re.findall(r"\w+", text.lower()) or [text]


@dataclass(frozen=True)
class Texts:
    """N texts in the form that `compare` needs."""

    sets: csr_matrix  # [N, words]: 1 where the text has the word
    sizes: np.ndarray[tuple[int], np.dtype[np.float32]]  # [N]: number of different words
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]]  # [N]: equal for texts with the same words in the same order

    @property
    def long(self) -> Flags:
        """Which texts have enough words for similarity to mean anything, [N]."""
        return self.sizes >= LONG


def index(train: Sequence[str], held_out: Sequence[str]) -> tuple[Texts, Texts]:
    """Index both lists of texts, with the same numbers for the same words and texts."""
    split = [words(text) for text in (*train, *held_out)]
    sets = CountVectorizer(analyzer=lambda text: text, binary=True, dtype=np.float32).fit_transform(split).tocsr()
    known: dict[tuple[str, ...], int] = {}
    numbers = np.array([known.setdefault(tuple(text), len(known)) for text in split])
    sizes = np.diff(sets.indptr).astype(np.float32)
    first, second = slice(len(train)), slice(len(train), None)
    return Texts(sets[first], sizes[first], numbers[first]), Texts(sets[second], sizes[second], numbers[second])


def compare(train: Texts, held_out: Texts, rows: slice) -> Table:
    """Which of the held-out texts `rows` (B of them) overlap which of the M training texts, [B, M]."""
    shared = (held_out.sets[rows] @ train.sets.T).toarray()
    similar = 2 * shared >= SHARED * (held_out.sizes[rows, None] + train.sizes)
    both_long = held_out.long[rows, None] & train.long
    equal = held_out.numbers[rows, None] == train.numbers
    return np.asarray(equal | (similar & both_long), dtype=np.bool_)


@dataclass(frozen=True)
class Block:
    """The comparison of B held-out pairs with all M training pairs."""

    rows: slice  # which of the held-out pairs
    queries: Table  # [B, M]: the queries overlap
    responses: Table  # [B, M]: the responses overlap
    long_queries: Flags  # [B]: held-out queries of at least LONG words
    long_responses: Flags  # [B]


def blocks(train: Sequence[Pair], held_out: Sequence[Pair]) -> Iterator[Block]:
    """Compare all held-out pairs with all training pairs, a block of held-out pairs at a time."""
    queries = index([pair.query for pair in train], [pair.query for pair in held_out])
    responses = index([pair.response for pair in train], [pair.response for pair in held_out])
    step = max(1, BLOCK // max(1, len(train)))
    for start in range(0, len(held_out), step):
        rows = slice(start, start + step)
        yield Block(
            rows, compare(*queries, rows), compare(*responses, rows), queries[1].long[rows], responses[1].long[rows]
        )


def overlapping(train: Sequence[Pair], held_out: Sequence[Pair]) -> list[bool]:
    """True for each training pair that gives a held-out pair away.

    It does so if its query and its response overlap those of one held-out pair, or if one of the two overlaps a long
    (six words) held-out query or response. A short text that recurs ("Yes , please .") gives nothing away.
    """
    found = np.zeros(len(train), dtype=np.bool_)
    for block in blocks(train, held_out):
        found |= (block.queries & block.responses).any(axis=0)
        found |= block.queries[block.long_queries].any(axis=0)
        found |= block.responses[block.long_responses].any(axis=0)
    return [bool(each) for each in found]
