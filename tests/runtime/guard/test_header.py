"""The facts that a header states of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.runtime.guard import image_gate, image_observation
from hilum.runtime.guard.image_observation import Observation
from hilum.values import Geometry, Image


def turned(degrees: float) -> np.ndarray:
    """About the axis from left to right."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def slices(*, across: int = 2, spacing: float = 5.0, degrees: float = 0.0, **changes: object) -> Image:
    """Slices of 1 mm pixels, which lie so far apart along an axis of the file."""
    steps = np.ones(3)
    steps[across] = spacing
    affine = np.eye(4)
    affine[:3, :3] = turned(degrees) @ np.diag(steps)
    shape = (8, 8, 8)
    return Image(np.zeros((1, *shape), np.float32), replace(Geometry(shape, affine), **changes))


@pytest.mark.parametrize(("across", "plane"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
def test_the_plane_is_that_across_which_slices_lie_apart(across, plane):
    assert image_observation.header_facts(slices(across=across)).words["plane"] == plane


@pytest.mark.parametrize(
    ("degrees", "plane"), [(20, "axial"), (-30, "axial"), (45, "oblique"), (65, "coronal"), (90, "coronal")]
)
def test_slices_that_are_turned_far_from_every_plane_are_oblique(degrees, plane):
    assert image_observation.header_facts(slices(degrees=degrees)).words["plane"] == plane


def test_the_plane_of_a_tilted_gantry_is_that_of_its_slices():
    sheared = np.diag([1.0, 1.0, 5.0, 1.0])
    sheared[1, 2] = 8.0  # from slice to slice so far to the front: their axis alone would be coronal
    assert (
        image_observation.header_facts(Image(np.zeros((1, 8, 8, 8)), Geometry((8, 8, 8), sheared))).words["plane"]
        == "axial"
    )


def test_a_single_slice_has_a_plane_whatever_its_thickness():
    affine = np.eye(4)
    assert (
        image_observation.header_facts(Image(np.zeros((1, 8, 1, 8)), Geometry((8, 1, 8), affine))).words["plane"]
        == "coronal"
    )


def test_no_plane_is_known_of_even_voxels_without_sides_and_of_pictures():
    for image in (
        slices(spacing=1.2),
        slices(oriented=False),
        Image(np.zeros((1, 8, 8)), Geometry.of_pixels((8, 8))),
    ):
        assert "plane" not in image_observation.header_facts(image).words


def test_slices_of_another_plane_are_refused():
    rng = np.random.default_rng(0)

    def seen(image: Image) -> Observation:
        sample = rng.normal(size=(1, 500)).astype(np.float32)
        return Observation(image_observation.header_facts(image), sample, image_observation.window_composition(sample))

    made = image_gate.fit_guard(
        [seen(slices()) for _ in range(70)], [seen(slices()) for _ in range(30)], 0.01, exact=True
    )
    assert made is not None
    sagittal = seen(slices(across=0))
    assert made.verdict(sagittal)[1] == "its plane is sagittal; of the training cases it was axial"
    assert made.verdict(seen(slices()))[1] is None
    even = seen(slices(spacing=1.0))
    assert "plane" not in str(made.verdict(even)[1])
