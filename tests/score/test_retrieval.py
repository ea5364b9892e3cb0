"""The lookup on cases worked out by hand; test_score.py has its scores on DailyDialog."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.records import Pair
from stages.score import retrieval, terms, tf_idf
from stages.score.retrieval import Lookup, look_up
from stages.score.sorted_texts import sorted_texts
from tests.helpers_scores import dailydialog, needs_dailydialog, pair

TRAIN = [
    pair("Where is the bank ?", "Over there ."),
    pair("How much is it ?", "Ten pounds ."),
    pair("Do you like dogs ?", "I do ."),
    pair("Do you like cats ?", "Not much ."),
]


def test_a_known_query_gets_the_response_it_had() -> None:
    assert look_up(TRAIN, [each.query for each in TRAIN]) == [each.response for each in TRAIN]


def test_a_new_query_gets_the_response_to_the_most_similar_one() -> None:
    asked = ["do you like big cats ?", "is the station near the bank ?", "how much ?"]
    assert look_up(TRAIN, asked) == ["Not much .", "Over there .", "Ten pounds ."]


def test_pairs_of_words_count() -> None:
    train = [pair("c b z", "no"), pair("z b c", "yes")]  # by single words they are equal, and it would take the first
    assert look_up(train, ["b c"]) == ["yes"]


def test_of_equals_the_alphabetically_first_is_taken_whatever_the_order() -> None:
    train = [pair("a b", "2"), pair("a b", "1"), pair("b c", "0")]
    for order in (train, train[::-1]):
        assert look_up(order, ["a b", "unknown"]) == ["1", "1"]


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [each.query for each in TRAIN] * 3
    whole = look_up(TRAIN, asked)
    monkeypatch.setattr(retrieval, "BLOCK", 5)
    assert look_up(TRAIN, asked) == whole


def by_definition(train: Sequence[Pair], queries: Sequence[str]) -> list[tuple[str, str, float]]:
    """The lookup by scikit-learn's own vectors and all similarities."""
    pairs = sorted((pair.query, pair.response) for pair in train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    known = vectorizer.fit_transform([query for query, _ in pairs]).T.tocsr()
    similarity = (vectorizer.transform(queries) @ known).toarray()
    return [(*pairs[at], float(row[at])) for row, at in zip(similarity, np.argmax(similarity, axis=1), strict=True)]


def random_texts(chance: random.Random, count: int, vocabulary: Sequence[str], longest: int) -> list[str]:
    weights = [1 / (1 + rank) for rank in range(len(vocabulary))]
    return [" ".join(chance.choices(vocabulary, weights, k=chance.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(("words", "longest", "seed"), [(4, 4, 0), (9, 9, 1), (60, 20, 2), (400, 40, 3)])
def test_the_answers_are_those_of_the_definition_to_the_last_bit(
    words: int, longest: int, seed: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few words make many ties, which the last bits decide."""
    if small:  # many blocks of texts, of queries and of terms
        monkeypatch.setattr(retrieval, "ROWS", 37)
        monkeypatch.setattr(retrieval, "BLOCK", 37 * 11)
        monkeypatch.setattr(terms, "ROWS", 41)
        monkeypatch.setattr(tf_idf, "SORTED", 200)
    chance = random.Random(seed)
    vocabulary = [f"{'wW'[rank % 2]}{rank}" for rank in range(words)] + ["?", "\u00e9", "\u0130"]
    train = [
        pair(*texts) for texts in zip(*(random_texts(chance, 500, vocabulary, longest) for _ in "qr"), strict=True)
    ]
    asked = [*random_texts(chance, 100, [*vocabulary, "never"], longest), "unknown", "", train[7].query]
    assert Lookup(train).nearest(asked) == by_definition(train, asked)


@needs_dailydialog
def test_the_answers_on_dailydialog_are_those_of_the_definition_to_the_last_bit() -> None:
    train, asked = dailydialog("train")[1], [each.query for each in dailydialog("test")[1]]
    assert Lookup(iter(train)).nearest(asked) == by_definition(train, asked)


def test_pairs_that_are_sorted_on_disk_are_those_sorted_in_memory(tmp_path: Path) -> None:
    chance = random.Random(0)
    pairs = [tuple(random_texts(chance, 2, "ab\u00e9\U0001f600\u2028", 3)) for _ in range(100)]
    for part in (1, 7, 50, 99, 100, 101):
        found = sorted_texts(iter(pairs), tmp_path, part)  # type: ignore[arg-type]
        assert list(found) == sorted(pairs)
        assert [found[at] for at in range(100)] == sorted(pairs)
        assert found[-3:] == sorted(pairs)[-3:]
    assert not list(tmp_path.iterdir())


def test_what_is_sorted_on_disk_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [each.query for each in TRAIN] + ["how much ?"]
    whole = look_up(TRAIN, asked)
    monkeypatch.setattr(sorted_texts, "__defaults__", (None, 2))
    assert look_up(TRAIN, asked) == whole
