"""Drawn images beside those that trained their model."""

from __future__ import annotations

import numpy as np
import pytest

from isocenter.evaluation import image_copies


def test_a_copy_has_the_distance_0_and_names_its_original() -> None:
    trained = np.random.default_rng(0).normal(100, 5, (40, 3, 4))
    images = np.stack([trained[7], trained[21] + 2])
    distances, places = image_copies.nearest_distances(images, trained)
    assert places.tolist() == [7, 21]
    assert distances.tolist() == [0, pytest.approx(2)]


def test_one_unseen_image_in_a_hundred_is_nearer_than_the_threshold() -> None:
    distances = np.random.default_rng(1).uniform(size=2000)
    assert (distances < image_copies.copy_threshold(distances)).mean() == pytest.approx(0.01, abs=0.001)


def test_lower_losses_of_training_images_tell_who_trained() -> None:
    rng, people = np.random.default_rng(2), [f"p{n}" for n in range(100)]
    told = image_copies.membership_auroc(rng.uniform(0, 1, 50), rng.uniform(2, 3, 50), people, seed=0)
    assert told.value == 1
    same = rng.uniform(size=50)
    blind = image_copies.membership_auroc(same, same, people, seed=0)
    assert blind.value == 0.5
    assert blind.low is not None and blind.high is not None and blind.low < 0.5 < blind.high
