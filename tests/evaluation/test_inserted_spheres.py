from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from hilum.evaluation import inserted_spheres
from hilum.evaluation.inserted_spheres import CONTRASTS, DIAMETERS, InsertedSphere
from hilum.values import Geometry

SHAPE = (48, 44, 40)
GRID = Geometry.of_spacing(SHAPE, (1.0, 1.0, 1.2))


def body() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.zeros(SHAPE) + rng.normal(0, 1, SHAPE)
    values[4:-4, 4:-4, 4:-4] += 100
    return values


def chosen(seed=0, grid=GRID, values=None):
    values = body() if values is None else values
    return inserted_spheres.choose_spheres(values, grid, np.ones(values.shape, bool), np.random.default_rng(seed))


def recovery_of(change) -> dict[float, float]:
    """{size: recovery} of a change of images."""
    values, spheres = body(), chosen()
    marked = inserted_spheres.insert_spheres(values, spheres, GRID)
    found = inserted_spheres.contrasts_found(change(marked), change(values), spheres, GRID)
    pairs = [(one.size, one.contrast, got) for one, got in zip(spheres, found, strict=True)]
    return {
        size: inserted_spheres.recovery_slope(
            *zip(*[(put, got) for own, put, got in pairs if own == size], strict=True)
        )
        for size in DIAMETERS
    }


def test_a_sphere_fills_its_volume_on_a_grid_of_unlike_steps():
    for diameter in (3.0, 8.0):
        sphere = InsertedSphere((20.0, 20.0, 20.0), diameter, 1.0, diameter, 0.1)
        _, filled = sphere.profile(GRID)
        assert filled.sum() * 1.2 == pytest.approx(np.pi / 6 * diameter**3, rel=0.05)


def test_there_is_a_sphere_of_each_size_and_contrast_apart_and_in_the_body():
    spheres = chosen()
    assert sorted((one.size, one.share) for one in spheres) == sorted((d, c) for d in DIAMETERS for c in CONTRASTS)
    marked = inserted_spheres.insert_spheres(
        np.zeros(SHAPE), [InsertedSphere(s.centre, s.diameter, 1, s.size, 0) for s in spheres], GRID
    )
    assert marked.max() == pytest.approx(1)  # none lies on another
    assert ndimage.label(marked)[1] == len(spheres)
    assert all(body()[tuple(int(place) for place in one.centre)] > 50 for one in spheres)
    assert chosen() == spheres != chosen(seed=1)


def test_what_changes_nothing_recovers_all_and_half_a_gain_recovers_half():
    assert recovery_of(lambda values: values) == pytest.approx(dict.fromkeys(DIAMETERS, 1.0), abs=1e-5)
    assert recovery_of(lambda values: 0.5 * values + 7) == pytest.approx(dict.fromkeys(DIAMETERS, 0.5), abs=1e-5)


def test_a_blur_loses_small_spheres_first_and_a_network_that_erases_them_is_seen():
    blurred = recovery_of(lambda values: ndimage.gaussian_filter(values, 1.0))
    assert 0 < blurred[3.0] < blurred[5.0] < blurred[8.0] < 1
    small = [one for one in chosen() if one.size == 3.0]

    def erase(values):
        kept = values.copy()
        for sphere in small:
            region, _ = sphere.profile(GRID)
            kept[region] = 100
        return kept

    assert recovery_of(erase) == pytest.approx({3.0: 0.0, 5.0: 1.0, 8.0: 1.0}, abs=1e-5)


def test_diameters_are_voxels_where_no_size_is_known_and_where_voxels_are_longer():
    picture = np.zeros((64, 64)) + 5
    picture[:2] = 0
    discs = chosen(grid=Geometry.of_pixels((64, 64)), values=picture)
    assert {one.diameter for one in discs} == set(DIAMETERS)
    coarse = chosen(grid=Geometry.of_spacing(SHAPE, (4.0, 4.0, 4.0)))
    assert {one.diameter for one in coarse} == {4 * one for one in DIAMETERS}


def test_an_image_without_room_gets_fewer_spheres_and_an_empty_one_none():
    tiny = np.random.default_rng(0).random((9, 9, 9))
    assert len(chosen(grid=Geometry.of_spacing((9, 9, 9), (3, 3, 3)), values=tiny)) < 9
    none = inserted_spheres.choose_spheres(tiny, GRID, np.zeros(tiny.shape, bool), np.random.default_rng(0))
    assert none == ()
    assert np.isnan(inserted_spheres.recovery_slope([], []))
