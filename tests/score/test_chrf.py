"""chrF worked out by hand, and sacrebleu's signature."""

import pytest

from stages.score.chrf import chrf, signature


def f_score(precision: float, recall: float) -> float:
    """F with recall counted twice."""
    return 5 * precision * recall / (4 * precision + recall)


def test_chrf_is_the_f_score_of_the_mean_precision_and_recall_of_characters() -> None:
    # "ab" against "abc", white space left out: 1-grams 2/2 and 2/3, 2-grams 1/1 and 1/2; it has no longer ones
    assert chrf(["a b"], ["a bc"]) == pytest.approx(f_score(1.0, (2 / 3 + 1 / 2) / 2), abs=1e-9)


def test_chrf_is_one_for_the_reference_and_zero_for_nothing_shared() -> None:
    assert chrf(["the cat", "sat"], ["the cat", "sat"]) == pytest.approx(1.0)
    assert chrf(["xyz"], ["abc"]) == 0.0
    assert chrf([""], ["abc"]) == 0.0


def test_the_signature_names_all_that_chrf_depends_on() -> None:
    assert signature() == "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"
