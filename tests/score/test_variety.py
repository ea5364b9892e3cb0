"""The scores of variety on cases worked out by hand."""

import random

import pytest

from stages.score.variety import VOCABULARY, distinct, diversity, expectation_adjusted_distinct, ngrams, novelty


def test_novelty_is_the_share_that_is_no_training_turn_word_for_word() -> None:
    turns = ["How are you ?", "Fine , thanks .", "And you ?"]
    responses = ["Fine , thanks .", "fine , thanks .", "Fine", "How are you ?", ""]
    assert novelty(responses, turns) == pytest.approx(3 / 5)


def test_novelty_overlooks_the_amount_of_white_space_and_nothing_else() -> None:
    assert novelty([" Fine ,  thanks . "], ["Fine ,\tthanks ."]) == 0.0
    assert novelty(["Fine, thanks."], ["Fine , thanks ."]) == 1.0


def test_responses_without_a_word_count_as_novel() -> None:
    assert novelty(["", " \t", "Yes .", "Fine"], ["Yes ."]) == pytest.approx(3 / 4)


def test_diversity_is_the_number_of_distinct_responses_over_all() -> None:
    assert diversity(["a b", "a  b", "A b", "c"]) == pytest.approx(3 / 4)
    assert diversity(["same"] * 5) == pytest.approx(1 / 5)


def test_distinct_n_is_of_the_n_grams_of_all_responses_together() -> None:
    responses = ["the cat sat .", "the cat ran .", "", "the"]
    assert distinct(responses, 1) == pytest.approx(5 / 9)  # the cat sat . ran
    assert distinct(responses, 2) == pytest.approx(5 / 6)  # "the cat" is there twice; "the" has none
    assert distinct(["", "a"], 2) == 0.0


def test_words_are_those_of_bleu_and_an_n_gram_ends_with_its_response() -> None:
    assert ngrams(["Fine, thanks.", "fine"], 1) == [("Fine",), (",",), ("thanks",), (".",), ("fine",)]
    assert ngrams(["a b", "c"], 2) == [("a", "b")]


def test_ead_is_the_number_of_words_over_that_of_even_draws() -> None:
    # two different words of three; of three draws from four words (3/4)^3 of them are expected to be missed
    assert expectation_adjusted_distinct(["a b", "a"], vocabulary=4) == pytest.approx(2 / (4 * (1 - 27 / 64)))
    assert expectation_adjusted_distinct(["a"], vocabulary=7) == pytest.approx(1.0)
    assert expectation_adjusted_distinct([""]) == 0.0


def test_ead_is_one_for_evenly_drawn_words_however_many_where_distinct_1_falls() -> None:
    chance, vocabulary = random.Random(0), 2000
    words = [f"w{number}" for number in range(vocabulary)]
    for count, share in ((1000, 0.79), (4000, 0.43)):  # (1 - (1 - 1/2000) ** count) * 2000 / count
        drawn = [" ".join(chance.choices(words, k=10)) for _ in range(count // 10)]
        assert distinct(drawn, 1) == pytest.approx(share, abs=0.02)
        assert expectation_adjusted_distinct(drawn, vocabulary) == pytest.approx(1.0, abs=0.03)


def test_the_vocabulary_is_gpt2s() -> None:
    assert VOCABULARY == 50_257
