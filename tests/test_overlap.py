"""The rule of overlap on cases worked out by hand, among many texts, and on DailyDialog if it is there."""

import random
from collections.abc import Sequence

import pytest

from stages.overlap import overlapping
from stages.records import Pair
from stages.score.leakage import exact_leakage, near_leakage
from stages.similarity.bleu import bleu
from tests.helpers_scores import dailydialog, look_up, needs_dailydialog, pair

SIX = "one two three four five six"
OTHER = "seven eight nine ten eleven twelve"


def drops(train: Sequence[Pair], held_out: Sequence[Pair]) -> list[bool]:
    return list(overlapping(train, held_out))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("I'm fine , thanks !", "I \u2019 m FINE, thanks.", True),
        (SIX, "six five four three two one", True),  # the same words in another order
        (SIX, f"{SIX} six seven eight nine", True),  # 2 * 6 / 15: just enough; a word counts once
        ("!!!", "!!!", True),
        (SIX, f"{SIX} seven eight nine ten", False),  # 2 * 6 / 16
        ("one two three four five five", "five four three two one one", False),  # five different words: short
        (SIX, "one two three four five", False),  # one of them is short
        ("!!!", "???", False),
        ("हाँ", "है", False),  # the vowels are marks
    ],
)
def test_texts_overlap_that_are_equal_or_long_and_share_most_words(first: str, second: str, expected: bool) -> None:
    assert drops([pair(first, "a")], [pair(second, "a")]) == [expected]
    leakage = near_leakage([pair(first, "a")], [pair(second, "b")])
    assert (leakage.queries.tolist(), leakage.unseen.tolist()) == ([expected], [not expected])
    assert near_leakage([pair("a", second)], [pair("b", first)]).responses.tolist() == [expected]


def test_a_long_text_alone_gives_a_pair_away_and_short_ones_only_together() -> None:
    held_out = [pair(SIX, "Yes ."), pair(6 * "really ", OTHER), pair("why", "no !")]
    train = [
        pair(SIX, "No ."),
        pair("Why ?", OTHER),
        pair("Why ?", "No ."),
        pair("Why ?", "Yes ."),
        pair(6 * "Really ", "Yes ."),  # one word, six times: short; its two sides are in different held-out pairs
        pair(OTHER, SIX),  # queries are compared with queries alone
    ]
    assert drops(train, held_out) == [True, True, True, False, False, False]
    assert drops(train[:1], []) == [False] and drops([], held_out) == []


def test_among_many_is_found_what_one_by_one_is_found() -> None:
    """Texts of up to sixteen words, of a dozen: many are alike."""
    chance = random.Random(0)
    texts = [" ".join(f"w{chance.randrange(12)}" for _ in range(chance.randint(1, 16))) for _ in range(240)]
    pairs = list(map(pair, texts[::2], texts[1::2]))
    held_out, train = pairs[:20], pairs[20:]
    expected = [any(drops([mine], [theirs])[0] for theirs in held_out) for mine in train]
    assert {*expected} == {True, False}
    assert drops(train, held_out) == expected
    alone = [[vars(near_leakage([mine], [theirs])) for mine in train] for theirs in held_out]
    for name, flags in vars(near_leakage(train, held_out)).items():
        assert flags.tolist() == [any(found[name][0] for found in row) for row in alone], name


@pytest.mark.parametrize("size", [6, 7, 8, 29, 39, 40, 41, 59, 60, 61, 62, 89, 90, 91, 92, 150])
def test_texts_of_any_size_that_are_just_similar_enough_are_found(size: int) -> None:
    """Around the sizes at which texts are filed in another way, with a partner of every size that can be similar."""
    chance = random.Random(size)
    mine = [f"w{number}" for number in range(size)]
    for other in range(max(6, size * 2 // 3 - 1), size * 3 // 2 + 2):
        fewest = -(-2 * (size + other) // 5)  # shared words: 0.4 of both sizes, rounded up
        for shared in (fewest - 1, fewest):
            if 0 < shared <= min(size, other):
                theirs = chance.sample(mine, shared) + [f"v{number}" for number in range(other - shared)]
                found = drops([pair(" ".join(mine), "a")], [pair(" ".join(theirs), "b")])
                assert found == [shared == fewest], (size, other, shared)


def test_exact_leakage_is_word_for_word() -> None:
    train = [pair("a", "b"), pair("c", "d")]
    test = [pair("a", "b"), pair("a", "d"), pair("A", "b"), pair("b", "a"), pair("e", "f")]
    leakage = exact_leakage(train, test)
    assert leakage.queries.tolist() == [True, True, False, False, False]
    assert leakage.responses.tolist() == [True, True, True, False, False]
    assert leakage.pairs.tolist() == [True, False, False, False, False]
    assert leakage.unseen.tolist() == [False, False, False, True, True]
    assert leakage.shares() == {"queries": 0.4, "responses": 0.6, "pairs": 0.2}


@needs_dailydialog
def test_without_what_overlaps_the_lookup_on_dailydialog_falls() -> None:
    train, test = dailydialog("train")[1], dailydialog("test")[1]
    found = drops(train, dailydialog("validation")[1] + test)
    assert sum(found) == 4243
    rest = [each for each, drop in zip(train, found, strict=True) if not drop]
    assert exact_leakage(rest, test).pairs.sum() == 0
    references = [each.response for each in test]
    assert round(bleu(look_up(rest, [each.query for each in test]), references), 4) == 0.0197  # down from 0.3257
