"""The distance between the paper's rows and a family of scores, on tables made up for it."""

import math

import numpy as np
import pytest

from tests.score.paper_ratios import covered, distance

FAMILY = np.array([[0.1, 0.05, 0.02, 0.01], [0.4, 0.2, 0.08, 0.04]])  # the ratios are the same at every height


def test_rows_with_the_ratios_of_the_family_are_at_no_distance_whatever_their_height() -> None:
    rows = np.array([[0.1, 0.05, 0.02, 0.01], [0.2, 0.1, 0.04, 0.02], [0.3, 0.15, 0.06, 0.03]])
    assert distance(rows, FAMILY) == pytest.approx(0.0, abs=1e-12)


def test_the_distance_is_the_mean_factor_between_the_ratios() -> None:
    assert distance(np.array([[0.2, 0.2, 0.08, 0.04]]), FAMILY) == pytest.approx(math.log(2))
    assert distance(np.array([[0.2, 0.2, 0.04, 0.02]]), FAMILY) == pytest.approx(math.log(2) / math.sqrt(3))


def test_rows_lower_or_higher_than_the_family_are_not_covered() -> None:
    rows = np.array([[each, 0.01, 0.01, 0.01] for each in (0.09, 0.1, 0.3, 0.4, 0.41)])
    assert covered(rows, FAMILY).tolist() == [False, True, True, True, False]
