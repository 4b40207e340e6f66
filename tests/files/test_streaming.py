"""What is written part by part is what is written of a whole, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.files import _voxel_files, file_formats
from hilum.files.result_images import TakenProbabilities
from hilum.values import Deferred, Geometry, Image, Label
from strategies import geometries


def deferred(array: np.ndarray) -> Deferred:
    return Deferred(array.shape, array.dtype, lambda: array, array.__getitem__)


@given(
    geometries(), st.sampled_from(["u1", "i2", "f4"]), st.sampled_from([None, 3]), st.sampled_from(["nii", "nii.gz"])
)
def test_a_volume_that_is_not_held_becomes_the_same_file(tmp_path_factory, geometry, kind, frames, suffix):
    shape = (1, *geometry.shape) if frames is None else (1, frames, *geometry.shape)
    values = np.random.default_rng(0).integers(0, 200, shape).astype(kind)
    folder = tmp_path_factory.mktemp("written")
    file_formats.write(Image(values, geometry), folder / f"held.{suffix}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_voxel_files.iterate_slices, "__defaults__", (1,))  # a slice at a time
        file_formats.write(Image(deferred(values), geometry), folder / f"streamed.{suffix}")
    assert (folder / f"streamed.{suffix}").read_bytes() == (folder / f"held.{suffix}").read_bytes()


def test_probabilities_lie_where_they_were_told_and_the_rest_is_background(tmp_path):
    geometry = Geometry((5, 4, 3), np.diag([-1.0, 1, 2, 1]))
    source = Image(np.zeros((1, 5, 4, 3), np.int16), geometry)
    path, region = tmp_path / "probable.nii.gz", (slice(0, 5), slice(1, 3), slice(1, 2))
    probabilities = np.full((2, 5, 2, 1), 0.25, np.float32)
    probabilities[0] = 0.75
    taken = TakenProbabilities((Label(1, "lesion"),), source, tmp_path)
    taken(region, probabilities)
    assert taken.write(path)
    found = file_formats.read(path).data[0]
    expected = np.zeros((2, 5, 4, 3), np.float32)
    expected[0] = 1
    expected[(slice(None), *region)] = probabilities
    assert_array_equal(found, expected)
