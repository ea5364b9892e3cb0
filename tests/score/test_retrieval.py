"""The lookup on cases worked out by hand; test_score.py has its scores on DailyDialog."""

import pytest

from stages.score import retrieval
from stages.score.retrieval import look_up
from tests.helpers_scores import pair

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
