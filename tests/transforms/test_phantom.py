"""Simulated patients: the same for the same numbers, and like patients where it matters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from hilum.transforms import phantoms
from hilum.values import Image

PATIENTS = range(12)


@pytest.fixture(scope="module")
def cohort() -> list[tuple[Image, Image]]:
    return [phantoms.make_phantom(0, patient) for patient in PATIENTS]


def test_the_same_numbers_give_the_same_patient(cohort: list[tuple[Image, Image]]) -> None:
    again, mask = phantoms.make_phantom(0, 3)
    np.testing.assert_array_equal(again.data, cohort[3][0].data)
    np.testing.assert_array_equal(mask.data, cohort[3][1].data)
    assert again.geometry.equals(cohort[3][0].geometry, tolerance=0.0)


@pytest.mark.parametrize("other", [(1, 3, 0), (0, 4, 0), (0, 3, 1)], ids=["seed", "patient", "visit"])
def test_another_number_gives_another_image(other: tuple[int, int, int], cohort: list[tuple[Image, Image]]) -> None:
    image, _ = phantoms.make_phantom(*other)
    assert not image.geometry.equals(cohort[3][0].geometry, tolerance=0.1)


def test_the_anatomy_stays_the_patients_own_from_visit_to_visit(cohort: list[tuple[Image, Image]]) -> None:
    """Volumes in ml: equal for one person up to the sampling of two grids, unlike for two people."""

    def volumes(mask: Image) -> np.ndarray:
        voxel = np.prod(mask.geometry.steps) / 1000
        return np.array([np.count_nonzero(mask.data == value) for value in (1, 2)]) * voxel

    visits = np.array(
        [[volumes(phantoms.make_phantom(0, patient, visit)[1]) for visit in (0, 1)] for patient in PATIENTS]
    )
    np.testing.assert_allclose(visits[:, 1], visits[:, 0], rtol=0.06)
    assert np.ptp(visits[:, 0].sum(axis=1)) > 0.5


def test_image_and_labels_lie_on_one_grid_of_16_bits(cohort: list[tuple[Image, Image]]) -> None:
    for image, mask in cohort:
        assert mask.geometry.equals(image.geometry, tolerance=0.0)
        assert image.dtype == np.uint16
        assert [label.name for label in mask.labels] == ["front", "back"]


def test_both_compartments_are_whole_and_away_from_the_edge(cohort: list[tuple[Image, Image]]) -> None:
    for _, mask in cohort:
        inner = np.pad(mask.data[0][1:-1, 1:-1, 1:-1], 1)
        for value in (1, 2):
            here = mask.data[0] == value
            assert ndimage.label(here)[1] == 1
            np.testing.assert_array_equal(inner == value, here)


def test_the_front_lies_before_the_back_however_the_slices_run(cohort: list[tuple[Image, Image]]) -> None:
    """+y is towards the patient's front in RAS."""
    for _, mask in cohort:
        front, back = (mask.geometry.to_world(np.argwhere(mask.data[0] == value)).mean(axis=0) for value in (1, 2))
        assert front[1] - back[1] > 8


def test_orientation_and_spacing_differ_between_patients(cohort: list[tuple[Image, Image]]) -> None:
    assert len({image.geometry.orientation for image, _ in cohort}) > 2
    assert len({image.geometry.steps for image, _ in cohort}) == len(cohort)
    assert all(image.geometry.is_oblique for image, _ in cohort)


def test_every_grid_is_right_handed(cohort: list[tuple[Image, Image]]) -> None:
    assert all(np.linalg.det(image.geometry.affine) > 0 for image, _ in cohort)


def test_front_and_back_differ_in_brightness_but_less_than_the_noise_of_a_voxel_would_need() -> None:
    """One voxel does not give the answer away: a network has something to learn."""
    image, mask = phantoms.make_phantom(0, 0)
    front, back = (image.data[mask.data == value].astype(float) for value in (1, 2))
    apart = (back.mean() - front.mean()) / front.std()
    assert 0.5 < apart < 5
