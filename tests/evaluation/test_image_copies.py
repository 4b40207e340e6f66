"""Synthetic images beside those that trained their model."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.evaluation import image_copies


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


def test_a_mix_of_classes_is_no_membership() -> None:
    rng = np.random.default_rng(3)
    classes = ["rare"] * 10 + ["common"] * 90 + ["rare"] * 50 + ["common"] * 50
    losses = np.where(np.array(classes) == "rare", 5, 1) + rng.uniform(0, 1, 200)
    people = [f"p{n}" for n in range(200)]
    mixed = image_copies.membership_auroc(losses[:100], losses[100:], people, seed=0)
    within = image_copies.membership_auroc(losses[:100], losses[100:], people, classes, seed=0)
    assert mixed.value > 0.65
    assert within.low is not None and within.high is not None and within.low < 0.5 < within.high
    pairs = [
        (known < other) + (known == other) / 2
        for known, own in zip(losses[:100], classes[:100], strict=True)
        for other, name in zip(losses[100:], classes[100:], strict=True)
        if own == name
    ]
    assert within.value == pytest.approx(np.mean(pairs))


def test_without_a_class_of_both_nothing_is_said_of_membership() -> None:
    lost = image_copies.membership_auroc([1.0], [2.0], ["a", "b"], ["one", "other"], seed=0)
    assert np.isnan(lost.value)
    assert "no class has both" in lost.method


def test_features_count_in_deviations_of_the_training_images() -> None:
    trained = np.random.default_rng(4).normal(size=(30, 2)) * [1, 1000]
    known = image_copies.KnownImages.from_images(trained, trained + np.array([5, 0]), is_scaled=True)
    shifted = trained[3] + [0, trained[:, 1].std()]
    distance, place = known.nearest(shifted)
    assert (distance, place) == image_copies.KnownImages(known.trained, np.ones(()), 0).nearest(shifted / known.scale)
    assert known.nearest(trained[3]) == (pytest.approx(0, abs=1e-12), 3)
    assert known.threshold > 0


def test_fewer_than_twenty_images_are_a_risk_of_copies() -> None:
    assert "may be copies" in image_copies.copy_risk(19)
    assert image_copies.copy_risk(20) == ""
