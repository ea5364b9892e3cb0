"""Novelty and diversity on cases worked out by hand."""

import pytest

from stages.score.variety import diversity, empty, novelty


def test_novelty_is_the_share_that_is_no_training_turn_word_for_word() -> None:
    turns = ["How are you ?", "Fine , thanks .", "And you ?"]
    responses = ["Fine , thanks .", "fine , thanks .", "Fine", "How are you ?", ""]
    assert novelty(responses, turns) == pytest.approx(3 / 5)


def test_novelty_overlooks_the_amount_of_white_space_and_nothing_else() -> None:
    assert novelty([" Fine ,  thanks . "], ["Fine ,\tthanks ."]) == 0.0
    assert novelty(["Fine, thanks."], ["Fine , thanks ."]) == 1.0


def test_diversity_is_the_number_of_distinct_responses_over_all() -> None:
    assert diversity(["a b", "a  b", "A b", "c"]) == pytest.approx(3 / 4)
    assert diversity(["same"] * 5) == pytest.approx(1 / 5)


def test_empty_is_the_share_without_a_word_and_those_count_as_novel() -> None:
    responses = ["", " \t", "Yes .", "Fine"]
    assert empty(responses) == pytest.approx(2 / 4)
    assert novelty(responses, ["Yes ."]) == pytest.approx(3 / 4)
