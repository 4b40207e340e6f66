from __future__ import annotations

import numpy as np
import pytest

from hilum.belief import voxel_calibration
from hilum.belief.voxel_calibration import VoxelSample, VoxelSampler
from hilum.values import Geometry


def image(shape: tuple[int, ...], spacing: float = 1.0) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """A ball of label 2 in one of label 1, and outputs of three channels."""
    away = np.sqrt(sum(((index - size / 2) / size) ** 2 for index, size in zip(np.indices(shape), shape, strict=True)))
    labels = (away < 0.3).astype(np.uint8) + (away < 0.15)
    outputs = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    return Geometry(shape, np.diag([spacing] * len(shape) + [1])), labels, outputs


def sampled(geometry: Geometry, labels: np.ndarray, outputs: np.ndarray, rows: int, most: int):
    sampler = VoxelSampler(geometry, most)
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        region = (part, *(slice(0, size) for size in geometry.shape[1:]))
        sampler.take(region, labels[part], outputs[:, part])
    return VoxelSample.from_record(sampler.sample)


@pytest.mark.parametrize("shape", [(60, 60, 60), (400, 500)])
def test_weighted_sums_over_a_sample_are_those_of_the_image_for_any_label(shape):
    geometry, labels, outputs = image(shape)
    sample = sampled(geometry, labels, outputs, 20, 20_000)
    assert len(sample.weights) == pytest.approx(20_000, rel=0.2)
    assert sample.weights.sum() == pytest.approx(labels.size, rel=0.02)
    for value in (0, 1, 2):
        assert sample.weights[sample.at(labels) == value].sum() == pytest.approx((labels == value).sum(), rel=0.04)
    assert np.array_equal(sample.outputs.T, outputs[(slice(None), *sample.places.T)])


def test_about_half_of_a_sample_lies_near_edges_however_few_voxels_do():
    geometry, labels, outputs = image((80, 80, 80), spacing=4.0)
    sample = sampled(geometry, labels, outputs, 80, 10_000)
    near = sample.at(voxel_calibration.is_near_edge(labels, geometry))
    assert near.sum() == 5000
    assert voxel_calibration.is_near_edge(labels, geometry).mean() < 0.2


def test_an_image_of_few_voxels_is_its_own_sample():
    geometry, labels, outputs = image((20, 20, 20))
    sample = sampled(geometry, labels, outputs, 7, 50_000)
    assert sorted(map(tuple, sample.places.tolist())) == sorted(np.ndindex(geometry.shape))
    assert np.array_equal(sample.weights, np.ones(20**3))


def test_the_same_image_gives_the_same_sample():
    geometry, labels, outputs = image((50, 50, 50))
    first, again = (sampled(geometry, labels, outputs, 10, 5000) for _ in range(2))
    assert np.array_equal(first.places, again.places)
    assert np.array_equal(first.outputs, again.outputs)


def test_edges_are_near_within_five_millimetres_along_every_axis():
    labels = np.zeros((30, 30), np.uint8)
    labels[10:20, 10:20] = 1
    near = voxel_calibration.is_near_edge(labels, Geometry((30, 30), np.diag([1.0, 2.5, 1.0])))
    # Voxels 9, 10 and 19, 20 are at the edges: 5 voxels of 1 mm, 2 of 2.5 mm.
    assert np.flatnonzero(near.any(axis=1)).tolist() == list(range(4, 26))
    assert np.flatnonzero(near.any(axis=0)).tolist() == list(range(7, 23))
    assert not voxel_calibration.is_near_edge(np.zeros((30, 30), np.uint8), Geometry((30, 30), np.eye(3))).any()
