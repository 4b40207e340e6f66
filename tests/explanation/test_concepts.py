from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import DatasetError
from hilum.explanation import concept_tests


def simulated(seed: int, concepts: int = 3):
    """A pool of features, gradients that lie along the first of them, and concepts of which the first is planted."""
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(60, 16))
    gradients = np.eye(16)[0] + rng.normal(0, 0.3, (40, 16))
    made = {f"random {n}": rng.normal(size=(20, 16)) for n in range(concepts)}
    return pool, gradients, made, rng


def test_the_planted_concept_is_found_with_its_sign_and_no_random_one():
    pool, gradients, made, rng = simulated(0)
    made["planted"] = rng.normal(size=(20, 16)) + 3 * np.eye(16)[0]
    made["its contrary"] = rng.normal(size=(20, 16)) - 3 * np.eye(16)[0]
    found = {one.concept: one for one in concept_tests.tcav(made, pool, gradients, seed=0)}
    assert {name for name, one in found.items() if one.is_found} == {"planted", "its contrary"}
    assert found["planted"].score > 0.95
    assert found["its contrary"].score < 0.05
    assert found["planted"].images == 20
    assert found["planted"].cases == 40


def test_a_concept_is_found_where_images_differ_most_by_what_they_are_answered_with():
    """As after training: classes lie apart along the gradient, which then is the same in every case."""
    rng = np.random.default_rng(5)
    along = np.linspace(0.5, 1.5, 16)

    def images(count: int) -> np.ndarray:
        return np.outer(rng.permutation(np.repeat([-1, 1], count // 2)), along) + rng.normal(0, 0.2, (count, 16))

    made = {"planted": images(20) + 1.2 * along, **{f"random {n}": images(20) for n in range(2)}}
    found = {one.concept: one for one in concept_tests.tcav(made, images(40), np.tile(along, (40, 1)), seed=0)}
    assert {name for name, one in found.items() if one.is_found} == {"planted"}
    assert found["planted"].effect == pytest.approx(1.2 * along @ along, rel=0.5)
    assert found["planted"].score > 0.95


def test_what_the_answer_does_not_go_with_is_not_found_however_clearly_it_shows():
    pool, gradients, made, rng = simulated(1)
    made["elsewhere"] = rng.normal(size=(20, 16)) + 6 * np.eye(16)[5]
    [one] = [
        one
        for one in concept_tests.tcav(made, pool, gradients - gradients.mean(axis=0) + np.eye(16)[0], seed=0)
        if one.concept == "elsewhere"
    ]
    assert not one.is_found


def test_random_concepts_are_found_as_rarely_as_the_level_says():
    alarms = 0
    for seed in range(60):
        pool, gradients, made, _ = simulated(seed + 10)
        alarms += any(one.is_found for one in concept_tests.tcav(made, pool, gradients, seed=seed))
    assert alarms <= 7


def test_more_features_than_images_are_no_obstacle():
    rng = np.random.default_rng(3)
    pool, planted = rng.normal(size=(40, 300)), rng.normal(size=(15, 300))
    planted[:, :5] += 3
    gradients = np.r_[np.ones(5), np.zeros(295)] + rng.normal(0, 0.1, (30, 300))
    [one] = concept_tests.tcav({"planted": planted}, pool, gradients, seed=0)
    assert one.is_found


def test_a_concept_of_three_images_is_refused_and_so_is_a_small_pool():
    pool, gradients, made, _ = simulated(4)
    with pytest.raises(DatasetError, match=r"few: the concept has 3 images.*10 or more"):
        concept_tests.tcav({**made, "few": np.ones((3, 16))}, pool, gradients, seed=0)
    with pytest.raises(DatasetError, match="Explain 20 images"):
        concept_tests.tcav(made, pool[:12], gradients, seed=0)
