"""Measurements of a region beside the published values of the IBSI's digital phantom, and beside geometry."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import ibsi

# The digital phantom of the IBSI reference manual, slice after slice; 0 lies outside the region. Voxels of 2 mm.
PHANTOM = [
    [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
    [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
    [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
    [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
]
LEVELS = np.moveaxis(np.array(PHANTOM), 0, -1)
# As published, to three digits; of texture the values of the matrix merged over 13 directions in 3D.
PUBLISHED = {
    "morph_volume": 556,
    "morph_area_mesh": 388,
    "morph_vol_approx": 592,
    "morph_diam": 13.1,
    "morph_pca_maj_axis": 11.4,
    "morph_pca_min_axis": 9.31,
    "morph_pca_least_axis": 8.54,
    "morph_pca_elongation": 0.816,
    "morph_pca_flatness": 0.749,
    "stat_mean": 2.15,
    "stat_var": 3.05,
    "stat_skew": 1.08,
    "stat_kurt": -0.355,
    "stat_median": 1,
    "stat_p10": 1,
    "stat_p90": 4,
    "stat_iqr": 3,
    "stat_range": 5,
    "ih_entropy": 1.27,
    "ih_uniformity": 0.512,
    "cm_joint_max": 0.509,
    "cm_joint_var": 3.13,
    "cm_joint_entr": 2.57,
    "cm_contrast": 5.12,
    "cm_inv_diff": 0.688,
    "cm_corr": 0.183,
    "cm_clust_tend": 7.41,
    "cm_clust_shade": 17.4,
}


def of_phantom() -> dict[str, float]:
    inside = LEVELS > 0
    return {
        **ibsi.region_morphology(inside, (2, 2, 2)),
        **ibsi.intensity_statistics(LEVELS[inside].astype(float)),
        **ibsi.histogram_features(LEVELS[inside]),
        **ibsi.texture_features(LEVELS, inside),
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_measurement_of_the_digital_phantom_is_the_published_one(name):
    assert of_phantom()[name] == pytest.approx(PUBLISHED[name], rel=0.0055, abs=0.0005)


def test_every_measurement_is_checked_there_and_some_twenty_five_there_are():
    assert set(of_phantom()) == set(PUBLISHED)
    assert len(PUBLISHED) == 28


def test_the_mesh_of_a_ball_has_its_volume_and_of_a_turned_or_split_region_the_same_measures_as_before():
    grid = np.indices((40, 40, 30)) - np.array([20, 20, 15])[:, None, None, None]
    away = np.sqrt(((grid.T * [0.5, 0.5, 0.7]) ** 2).sum(axis=-1)).T
    found = ibsi.region_morphology(away < 8, (0.5, 0.5, 0.7))
    assert found["morph_volume"] == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.01)
    assert found["morph_area_mesh"] == pytest.approx(
        4 * np.pi * 8**2, rel=0.1
    )  # steps of voxels are longer than a ball
    region = np.random.default_rng(0).random((6, 7, 5)) < 0.5
    volume, area = (ibsi.region_morphology(region, (1, 2, 3))[name] for name in ("morph_volume", "morph_area_mesh"))
    turned = ibsi.region_morphology(region.transpose(2, 0, 1)[:, ::-1], (3, 1, 2))
    assert (turned["morph_volume"], turned["morph_area_mesh"]) == pytest.approx((volume, area))
    # A single voxel is an octahedron between the centres of its neighbours.
    point = ibsi.region_morphology(np.ones((1, 1, 1), dtype=bool), (1, 1, 1))
    assert (point["morph_volume"], point["morph_area_mesh"]) == pytest.approx((1 / 6, np.sqrt(3)))


def test_of_a_picture_the_same_measurements_hold_in_its_plane():
    rows, columns = np.indices((101, 101)) - 50.0
    ellipse = (rows / 40) ** 2 + (columns / 20) ** 2 <= 1
    found = ibsi.region_measurements(np.where(ellipse, rows, 0.0), ellipse, (0.5, 0.5))
    assert found["morph_vol_approx"] == pytest.approx(np.pi * 20 * 10, rel=0.01)
    assert found["morph_pca_maj_axis"] == pytest.approx(40, rel=0.01)
    assert found["morph_pca_elongation"] == pytest.approx(0.5, rel=0.01)
    assert found["morph_diam"] == pytest.approx(40.5, rel=0.01)
    assert "morph_pca_flatness" not in found


def test_measurements_do_not_depend_on_the_unit_of_intensities_but_for_the_statistics_themselves():
    rng = np.random.default_rng(0)
    image, inside = rng.normal(size=(12, 12, 8)), np.ones((12, 12, 8), dtype=bool)
    first, other = (ibsi.region_measurements(one, inside, (1, 1, 2)) for one in (image, 100 * image + 7))
    for name in first:
        if not name.startswith("stat_") or name in ("stat_skew", "stat_kurt"):
            assert other[name] == pytest.approx(first[name], rel=1e-6)


def test_one_voxel_an_even_region_and_none_are_measured_or_empty():
    point = np.zeros((4, 4), dtype=bool)
    assert ibsi.region_measurements(np.ones((4, 4)), point, (1, 1)) == {}
    point[1, 1] = True
    assert ibsi.region_measurements(np.ones((4, 4)), point, (1, 1))["morph_vol_approx"] == 1
    even = ibsi.region_measurements(np.ones((4, 4)), np.ones((4, 4), dtype=bool), (1, 1))
    assert all(np.isfinite(value) for value in even.values())
    assert even["cm_contrast"] == 0


def test_of_several_channels_each_has_its_values_and_the_region_its_shape_once():
    values = {"T1": LEVELS.astype(float), "T2": 10.0 - LEVELS}
    values["T2"][0, 0, 0] = np.nan  # there no channel is measured
    both = ibsi.channel_measurements(values, LEVELS > 0, (2.0, 2.0, 2.0))
    region = (LEVELS > 0) & np.isfinite(values["T2"])
    for name, channel in values.items():
        own = ibsi.region_measurements(channel, region, (2.0, 2.0, 2.0))
        assert {key: both[key if key.startswith("morph") else f"{name} {key}"] for key in own} == own
    assert len(both) == 2 * len(own) - sum(key.startswith("morph") for key in own)
