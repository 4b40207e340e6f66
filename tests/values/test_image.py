"""An image: voxels that fit their grid, whole when made, the same after crossing a process."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

from hilum.errors import GeometryError, HilumError
from hilum.values import Array, Deferred, Geometry, Image, LazyMapping, Source
from strategies import geometries, images

GRID = Geometry((2, 3, 4), np.eye(4))
READS: list[str] = []


def ramp(shape: tuple[int, ...]) -> Array:
    READS.append("whole")
    return np.arange(np.prod(shape)).reshape(shape)


def part(shape: tuple[int, ...], region: tuple[slice, ...]) -> Array:
    READS.append("part")
    return np.arange(np.prod(shape)).reshape(shape)[region]


def deferred(shape: tuple[int, ...]) -> Deferred:
    return Deferred(shape, np.dtype(np.int64), partial(ramp, shape), partial(part, shape))


@given(images(geometries()))
def test_the_shape_is_channels_then_frames_then_space(image: Image) -> None:
    frames = () if image.frames is None else (image.frames,)
    assert image.shape == (len(image.channels), *frames, *image.geometry.shape)
    assert image.data.dtype == image.dtype


@given(images(geometries()))
def test_an_image_is_the_same_after_crossing_a_process(image: Image) -> None:
    again = pickle.loads(pickle.dumps(image))  # noqa: S301
    assert_array_equal(again.data, image.data)
    assert again.geometry.equals(image.geometry, 0)
    assert (again.channels, again.times, again.notes) == (image.channels, image.times, image.notes)
    with pytest.raises(TypeError):
        again.facts["unit"] = "HU"


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2, 3), (1, 2, 3, 5), (1, 1, 1, 2, 3, 4)])
def test_voxels_that_do_not_fit_the_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"on a grid of \(2, 3, 4\)"):
        Image(np.zeros(shape), GRID)


def test_a_refusal_names_the_file() -> None:
    with pytest.raises(GeometryError, match=r"^head\.nii: "):
        Image(np.zeros((1, 2, 2, 2)), GRID, source=Source("nifti", ("head.nii",)))


def test_channels_are_named_each_once() -> None:
    assert Image(np.zeros((2, 2, 3, 4)), GRID).channels == ("0", "1")
    assert Image(np.zeros((2, 2, 3, 4)), GRID, channels=("T1", "T2")).channels == ("T1", "T2")
    with pytest.raises(GeometryError, match="2 channels named"):
        Image(np.zeros((2, 2, 3, 4)), GRID, channels=("T1",))


def test_each_frame_has_one_time() -> None:
    assert Image(np.zeros((1, 2, 2, 3, 4)), GRID, times=(0.0, 1.0)).frames == 2
    for shape in ((1, 3, 2, 3, 4), (1, 2, 3, 4)):
        with pytest.raises(GeometryError, match="at 2 times"):
            Image(np.zeros(shape), GRID, times=(0.0, 1.0))


def test_padding_and_what_is_no_number_are_no_measurement() -> None:
    voxels = np.array([-2000, -1999, -1000, 0, np.nan, np.inf]).reshape(1, 6)
    image = Image(voxels, Geometry.of_pixels((6,)), padding=(-2000, -1999))
    assert_array_equal(image.valid[0], [False, False, True, True, False, False])
    assert_array_equal(image.data, voxels)  # kept as it is


def test_deferred_voxels_are_read_when_asked_for_and_no_more_of_them() -> None:
    READS.clear()
    image = Image(deferred((1, 2, 3, 4)), GRID)
    assert image.shape == (1, 2, 3, 4) and image.dtype == np.int64 and "2 x 3 x 4" in repr(image)
    assert READS == []
    region = (slice(0, 1), slice(1, 2), slice(0, 3), slice(2, 4))
    assert_array_equal(image.pixels[region], np.arange(24).reshape(1, 2, 3, 4)[region])
    assert READS == ["part"]
    assert image.data.sum() == 276 and READS == ["part", "whole"]


def test_deferred_voxels_without_a_short_way_are_cut_from_the_whole() -> None:
    voxels = Deferred((2, 3), np.dtype(np.int64), partial(ramp, (2, 3)))
    assert_array_equal(voxels[(slice(0, 1), slice(1, 3))], [[1, 2]])
    assert np.asarray(voxels, dtype=np.float32).dtype == np.float32


def test_other_voxels_keep_everything_else() -> None:
    image = Image(np.zeros((1, 2, 3, 4)), GRID, modality="CT", notes=("odd",), facts={"unit": "HU"})
    mask = image.with_pixels(np.ones((1, 2, 3, 4), np.uint8))
    assert (mask.modality, mask.notes, mask.facts["unit"]) == ("CT", ("odd",), "HU")
    assert mask.geometry is image.geometry and image.data.sum() == 0
    with pytest.raises(GeometryError):
        image.with_pixels(np.ones((1, 2, 3, 5)))


def test_what_a_file_says_cannot_be_changed_afterwards() -> None:
    facts = {"unit": "HU"}
    image = Image(np.zeros((1, 2, 3, 4)), GRID, facts=facts)
    facts["unit"] = "mSv"
    assert image.facts["unit"] == "HU"
    with pytest.raises(TypeError):
        image.facts["unit"] = "mSv"  # type: ignore[index]


def test_a_lazy_mapping_reads_a_value_each_time_and_only_then() -> None:
    READS.clear()
    values = LazyMapping({"a": partial(ramp, (2,)), "b": partial(ramp, (3,))})
    assert list(values) == ["a", "b"] and len(values) == 2 and "b" in values and "c" not in values
    assert READS == []
    assert values["a"].shape == (2,)
    assert pickle.loads(pickle.dumps(values))["b"].shape == (3,)  # noqa: S301


def test_an_error_says_what_where_and_what_to_do_and_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(GeometryError("no grid.", "a.nii", "Mend it.")))  # noqa: S301
    assert str(error) == "a.nii: no grid. Mend it."
    assert isinstance(error, HilumError) and error.remedy == "Mend it."
