"""The comparison over seeds and test pairs, on made-up counts whose truth is known."""

import random
from functools import cache

import numpy as np
import pytest

from stages.report.seeds import Counts, bleu_of_many, compare_over_seeds, drawn_sums, loss_of_many
from stages.score.bootstrap import SAMPLES, bleu_of_sums, sentence_counts

PAIRS, CASES = 60, 400
NOISE = 2 * (0.05 * 0.95 / CASES) ** 0.5  # two standard deviations of a share of 5 % in so many cases


def system(generator: np.random.Generator, seeds: int, skill: float, seed_noise: float) -> Counts:
    """Counts of one system, [seeds, PAIRS, 10]: its seeds differ, its pairs differ, and each response is a draw."""
    skills = skill + seed_noise * generator.standard_normal((seeds, 1)) + generator.standard_normal((1, PAIRS)) / 2
    rate = 1 / (1 + np.exp(-skills))
    total = np.stack([np.full((seeds, PAIRS), 12 - order) for order in range(4)], -1)
    correct = generator.binomial(total, np.stack([rate ** (order + 1) for order in range(4)], -1))
    words = np.full((seeds, PAIRS, 2), 12)
    return np.concatenate([words, correct, total], -1)


@cache
def cases(seeds: int, gain: float, seed_noise: float, count: int = CASES) -> list[tuple[Counts, Counts]]:
    """Pairs of systems; the first one's skill is higher by `gain`."""
    generator = np.random.default_rng(seeds)
    return [
        (system(generator, seeds, gain, seed_noise), system(generator, seeds, 0.0, seed_noise)) for _ in range(count)
    ]


def found(seeds: int, gain: float, seed_noise: float, count: int = CASES) -> float:
    """The share of cases in which a difference is found."""
    return float(np.mean([compare_over_seeds(*each).p < 0.05 for each in cases(seeds, gain, seed_noise, count)]))


@pytest.mark.parametrize("seed_noise", [0.0, 0.1, 0.4], ids=["no seed noise", "as pair noise", "mostly seed noise"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_without_a_true_difference_one_is_found_in_at_most_5_percent_of_cases(seeds: int, seed_noise: float) -> None:
    assert found(seeds, 0.0, seed_noise) <= 0.05 + NOISE


@pytest.mark.parametrize(("seeds", "gain"), [(2, 1.5), (3, 1.0), (5, 0.5)])
def test_a_clear_difference_is_found(seeds: int, gain: float) -> None:
    assert found(seeds, gain, 0.03, count=50) >= 0.9


def plain_bootstrap(first: Counts, second: Counts, generator: np.random.Generator) -> float:
    """The p-value of a bootstrap that draws seeds like pairs, with replacement and without a correction."""
    n = len(first)
    scores = bleu_of_many(drawn_sums(np.concatenate([first, second]), generator)).reshape(SAMPLES, 2, n)
    times = generator.multinomial(n, [1 / n] * n, size=SAMPLES) / n
    draws = ((scores[:, 0] - scores[:, 1]) * times).sum(-1)
    return float(2 * min((draws <= 0).mean(), (draws >= 0).mean()))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_to_draw_seeds_like_pairs_would_find_differences_that_are_not_there(seeds: int) -> None:
    generator = np.random.default_rng(0)
    wrong = np.mean([plain_bootstrap(*each, generator) < 0.05 for each in cases(seeds, 0.0, 0.4)])
    assert wrong > 0.05 + NOISE


def test_the_interval_has_the_true_difference_and_agrees_with_the_p_value() -> None:
    for first, second in cases(3, 1.0, 0.1, count=50):
        one = compare_over_seeds(first, second)
        assert (one.p < 0.05) == (not one.low <= 0 <= one.high)
        other = compare_over_seeds(second, first)
        assert (other.first, other.second) == (one.second, one.first)


def test_systems_without_a_difference_differ_by_chance() -> None:
    first, _ = cases(3, 0.0, 0.1, count=1)[0]
    assert compare_over_seeds(first, first).p == 1.0


def test_bleu_of_many_corpora_is_sacrebleus() -> None:
    chance = random.Random(0)
    texts = [[" ".join(chance.choice("abcdefg") for _ in range(chance.randint(0, 6))) for _ in range(9)] for _ in "12"]
    counts = sentence_counts(texts[0], texts[1])
    sums = [counts[start:end].sum(0) for start in range(9) for end in range(start + 1, 10)]
    scores = bleu_of_many(np.array(sums, dtype=np.float64))
    assert scores == pytest.approx([bleu_of_sums(each.tolist()) for each in sums])
    assert len({round(float(each), 6) for each in scores}) > 10


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_losses_a_difference_that_is_not_there_is_found_as_rarely(seeds: int) -> None:
    """Two systems with the same loss on pairs of different lengths and hardness; with one seed only pairs are drawn."""
    generator = np.random.default_rng(seeds)
    errs = 0
    for _ in range(200):
        tokens = generator.integers(2, 30, size=PAIRS)
        hard = generator.normal(3, 1, size=PAIRS)
        losses = (hard + generator.normal(0, 0.3, size=(2, seeds, PAIRS))) * tokens
        tables = np.stack([losses, np.broadcast_to(tokens, losses.shape)], axis=-1)
        errs += compare_over_seeds(tables[0], tables[1], loss_of_many).p < 0.05
    assert errs <= 0.05 * 200 + 10


def test_a_difference_of_losses_is_found_where_pairs_differ_far_more() -> None:
    generator = np.random.default_rng(0)
    tokens, hard = np.full(PAIRS, 10), generator.normal(3, 1, size=PAIRS)
    own = np.stack([hard * tokens, tokens], axis=-1)[None]
    others = np.stack([(hard - 0.1 + generator.normal(0, 0.1, size=PAIRS)) * tokens, tokens], axis=-1)[None]
    found = compare_over_seeds(own, others, loss_of_many)
    assert found.first - found.second == pytest.approx(0.1, abs=0.05)
    assert 0 < found.low < found.high
    assert found.p < 0.01
