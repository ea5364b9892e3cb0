"""The bootstrap over dialogues and seeds, on made-up counts whose truth is known."""

import random

import numpy as np
import pytest

from stages.bootstrap import Table, bleu_of_sums, compare, interval, loss_of_sums, sentence_counts
from stages.similarity.bleu import bleu

PAIRS, CASES = 60, 200
NOISE = 2 * (0.05 * 0.95 / CASES) ** 0.5  # two standard deviations of a share of 5 % in so many cases
ALONE = [f"d{number:02}" for number in range(PAIRS)]  # each pair a dialogue of its own


def system(generator: np.random.Generator, seeds: int, skill: float, seed_noise: float) -> Table:
    """Counts of one system, [seeds, PAIRS, 10]: its seeds differ, its pairs differ, and each response is a draw."""
    skills = skill + seed_noise * generator.standard_normal((seeds, 1)) + generator.standard_normal((1, PAIRS)) / 2
    rate = 1 / (1 + np.exp(-skills))
    total = np.stack([np.full((seeds, PAIRS), 12 - order) for order in range(4)], -1)
    correct = generator.binomial(total, np.stack([rate ** (order + 1) for order in range(4)], -1))
    words = np.full((seeds, PAIRS, 2), 12)
    return np.concatenate([words, correct, total], -1)


def found(seeds: int, gain: float, seed_noise: float, count: int = CASES) -> float:
    """The share of pairs of systems, the first one's skill higher by `gain`, in which a difference is found."""
    generator = np.random.default_rng(seeds)
    cases = [[system(generator, seeds, skill, seed_noise) for skill in (gain, 0.0)] for _ in range(count)]
    differences = [compare(first, second, ALONE, bleu_of_sums) for first, second in cases]
    return float(np.mean([not each.low <= 0 <= each.high for each in differences]))


@pytest.mark.parametrize(("seeds", "seed_noise"), [(1, 0.0), (2, 0.4), (3, 0.0)])
def test_without_a_true_difference_one_is_found_in_at_most_5_percent_of_cases(seeds: int, seed_noise: float) -> None:
    """With one seed only dialogues are drawn. To draw seeds like pairs finds 30 % where most noise is between two."""
    assert found(seeds, 0.0, seed_noise) <= 0.05 + NOISE


@pytest.mark.parametrize(("seeds", "gain"), [(2, 1.5), (3, 1.0)])
def test_a_clear_difference_is_found(seeds: int, gain: float) -> None:
    assert found(seeds, gain, 0.03, count=50) >= 0.9


def test_counts_of_a_sentence_are_those_by_hand() -> None:
    counts = sentence_counts(["the cat sat down", "", "b"], [["the cat sat up ."], ["a"], []])
    assert counts.tolist() == [[4, 5, 3, 2, 1, 0, 4, 3, 2, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0] * 10]
    with pytest.raises(ValueError, match="zip"):
        sentence_counts(["a"], [["a"], ["b"]])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_of_many_corpora_is_sacrebleus(order: int) -> None:
    chance = random.Random(0)
    texts = [[" ".join(chance.choice("abcdefg") for _ in range(chance.randint(0, 6))) for _ in range(9)] for _ in "12"]
    counts = sentence_counts(texts[0], [[each] for each in texts[1]])
    places = [(start, end) for start in range(9) for end in range(start + 1, 10)]
    scores = bleu_of_sums(np.array([counts[start:end].sum(0) for start, end in places], dtype=np.float64), order)
    expected = [bleu(texts[0][start:end], texts[1][start:end], order) for start, end in places]
    assert scores == pytest.approx(expected)
    assert len({round(float(each), 6) for each in scores}) > 10


def test_a_difference_of_losses_is_found_where_pairs_differ_far_more() -> None:
    generator = np.random.default_rng(0)
    tokens, hard = np.full(PAIRS, 10), generator.normal(3, 1, size=PAIRS)
    own = np.stack([hard * tokens, tokens], axis=-1)[None]
    others = np.stack([(hard - 0.1 + generator.normal(0, 0.1, size=PAIRS)) * tokens, tokens], axis=-1)[None]
    between = compare(own, others, ALONE, loss_of_sums)
    assert between.first - between.second == pytest.approx(0.1, abs=0.05)
    assert 0 < between.low < between.high
    assert interval(own[0], ["one"] * PAIRS, loss_of_sums, 0) is None, "all draws of one dialogue are the same"
