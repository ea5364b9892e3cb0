"""Loops, echoes, unended, exact and empty responses on cases worked out by hand, and on what people wrote."""

import pytest

from stages.score.diagnostics import echoes, empty, exact, is_echo, is_loop, loops, unended
from tests.helpers_scores import dailydialog, needs_dailydialog

LOOPS = [
    "I'm sorry . I'm sorry . I'm sorry .",
    "Well , I'm sorry . I'm sorry . I'm so",  # the last one cut inside a word
    "I'm going to be right there now! I'm going to be right there now! I'm",  # twice in full, and a cut third
    "one two three four one two three four",  # an n-gram of 4, twice
    "so one two three one two three one two three",  # of 3, three times
    "I am . . . . . .",  # one mark, six times
    "No. No. No.",
    "A B c d a b C D",  # case is overlooked
    "Wait!!!!!!",
]
NO_LOOPS = [
    "",
    "Yes .",
    "Well ...",  # three times, but fewer than six marks
    "no no no no no",
    "one two three one two three",  # of 3, twice
    "one two three four one two three",  # of 4, once and a cut second
    "I'm sorry . I'm sorry . I'm sorry . Why ?",  # not up to the end
    "No , no , no !",  # the end is another mark
    "a b c d e a b c d",
]
ECHOES = [
    ("That's a good point.", "That's a good point."),
    ("That's a good point.", "that 's a good point !"),
    ("Hi .", "Hi !"),
    ("I work for a bank in the old town now .", "I work for a bank in the old station ."),  # 7 of 8 words
    ("Well . Have you ever been to the lake with us ?", "Have you ever been to the lake ?"),  # copied in part
    ("Have you ever been to the lake ?", "Have you ever been to the lake ? I have , it is really great ."),
]
NO_ECHOES = [
    ("", ""),
    ("Hi .", ""),
    ("...", "?!"),  # a text without words is a word of its own
    ("Is it far ?", "It is far ."),  # the same few words in another order
    ("Do you know the way ?", "Yes , I do ."),
    ("I work for a bank in the town .", "I work for my sister in the city today ."),  # 5 of 8 words
]


@pytest.mark.parametrize("response", LOOPS)
def test_a_response_that_ends_in_a_repeated_n_gram_loops(response: str) -> None:
    assert is_loop(response)


@pytest.mark.parametrize("response", NO_LOOPS)
def test_a_few_repeated_words_or_ones_before_the_end_are_no_loop(response: str) -> None:
    assert not is_loop(response)


@pytest.mark.parametrize(("query", "response"), ECHOES)
def test_a_response_that_repeats_its_query_or_a_long_part_of_it_is_an_echo(query: str, response: str) -> None:
    assert is_echo(query, response)


@pytest.mark.parametrize(("query", "response"), NO_ECHOES)
def test_a_response_that_shares_a_few_words_is_no_echo(query: str, response: str) -> None:
    assert not is_echo(query, response)


def test_the_shares_are_of_all_responses() -> None:
    assert loops([*LOOPS, *NO_LOOPS]) == pytest.approx(len(LOOPS) / (len(LOOPS) + len(NO_LOOPS)))
    queries, responses = zip(*ECHOES, *NO_ECHOES, strict=True)
    assert echoes(queries, responses) == pytest.approx(len(ECHOES) / (len(ECHOES) + len(NO_ECHOES)))


def test_empty_is_the_share_without_a_word() -> None:
    assert empty(["", " \t", "Yes .", "Fine"]) == pytest.approx(2 / 4)


def test_exact_is_the_share_that_is_the_reference_word_for_word() -> None:
    assert exact(["Yes .", "a b", "No .", "Fine"], ["Yes  .", "a b c", "no .", "Fine"]) == pytest.approx(2 / 4)


def test_the_share_at_the_length_limit_is_unknown_unless_it_is_known_of_all() -> None:
    assert unended([True, False, False, False]) == pytest.approx(1 / 4)
    assert unended([True, None, False]) is None
    assert unended([None, None]) is None


@needs_dailydialog
def test_people_hardly_ever_loop_or_echo() -> None:
    pairs = dailydialog("train")[1]
    queries, responses = [pair.query for pair in pairs], [pair.response for pair in pairs]
    assert loops(responses) == 0.0
    assert echoes(queries, responses) == pytest.approx(0.0014, abs=5e-5)
