"""The bootstrap compared with sacrebleu on lists that are really resampled, and on cases with a known answer."""

import random

import numpy as np
import pytest

from stages.bleu import bleu
from stages.plumbing.errors import StageError
from stages.score.bootstrap import (
    bleu_interval,
    bleu_of_sums,
    loss_interval,
    mean_loss,
    paired_test,
    resampled_bleu,
    sentence_counts,
)  # fmt: skip

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "down", "up", "."]


def texts(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 9))) for _ in range(count)]


def worsened(references: list[str], share: float, seed: int) -> list[str]:
    """The references, with a share of their words replaced."""
    chance = random.Random(seed)
    return [
        " ".join("x" if chance.random() < share else word for word in reference.split()) for reference in references
    ]


def test_counts_of_a_sentence_are_those_by_hand() -> None:
    counts = sentence_counts(["the cat sat down", ""], ["the cat sat up .", "a"])
    assert counts.tolist() == [[4, 5, 3, 2, 1, 0, 4, 3, 2, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_of_summed_counts_is_the_corpus_bleu(order: int) -> None:
    for seed in range(20):
        references = texts(30, seed)
        responses = worsened(references, 0.3, seed)
        sums = sentence_counts(responses, references).sum(axis=0).tolist()
        assert bleu_of_sums(sums, order) == pytest.approx(bleu(responses, references, order), abs=1e-12)


def test_where_no_4_gram_matches_the_sums_are_smoothed_as_the_corpus_is() -> None:
    responses, references = ["the cat sat down", "a"], ["the cat sat up", "b"]
    sums = sentence_counts(responses, references).sum(axis=0).tolist()
    assert bleu_of_sums(sums) == pytest.approx(bleu(responses, references), abs=1e-12)
    assert bleu_of_sums(sums) > 0


def test_each_draw_scores_what_sacrebleu_gives_the_drawn_lists() -> None:
    references = texts(25, 0)
    responses = worsened(references, 0.3, 1)
    scores = resampled_bleu(sentence_counts(responses, references), seed=7, samples=10)
    generator = np.random.default_rng(7)
    for score in scores:
        drawn = generator.integers(25, size=25)
        expected = bleu([responses[index] for index in drawn], [references[index] for index in drawn])
        assert score == pytest.approx(expected, abs=1e-12)


def test_the_interval_leaves_out_a_fortieth_of_the_draws_at_each_end() -> None:
    references = texts(100, 0)
    counts = sentence_counts(worsened(references, 0.3, 1), references)
    low, high = bleu_interval(counts, seed=3)
    draws = resampled_bleu(counts, seed=3)
    assert sum(draw < low for draw in draws) == sum(draw > high for draw in draws) == 25


def test_the_interval_depends_on_the_seed_and_on_nothing_else() -> None:
    references = texts(100, 0)
    counts = sentence_counts(worsened(references, 0.3, 1), references)
    assert bleu_interval(counts, seed=1) == bleu_interval(counts.copy(), seed=1)
    assert bleu_interval(counts, seed=1) != bleu_interval(counts, seed=2)


def test_the_interval_holds_the_score_and_narrows_with_more_pairs() -> None:
    widths = []
    for count in (50, 800):
        references = texts(count, 0)
        responses = worsened(references, 0.3, 1)
        low, high = bleu_interval(sentence_counts(responses, references), seed=0)
        assert low < bleu(responses, references) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2  # for a mean it would be a quarter


def test_perfect_responses_have_no_uncertainty() -> None:
    references = [f"{text} and so on ." for text in texts(20, 0)]
    assert bleu_interval(sentence_counts(references, references), seed=0) == pytest.approx((1.0, 1.0))


def test_a_paired_test_tells_a_real_difference_from_none() -> None:
    references = texts(200, 0)
    good, as_good, bad = (worsened(references, share, seed) for share, seed in ((0.2, 1), (0.2, 2), (0.5, 3)))
    assert paired_test(good, bad, references) < 0.01
    assert paired_test(good, as_good, references) > 0.05
    assert paired_test(good, bad, references) == paired_test(good, bad, references)


def test_a_method_does_not_differ_from_itself() -> None:
    references = texts(20, 0)
    assert paired_test(references, list(references), references) == 1.0


def test_a_paired_test_of_lists_of_different_lengths_is_refused() -> None:
    references = texts(5, 0)
    with pytest.raises(StageError, match="4 responses for 5 references"):
        paired_test(references, references[:4], references)


def test_the_interval_of_a_loss_holds_the_true_one_as_often_as_it_says() -> None:
    """Pairs of many lengths, whose long ones are easier: 200 test sets, of which about 5 in 100 miss the true mean."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        tokens = generator.integers(2, 40, size=count)
        return np.stack([tokens * (3 - tokens / 40 + generator.normal(0, 0.5, size=count)), tokens], axis=1)

    truth = mean_loss(draw(400_000))
    ends = [loss_interval(draw(100), seed, samples=300) for seed in range(200)]
    assert 180 <= sum(low <= truth <= high for low, high in ends) <= 199
