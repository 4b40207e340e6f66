from __future__ import annotations

import math

import numpy as np
import pytest

from isocenter.evaluation import effective_rank, possible_rank


def test_the_rank_is_the_number_of_directions_that_are_used_alike() -> None:
    assert effective_rank(np.eye(5)) == pytest.approx(5, rel=1e-4)
    assert effective_rank(np.ones((5, 8))) == pytest.approx(1, rel=1e-4)
    assert effective_rank(np.diag([1.0, 1.0, 0.0])) == pytest.approx(2, rel=1e-4)


def test_features_without_numbers_have_none() -> None:
    assert math.isnan(effective_rank(np.zeros((4, 3))))
    assert math.isnan(effective_rank(np.full((4, 3), np.nan)))
    assert possible_rank(np.zeros((4, 3))) == 3
