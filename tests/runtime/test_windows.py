from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from monai.inferers import sliding_window_inference
from numpy.testing import assert_allclose, assert_array_equal

from hilum.runtime.preprocessing.protocol import SliceOrder
from hilum.runtime.windows import averaging, slide
from hilum.runtime.windows import slide as windows
from hilum.values import Array

shapes = st.one_of(*[st.tuples(*[st.integers(1, 11)] * n) for n in (2, 3)])
overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.75])
merges = st.sampled_from(["gaussian", "mean", "nnunet", "monai_gaussian", "monai_constant"])


@st.composite
def images_and_patches(draw: st.DrawFn) -> tuple[Array, tuple[int, ...]]:
    shape = draw(shapes)
    patch = draw(st.tuples(*[st.integers(1, 8)] * len(shape)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.normal(size=(2, *shape)).astype(np.float32), patch


def voxelwise(batch: Array) -> dict[str, Array]:
    return {"sum": 2 * batch.sum(axis=1, keepdims=True), "same": batch}


def placed(batch: Array) -> dict[str, Array]:
    """Of each voxel its value and where in the window it lies: windows that overlap disagree."""
    axes = np.stack(np.meshgrid(*map(np.arange, batch.shape[2:]), indexing="ij")).astype(np.float32)
    return {"mixed": batch[:, :1] + axes.sum(axis=0) + batch.mean(axis=tuple(range(1, batch.ndim)), keepdims=True)}


def whole(slabs: Iterator[tuple[tuple[slice, ...], Mapping[str, Array]]], shape: tuple[int, ...]) -> dict[str, Array]:
    """All slabs in one array; they must follow each other and leave nothing out."""
    parts: dict[str, list[Array]] = {}
    row = 0
    for region, arrays in slabs:
        assert region[0].start == row < region[0].stop
        assert region[1:] == tuple(slice(0, size) for size in shape[1:])
        row = region[0].stop
        for name, array in arrays.items():
            assert array.shape[1:] == tuple(part.stop - part.start for part in region)
            parts.setdefault(name, []).append(array)
    assert row == shape[0]
    return {name: np.concatenate(arrays, axis=1) for name, arrays in parts.items()}


@given(images_and_patches(), overlaps, merges, st.integers(1, 5))
def test_a_network_that_looks_at_single_voxels_gives_the_same_through_windows_as_on_the_whole(
    case, overlap, merge, batch
):
    image, patch = case
    merged = whole(
        slide.slide_windows(voxelwise, image, patch, overlap=overlap, merge=merge, batch=batch), image.shape[1:]
    )
    for name, expected in voxelwise(image[None]).items():
        assert_allclose(merged[name], expected[0], rtol=1e-4, atol=1e-5)


@given(images_and_patches(), overlaps, merges, st.integers(1, 3))
def test_overlapping_windows_are_merged_as_in_one_full_accumulator(case, overlap, merge, batch):
    image, patch = case
    own = image.shape[1:]
    padded = np.pad(image, [(0, 0), *((0, max(0, n - size)) for n, size in zip(patch, own, strict=True))], mode="edge")
    spatial = padded.shape[1:]
    total, weights = np.zeros((1, *spatial)), np.zeros(spatial)
    weight = slide.window_importance(patch, merge).astype(np.float64)
    grid = [slide.window_starts(size, n, overlap, merge) for size, n in zip(spatial, patch, strict=True)]
    for corner in product(*grid):
        place = tuple(slice(start, start + n) for start, n in zip(corner, patch, strict=True))
        total[(slice(None), *place)] += placed(padded[(slice(None), *place)][None])["mixed"][0] * weight
        weights[place] += weight
    expected = (total / weights)[(slice(None), *(slice(0, size) for size in own))]
    merged = whole(slide.slide_windows(placed, image, patch, overlap=overlap, merge=merge, batch=batch), own)
    assert_allclose(merged["mixed"], expected, rtol=1e-4, atol=1e-4)


@given(images_and_patches(), overlaps)
def test_the_result_does_not_depend_on_how_many_windows_go_together(case, overlap):
    image, patch = case
    one, many = (
        whole(slide.slide_windows(placed, image, patch, overlap=overlap, batch=n), image.shape[1:]) for n in (1, 7)
    )
    assert_allclose(one["mixed"], many["mixed"], rtol=1e-5, atol=1e-5)


@given(images_and_patches(), overlaps)
def test_a_vector_head_is_the_mean_over_windows_and_comes_last(case, overlap):
    image, patch = case
    seen: list[Array] = []

    def network(batch: Array) -> dict[str, Array]:
        vectors = batch.mean(axis=tuple(range(2, batch.ndim)))
        seen.extend(vectors)
        return {"class": vectors, "same": batch}

    *dense, (region, arrays) = slide.slide_windows(network, image, patch, overlap=overlap, batch=2)
    assert region == ()
    assert set(arrays) == {"class"}
    assert all(set(parts) == {"same"} for _, parts in dense)
    assert_allclose(arrays["class"], np.mean(seen, axis=0), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 60), st.integers(1, 20), st.floats(0, 0.8))
def test_windows_of_an_axis_cover_it_and_share_about_the_overlap(size, patch, overlap):
    start = slide.window_starts(size, patch, overlap)
    if size <= patch:
        assert start == [0]
        return
    assert start[0] == 0
    assert start[-1] == size - patch
    steps = np.diff(start)
    assert (steps >= 0).all()
    assert steps.max() <= np.ceil(patch * (1 - overlap) + 1e-9)  # no gap, however the starts are rounded


@given(images_and_patches(), overlaps, st.sampled_from(["gaussian", "constant"]))
def test_windows_laid_and_weighed_as_monai_does_give_what_its_sliding_windows_give(case, overlap, mode):
    image, patch = case
    size = tuple(max(have, need) for have, need in zip(image.shape[1:], patch, strict=True))
    image = np.resize(image, (2, *size))
    seen = whole(slide.slide_windows(placed, image, patch, overlap=overlap, merge=f"monai_{mode}"), size)["mixed"]
    expected = sliding_window_inference(
        torch.from_numpy(image[None]),
        patch,
        1,
        lambda batch: torch.from_numpy(placed(batch.numpy())["mixed"]),
        overlap=overlap,
        mode=mode,
    )
    assert_allclose(seen, expected[0].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patch", [(6,), (5, 8), (4, 4, 7)])
def test_the_middle_of_a_window_counts_most_and_no_voxel_counts_nothing(patch):
    weight = slide.window_importance(patch, "gaussian")
    assert weight.shape == patch
    assert weight.min() >= 1e-3
    assert weight[tuple(size // 2 for size in patch)] == weight.max()
    assert_allclose(weight, np.flip(weight), rtol=1e-5)
    assert (slide.window_importance(patch, "mean") == 1).all()


def test_an_eighth_of_the_window_is_one_standard_deviation():
    weight = slide.window_importance((17,), "gaussian")
    distance = (np.arange(17) - 8) / (17 / 8)
    assert_allclose(weight, np.maximum(np.exp(-(distance**2) / 2), 1e-3), rtol=1e-5)


def test_only_the_rows_that_still_receive_windows_are_held():
    """A tall image: no array that leaves is longer than half a window, and each leaves before the next is computed."""
    image = np.random.default_rng(0).normal(size=(1, 80, 6, 6)).astype(np.float32)
    rows_seen, ran = [], 0

    def network(batch: Array) -> dict[str, Array]:
        nonlocal ran
        ran += len(batch)
        return {"same": batch}

    for region, arrays in slide.slide_windows(network, image, (8, 6, 6), overlap=0.5):
        rows_seen.append((region[0].stop, ran))
        assert arrays["same"].shape[1] <= 8
        assert arrays["same"].base is None or arrays["same"].base.shape[1] <= 8
    assert [ran for _, ran in rows_seen] == list(range(1, 20))
    assert max(np.diff([0, *(stop for stop, _ in rows_seen[:-1])])) == 4


def test_what_left_is_not_changed_by_later_windows():
    image = np.random.default_rng(0).normal(size=(1, 30, 5)).astype(np.float32)
    kept = [(arrays["mixed"], arrays["mixed"].copy()) for _, arrays in slide.slide_windows(placed, image, (6, 5))]
    for array, copy in kept:
        assert_array_equal(array, copy)


def test_an_image_smaller_than_the_window_goes_on_beyond_its_edge():
    image = np.array([[[1.0, 2.0]]], np.float32)
    seen: list[Array] = []

    def network(batch: Array) -> dict[str, Array]:
        seen.append(batch[0, 0])
        return {"same": batch}

    [(region, arrays)] = slide.slide_windows(network, image, (2, 4))
    assert_array_equal(seen[0], [[1, 2, 2, 2], [1, 2, 2, 2]])
    assert region == (slice(0, 1), slice(0, 2))
    assert_array_equal(arrays["same"][0], [[1, 2]])


def test_batches_are_filled_across_rows():
    sizes = []

    def network(batch):
        sizes.append(len(batch))
        return {"same": batch}

    image = np.random.default_rng(0).normal(size=(1, 8, 6)).astype(np.float32)
    parts = list(slide.slide_windows(network, image, (4, 6), overlap=0.5, batch=2))
    assert sizes == [2, 1]
    assert_allclose(np.concatenate([arrays["same"] for _, arrays in parts], axis=1), image, rtol=1e-5)


def test_large_planes_are_handed_on_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(windows, "YIELDED_BYTES", 80)
    image = np.random.default_rng(0).normal(size=(1, 9, 6)).astype(np.float32)
    parts = list(slide.slide_windows(lambda batch: {"same": batch}, image, (4, 6), overlap=0.5))
    assert {region[0].stop - region[0].start for region, _ in parts} <= {1, 2, 3}  # 80 bytes are three rows of 6
    assert [region[0].start for region, _ in parts] == [0, *(region[0].stop for region, _ in parts[:-1])]
    assert_allclose(np.concatenate([arrays["same"] for _, arrays in parts], axis=1), image, rtol=1e-5)


class Sums:
    """An image that is no array, and says which parts of it were asked for."""

    def __init__(self, image: Array) -> None:
        self.image, self.asked = image, []
        self.shape = image.shape

    def __getitem__(self, region: tuple[slice, ...]) -> Array:
        self.asked.append(region)
        return self.image[region]


@st.composite
def parts_of(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts_ = [draw(st.integers(0, size - 1)) for size in shape]
    return tuple(slice(start, draw(st.integers(start + 1, size))) for start, size in zip(starts_, shape, strict=True))


@given(images_and_patches(), overlaps, st.integers(1, 3), st.data())
def test_along_any_axis_and_either_way_the_same_comes_out_of_any_part(case, overlap, batch, data):
    image, patch = case
    own = image.shape[1:]
    expected = whole(slide.slide_windows(placed, image, patch, overlap=overlap), own)["mixed"]
    slice_order = SliceOrder(data.draw(st.integers(0, len(own) - 1)), data.draw(st.booleans()))
    wanted = data.draw(parts_of(own))
    found = np.full_like(expected, np.nan)
    rows: list[int] = []
    for region, arrays in slide.slide_windows(
        placed, Sums(image), patch, overlap=overlap, batch=batch, slice_order=slice_order, wanted=wanted
    ):
        found[(slice(None), *region)] = arrays["mixed"]
        rows += [*range(own[slice_order.axis])][region[slice_order.axis]][:: -1 if slice_order.backwards else 1]
    assert_allclose(found[(slice(None), *wanted)], expected[(slice(None), *wanted)], rtol=1e-4, atol=1e-4)
    assert np.isnan(found).sum() == expected.size - expected[(slice(None), *wanted)].size
    assert rows == [*range(own[slice_order.axis])][wanted[slice_order.axis]][:: -1 if slice_order.backwards else 1]


@pytest.mark.parametrize("backwards", [False, True])
def test_of_what_is_no_array_each_row_is_made_once(backwards):
    image = Sums(np.random.default_rng(0).normal(size=(1, 6, 40)).astype(np.float32))
    list(slide.slide_windows(placed, image, (6, 8), slice_order=SliceOrder(1, backwards)))
    rows = np.concatenate([np.arange(40)[region[2]] for region in image.asked])
    assert sorted(rows) == [*range(40)]


def test_windows_that_do_not_touch_what_is_wanted_are_not_run():
    image = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    seen = []
    list(slide.slide_windows(counted(seen), image, (8, 8), overlap=0.5, wanted=(slice(20, 22), slice(0, 4))))
    assert len(seen) == 2  # those that begin in row 16 and in row 20, the first of each


def test_windows_of_one_value_are_run_once_and_change_nothing():
    image = np.full((2, 30, 30), 3.0, np.float32)
    image[0, 10:14, 8:19] = np.random.default_rng(0).normal(size=(4, 11))
    image[:, :, 25:] = -1
    seen: list[Array] = []
    merged = whole(slide.slide_windows(counted(seen, placed), image, (6, 5), overlap=0.5, batch=3), (30, 30))
    expected = whole(
        slide.slide_windows(placed, image + np.linspace(0, 1e-6, 30, dtype=np.float32), (6, 5), overlap=0.5), (30, 30)
    )
    assert_allclose(merged["mixed"], expected["mixed"], rtol=1e-4, atol=1e-4)
    flat = [window for window in seen if all((channel == channel.flat[0]).all() for channel in window)]
    assert len(flat) == len({window.tobytes() for window in flat}) == 2


def counted(seen: list[Array], network=lambda batch: {"same": batch}):
    """The network, which keeps what it was shown."""

    def run(batch: Array) -> Mapping[str, Array]:
        seen.extend(batch.copy())
        return network(batch)

    return run


@given(numpy_strategies.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)))
def test_outputs_are_finite_where_each_value_is_even_where_their_sum_is_not(values):
    assert averaging.is_finite(values) == bool(np.isfinite(values).all())
    assert averaging.is_finite(np.full(9, np.finfo(np.float32).max, np.float32))
