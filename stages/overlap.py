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
DailyDialog this removes 4,243 of 41,637 training pairs, and BLEU-4 of the lookup (stages/score/lookup.py) falls from
0.3257 to 0.0197: that much of its score came from copies (tests/test_overlap.py, with DailyDialog's text files).

The ratio of shared words is the one in the code that Wen, Luo and Mou published with "An Empirical Study on the
Overlapping Problem of Open-Domain Dialogue Datasets" (LREC 2022; github.com/yq-wen/overlapping-datasets,
preprocessing/preprocess_utils.py): it compares sets of lower-case words without punctuation, and takes the smaller
ratio of a pair's two sides. The limits of 0.8 and six words are ours. They split the dialogues anew and put those least
similar to others into validation and test. We keep the corpus's split and remove pairs from training, so our counts
cannot be compared with theirs.
"""

import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

import numpy as np

from stages.records import Pair

SHARED = 0.8
TWENTIETHS = round(20 * SHARED / 2)  # of the words of both, that must be shared
LONG = 6
ASCII_WORD = re.compile(r"\w+", re.ASCII)
MANY = 60  # words of a text, up to which it is looked up under twos

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; a text with only punctuation counts as one word.

    >>> words("I ' m fine , thanks .") == words("i'm fine... Thanks!")
    True
    """
    pattern = ASCII_WORD if text.isascii() else _word_with_marks()
    return pattern.findall(text.lower()) or [text]


@cache
def _word_with_marks() -> re.Pattern[str]:
    """A word in any script: the vowel signs of Hindi or Thai are marks, which a plain word pattern leaves out."""
    marks = "".join(chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M")
    return re.compile(rf"[\w{marks}]+")


def similar(shared: int, first: int, second: int) -> bool:
    """Whether two texts of `first` and `second` different words share most of them, in whole numbers: exactly."""
    return 20 * shared >= TWENTIETHS * (first + second)


@cache
def fewest_shared(size: int) -> int:
    """How many words a text of `size` different words shares at least with any long text that is similar to it.

    The shorter the other one, the fewer; but it has all the shared words.
    """
    return next(shared for shared in range(1, size + 1) if similar(shared, size, max(LONG, shared)))


class Index:
    """Texts by their words, to find those that overlap another text without a look at all of them.

    Texts with the same words in the same order are one *different text*, and have one number. Of the others, only those
    can be similar that share two of their rarest words: if a text shares at least s of its n words, then two of these
    are among any n - s + 2. So a text is filed under each two of its n - s + 2 rarest words, and looked up under as
    many (a prefix filter: Chaudhuri, Ganti and Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning",
    ICDE 2006). What is found so is compared by the rule itself. Texts of very many words would have too many such twos:
    those are filed under each one of n - s + 1 words.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.known: dict[tuple[str, ...], int] = {}  # the words of a different text -> its number
        self.numbers = [self.known.setdefault(tuple(words(text)), len(self.known)) for text in texts]  # of each text
        frequency = Counter(word for own in self.known for word in set(own))
        by_rarity = sorted(frequency, key=lambda word: (frequency[word], word))
        self.ranks = {word: rank for rank, word in enumerate(by_rarity)}
        self.sets = [frozenset(self.ranks[word] for word in own) for own in self.known]  # of ranks
        self.filed: dict[int | tuple[int, int], list[int]] = defaultdict(list)
        for number, own in enumerate(self.sets):
            if (size := len(own)) >= LONG:  # a similar text has at most half as many words again, and at least 2/3
                ranks = sorted(own)
                for few in {2 * size <= 3 * MANY, 3 * size <= 2 * MANY}:
                    for key in _keys(ranks, size, few):
                        self.filed[key].append(number)

    def overlapping(self, text: str) -> Set[int]:
        """Numbers of the different texts that overlap this one."""
        own = words(text)
        equal = self.known.get(tuple(own))
        found = set() if equal is None else {equal}
        if len(own) >= LONG and (size := len(different := set(own))) >= LONG:
            ranks = sorted([self.ranks[word] for word in different if word in self.ranks])
            near: set[int] = set()
            for key in _keys(ranks, size, size <= MANY):
                if key in self.filed:
                    near.update(self.filed[key])
            for number in near:
                other = self.sets[number]
                if similar(len(other.intersection(ranks)), size, len(other)):
                    found.add(number)
        return found

    def long(self, number: int) -> bool:
        """Whether a text has enough words for similarity to mean anything."""
        return len(self.sets[number]) >= LONG


def _keys(ranks: list[int], size: int, few: bool) -> Iterable[int | tuple[int, int]]:
    """What a text of `size` different words is filed under; `ranks`: of those that occur in the index, in order.

    Words that do not occur there are the rarest of all, and nothing is found under them.
    """
    rarest = ranks[: max(0, len(ranks) - fewest_shared(size) + 1 + few)]
    return combinations(rarest, 2) if few else rarest


@dataclass(frozen=True)
class Overlap:
    """What of the held-out pairs a training pair overlaps: numbers of different queries and responses, and pairs."""

    queries: Set[int]
    responses: Set[int]
    pairs: Set[tuple[int, int]]  # (query, response) of held-out pairs that it overlaps on both sides


class HeldOut:
    """Held-out pairs, to be compared with any number of training pairs, one at a time: memory does not grow with them.

    One training pair after another is looked up in an index of the held-out ones.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.queries = Index(pair.query for pair in pairs)
        self.responses = Index(pair.response for pair in pairs)

    @cached_property
    def numbers(self) -> list[tuple[int, int]]:
        """The numbers of query and response of each held-out pair."""
        return list(zip(self.queries.numbers, self.responses.numbers, strict=True))

    @cached_property
    def answers(self) -> dict[int, set[int]]:
        """The responses that a held-out query has."""
        found: dict[int, set[int]] = defaultdict(set)
        for query, response in self.numbers:
            found[query].add(response)
        return found

    def compare(self, train: Iterable[Pair]) -> Iterator[Overlap]:
        """What each training pair overlaps."""
        for pair in train:
            queries, responses = self.queries.overlapping(pair.query), self.responses.overlapping(pair.response)
            both = {(query, each) for query in queries for each in self.answers[query] & responses}
            yield Overlap(queries, responses, both)


def overlapping(train: Iterable[Pair], held_out: Sequence[Pair]) -> Iterator[bool]:
    """True for each training pair that gives a held-out pair away.

    It does so if its query and its response overlap those of one held-out pair, or if one of the two overlaps a long
    (six words) held-out query or response. A short text that recurs ("Yes , please .") gives nothing away.
    """
    known = HeldOut(held_out)
    for found in known.compare(train):
        yield (
            bool(found.pairs)
            or any(map(known.queries.long, found.queries))
            or any(map(known.responses.long, found.responses))
        )
