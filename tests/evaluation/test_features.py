from __future__ import annotations

import math

import numpy as np
import pytest

from hilum.evaluation import feature_rank


def test_the_rank_is_the_number_of_directions_that_are_used_alike() -> None:
    assert feature_rank.effective_rank(np.eye(5)) == pytest.approx(4, rel=1e-4)
    assert feature_rank.effective_rank(np.outer([1.0, -1.0, 2.0, -2.0], np.ones(8))) == pytest.approx(1, rel=1e-4)


def test_a_part_that_all_images_have_in_common_does_not_count() -> None:
    assert feature_rank.effective_rank(np.eye(5) + 50) == pytest.approx(4, rel=1e-4)


def test_features_that_differ_by_rounding_are_the_same() -> None:
    noise = np.random.default_rng(0).normal(size=(32, 8))
    assert feature_rank.effective_rank(np.ones((32, 8)) + 1e-6 * noise) == 1


def test_features_without_numbers_have_none() -> None:
    assert math.isnan(feature_rank.effective_rank(np.zeros((4, 3))))
    assert math.isnan(feature_rank.effective_rank(np.full((4, 3), np.nan)))
    assert feature_rank.possible_rank(np.zeros((4, 3))) == 3
