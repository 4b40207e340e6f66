from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.runtime import Preprocessing
from hilum.runtime.preprocessing import preprocessing as preprocessing_preprocessing
from hilum.runtime.preprocessing.protocol import GridTrace
from hilum.runtime.windows import slide
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Deferred, Geometry, Image
from strategies import geometries, rotations

AS_IT_IS = (Normalisation("window", -1e6, 1e6),)
volumes = Preprocessing(3, ("0",), AS_IT_IS)
overlaps = st.sampled_from([0.0, 0.3, 0.5])
patches = st.tuples(*[st.integers(1, 9)] * 3)


def identity(batch: Array) -> dict[str, Array]:
    return {"same": batch, "mean": batch.mean(axis=tuple(range(2, batch.ndim)))}


def assembled(
    preprocessing: Preprocessing, seen: Array, trace: GridTrace, patch: tuple[int, ...], overlap: float
) -> Array:
    """What an identity network leaves on the source's own grid; NaN where no slab came. Every slab comes once."""
    result = np.full((len(seen), *trace.source.shape), np.nan, np.float32)
    for region, arrays in preprocessing.restore(
        slide.slide_windows(identity, seen, patch, overlap=overlap, slice_order=trace.slice_order), trace
    ):
        if region:
            assert np.isnan(result[(slice(None), *region)]).all()
            result[(slice(None), *region)] = arrays["same"]
    return result


def network_grid(trace: GridTrace) -> Geometry:
    """The grid that the network sees, by the geometry's own arithmetic."""
    kept = trace.source.permute(trace.axes, trace.flips).crop(trace.crop)
    before, after = zip(*trace.pad, strict=True)
    return kept.reshape(trace.shape).pad(before, after)


def world_linear(grid: Geometry) -> Array:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return (grid.to_world(index) @ np.array([1.0, 0.7, -1.3])[: grid.ndim])[None].astype(np.float32)


@st.composite
def grids_around_zero(draw: st.DrawFn, smallest: int = 13, largest: int = 16) -> Geometry:
    """Any orientation with shear, large enough to have an inside; near zero, so that rounding stays small."""
    shape = draw(st.tuples(*[st.integers(smallest, largest)] * 3))
    affine = np.eye(4)
    shear = np.eye(3)
    shear[1, 2] = draw(st.floats(-0.5, 0.5))
    affine[:3, :3] = draw(rotations()) @ shear @ np.diag(draw(st.tuples(*[st.floats(0.5, 2)] * 3)))
    return Geometry(shape, affine)


@given(geometries(), patches, overlaps, st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 99))
def test_every_voxel_comes_back_to_its_own_place_exactly_where_the_spacing_is_kept(
    geometry, patch, overlap, smallest, seed
):
    image = Image(np.random.default_rng(seed).normal(size=(1, *geometry.shape)).astype(np.float32), geometry)
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, smallest=smallest)
    seen, trace = preprocessing(image, "case")
    assert all(have >= want for have, want in zip(seen.shape[1:], smallest, strict=True))
    assert seen.shape[1:] == trace.padded_shape
    assert_allclose(assembled(preprocessing, seen, trace, patch, overlap), image.data, rtol=1e-5, atol=1e-6)


@given(geometries(), patches, st.data())
def test_what_the_crop_keeps_comes_back_to_its_place_and_the_rest_is_the_lowest_value(geometry, patch, data):
    pixels = np.full((1, *geometry.shape), -5, np.int16)
    for _ in range(3):
        pixels[0][tuple(data.draw(st.integers(0, size - 1)) for size in geometry.shape)] = data.draw(st.integers(1, 9))
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, crop="content")
    seen, trace = preprocessing(Image(pixels, geometry), "case")
    result = assembled(preprocessing, seen, trace, patch, 0.5)
    cut = np.isnan(result)
    assert_allclose(result[~cut], pixels[~cut], rtol=1e-5)
    assert (pixels[cut] == -5).all()


@given(grids_around_zero(), st.tuples(*[st.floats(0.6, 3)] * 3), st.tuples(*[st.integers(1, 24)] * 3))
def test_the_network_sees_each_place_in_the_patient_where_the_geometry_says(geometry, spacing, smallest):
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, spacing=spacing, smallest=smallest)
    seen, trace = preprocessing(Image(world_linear(geometry), geometry), "case")
    grid = network_grid(trace)
    assert seen.shape[1:] == grid.shape
    assert_allclose(trace.steps, grid.steps, rtol=1e-6)
    ratios = np.array([part.stop - part.start for part in trace.crop]) / trace.shape
    inside = tuple(
        slice(low + int(np.ceil(max(1, ratio) / ratio)), -high - int(np.ceil(max(1, ratio) / ratio)))
        for (low, high), ratio in zip(trace.pad, ratios, strict=True)
    )
    assert_allclose(seen[0][inside], world_linear(grid)[0][inside], atol=2e-3)


@given(grids_around_zero(), st.tuples(*[st.floats(0.6, 3)] * 3), patches, overlaps)
def test_a_resampled_place_comes_back_to_its_own_millimetre(geometry, spacing, patch, overlap):
    image = Image(world_linear(geometry), geometry)
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, spacing=spacing, smallest=(12, 12, 12))
    seen, trace = preprocessing(image, "case")
    patch = tuple(max(4, size) for size in patch)  # few windows: the law holds for any
    result = assembled(preprocessing, seen, trace, patch, overlap)
    assert not np.isnan(result).any()
    # In canonical order the edge reaches two kernels far: one on the way there, one on the way back.
    ratios = np.array([part.stop - part.start for part in trace.crop]) / trace.shape
    margin = np.empty(3, int)
    margin[list(trace.axes)] = np.ceil(2 * np.maximum(1, ratios))
    inside = (0, *(slice(width, -width) for width in margin))
    assert_allclose(result[inside], image.data[inside], atol=5e-3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.7, 3.1), (0.8, 0.9, 0.7)])
def test_a_structures_centre_stays_within_a_twentieth_of_a_millimetre(spacing):
    geometry = Geometry((28, 22, 12), [[0, 1.5, 0, 7], [-0.9, 0, 0.4, 3], [0, 0, -3, 40], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    world = geometry.to_world(index)
    blob = np.exp(-0.5 * ((world - geometry.to_world([13.3, 10.6, 5.7])) ** 2).sum(axis=-1) / 3.5**2)
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, spacing=spacing, crop="content")
    seen, trace = preprocessing(Image(blob[None].astype(np.float32), geometry), "case")
    result = np.nan_to_num(assembled(preprocessing, seen, trace, (8, 8, 8), 0.5)[0])
    centres = [(world * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum() for weight in (blob, result)]
    assert np.linalg.norm(centres[0] - centres[1]) < 0.05


@given(geometries(largest=6), st.integers(0, 2), st.integers(0, 99))
def test_a_volume_of_one_slice_is_a_picture_to_a_flat_network_and_comes_back_as_a_volume(geometry, axis, seed):
    shape = tuple(1 if other == axis else max(2, size) for other, size in enumerate(geometry.shape))
    single = Geometry(shape, geometry.affine)
    image = Image(np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32), single)
    preprocessing = Preprocessing(2, ("0",), AS_IT_IS, smallest=(7, 5))
    seen, trace = preprocessing(image, "case")
    assert seen.ndim == 3
    assert trace.squeezed == axis
    assert_allclose(assembled(preprocessing, seen, trace, (4, 3), 0.5), image.data, rtol=1e-5, atol=1e-6)
    assert_allclose(trace.steps, np.delete(single.steps, axis)[list(trace.axes)], rtol=1e-9)


@given(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 8)] * 2))
def test_a_picture_brought_to_a_fixed_shape_comes_back_in_its_own(shape, patch):
    preprocessing = Preprocessing(2, ("0",), AS_IT_IS, shape=(6, 8))
    seen, trace = preprocessing(Image(np.full((1, *shape), 3, np.uint8), Geometry.of_pixels(shape)), "case")
    assert seen.shape == (1, 6, 8)
    assert_allclose(assembled(preprocessing, seen, trace, patch, 0.5), 3, rtol=1e-5)


@given(geometries(), st.integers(0, 99), st.tuples(*[st.integers(1, 9)] * 3))
def test_labels_go_the_way_of_the_image_and_come_back(geometry, seed, smallest):
    labels = np.random.default_rng(seed).integers(1, 4, geometry.shape).astype(np.uint8)
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, smallest=smallest)
    seen, trace = preprocessing(Image(labels[None].astype(np.float32), geometry), "case")
    taken = preprocessing.labels(labels, trace, outside=0)
    assert taken.shape == seen.shape[1:]
    real = tuple(slice(low, low + size) for (low, _), size in zip(trace.pad, trace.shape, strict=True))
    assert_array_equal(taken[real], seen[0][real])
    assert taken.sum() == taken[real].sum()  # padded with background
    one_hot = np.stack([taken == value for value in range(4)]).astype(np.float32)
    result = np.zeros(geometry.shape, np.uint8)
    for region, arrays in preprocessing.restore(
        slide.slide_windows(lambda b: {"m": b}, one_hot, (4, 4, 4), slice_order=trace.slice_order), trace
    ):
        result[region] = arrays["m"].argmax(axis=0)
    assert_array_equal(result, labels)


def test_a_vector_head_passes_through_beside_a_dense_one():
    image = Image(np.arange(24.0).reshape(1, 2, 3, 4), Geometry((2, 3, 4), np.diag([-1, 1, 1, 1])))
    seen, trace = volumes(image, "case")
    *_, (region, arrays) = volumes.restore(
        slide.slide_windows(identity, seen, (2, 3, 4), slice_order=trace.slice_order), trace
    )
    assert region == ()
    assert_allclose(arrays["mean"], [11.5])


def test_rows_come_back_while_later_windows_have_not_run_yet():
    geometry = Geometry((8, 8, 64), np.diag([1.0, 1, 1, 1]))
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, spacing=(1, 1, 0.5))
    noise = np.random.default_rng(0).normal(size=(1, 8, 8, 64)).astype(np.float32)
    seen, trace = preprocessing(Image(noise, geometry), "case")
    run: list[int] = []

    def network(batch: Array) -> dict[str, Array]:
        run.append(len(batch))
        return {"same": batch}

    heights, finished = [], []
    for region, _ in preprocessing.restore(
        slide.slide_windows(network, seen, (8, 8, 16), slice_order=trace.slice_order), trace
    ):
        heights.append(region[2].stop - region[2].start)
        finished.append((region[2].stop, len(run)))
    assert sum(heights) == 64
    assert max(heights) <= 9  # half a window of 16 rows at half the spacing, and what the last one could not give
    assert all(ran <= rows / 4 + 3 for rows, ran in finished)


def test_what_was_never_measured_is_left_out_of_content_and_statistics():
    pixels = np.zeros((1, 6, 6, 6), np.float32)
    pixels[0, :2] = -2000
    pixels[0, 5] = np.nan
    pixels[0, 3, 2:4, 2:5] = [[1.0, 2, 3], [4, 5, 6]]
    image = Image(pixels, Geometry((6, 6, 6), np.eye(4)), padding=(-2000, -2000))
    seen, trace = Preprocessing(3, ("0",), (Normalisation("zscore"),), crop="content")(image, "case")
    assert trace.crop == (slice(3, 4), slice(2, 4), slice(2, 5))
    assert_allclose(seen.mean(), 0, atol=1e-6)
    whole, _ = Preprocessing(3, ("0",), (Normalisation("zscore"),))(image, "case")
    assert np.isfinite(whole).all()
    assert_allclose(whole[0, 0], whole[0, 2, 0, 0])


@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "f4", "b1"])
def test_content_is_found_in_every_number_type(kind):
    pixels = np.zeros((1, 4, 5), kind)
    pixels[0, 1, 2:4] = 1
    _, trace = Preprocessing(2, ("0",), AS_IT_IS, crop="content")(Image(pixels, Geometry.of_pixels((4, 5))), "case")
    assert trace.crop == (slice(1, 2), slice(2, 4))


def test_an_image_of_one_value_is_all_content():
    flat = Image(np.full((1, 4, 5), 9, np.uint8), Geometry.of_pixels((4, 5)))
    _, trace = Preprocessing(2, ("0",), AS_IT_IS, crop="content")(flat, "case")
    assert trace.shape == (4, 5)


def test_voxels_that_are_read_when_asked_for_are_read_once():
    times: list[int] = []

    def load() -> Array:
        times.append(1)
        return np.ones((1, 4, 5), np.float32)

    deferred = Deferred((1, 4, 5), np.dtype("f4"), load)
    Preprocessing(2, ("0",), AS_IT_IS)(Image(deferred, Geometry.of_pixels((4, 5))), "case")
    assert len(times) == 1


def test_the_source_is_not_changed():
    pixels = np.array([[[1, np.nan], [3, 4]]], np.float32)
    Preprocessing(2, ("0",), (Normalisation("zscore"),))(Image(pixels, Geometry.of_pixels((2, 2))), "case")
    assert_array_equal(pixels, np.array([[[1, np.nan], [3, 4]]], np.float32))


def scan(channels: tuple[str, ...], geometry: Geometry | None = None, frames: int = 0) -> Image:
    grid = geometry or Geometry((2, 3, 4), np.eye(4))
    return Image(np.ones((len(channels), *([frames] if frames else []), *grid.shape)), grid, channels=channels)


two = partial(Preprocessing, 3, ("T1", "T2"), AS_IT_IS * 2)


@pytest.mark.parametrize(("names", "there"), [(("T2",), (False, True)), (("0000",), (True, False))])
def test_an_image_that_is_absent_is_zero_and_the_others_stand_in_their_place(names, there, monkeypatch):
    may_lack = two(absent=("T1", "T2"), spacing=(2.0, 1.0, 1.0))
    image = scan(names, Geometry((6, 5, 4), np.eye(4)))
    image = image.with_pixels(np.random.default_rng(3).normal(size=image.shape).astype(np.float32))
    seen, _ = may_lack(image, "case 7")
    [place] = np.flatnonzero(there)
    single, _ = Preprocessing(3, ("0",), AS_IT_IS, spacing=(2.0, 1.0, 1.0))(replace(image, channels=("0",)), "case 7")
    assert may_lack.present(image, "case 7") == there
    assert_array_equal(seen[place], single[0])
    assert not seen[1 - place].any()
    monkeypatch.setattr(preprocessing_preprocessing, "STREAMED_BYTES", 0)
    opened, _ = may_lack.open_image(image, "case 7")
    assert not isinstance(opened, np.ndarray)
    assert_array_equal(opened[(slice(0, 2), *(slice(0, size) for size in seen.shape[1:]))], seen)


@pytest.mark.parametrize(
    ("preprocessing", "image", "error", "says"),
    [
        (two(), scan(("0",)), DatasetError, r"1 channel \(0\), the model expects 2 \(T1, T2\)"),
        (two(), scan(("T1",)), DatasetError, "lacks T2, which training never dropped.*CASE_0001.*modality_dropout"),
        (two(absent=("T2",)), scan(("T2",)), DatasetError, "lacks T1, which training never dropped"),
        (two(), scan(("T1", "T2", "FLAIR")), DatasetError, r"3 channels \(T1, T2, FLAIR\), the model expects 2"),
        (two(), scan(("T2", "T1")), DatasetError, "T2, T1 are not the model's T1, T2"),
        (volumes, scan(("0",), frames=5), GeometryError, "5 frames"),
        (Preprocessing(2, ("0",), AS_IT_IS), scan(("0",)), GeometryError, "works in 2 dimensions"),
        (volumes, scan(("0",), Geometry.of_pixels((3, 3))), GeometryError, "works in 3 dimensions"),
        (
            Preprocessing(3, ("0",), AS_IT_IS, spacing=(1, 1, 1)),
            scan(("0",), Geometry.of_pixels((2, 3, 4))),
            GeometryError,
            "no size in mm",
        ),
    ],
)
def test_what_the_model_was_not_made_for_is_refused_by_name(preprocessing, image, error, says):
    with pytest.raises(error, match=says) as caught:
        preprocessing(image, "case 7")
    assert caught.value.where == "case 7"


def test_frames_that_a_shorter_clip_lacks_are_no_numbers_and_the_others_what_they_are_without_them():
    rng = np.random.default_rng(0)
    voxels, times = rng.normal(50, 9, (2, 3, 6, 5)), (0.0, 0.1, 0.3)
    clip = Image(voxels, Geometry.of_pixels((6, 5)), times=times)
    whole = Preprocessing(2, ("0", "1"), (Normalisation("zscore"),) * 2, shape=(4, 4), frames=3)
    longer = replace(whole, frames=6, interval=0.1, time_unit="s")
    seen, (padded, _) = whole(clip, "x")[0].reshape(2, 3, 4, 4), longer(clip, "x")
    slots = padded.reshape(2, 6, 4, 4)
    assert_array_equal(np.isnan(slots).all(axis=(0, 2, 3)), [False, False, True, False, True, True])
    assert_array_equal(slots[:, [0, 1, 3]], seen)
    assert longer.inputs == 12


def test_settings_make_an_equal_preprocessing():
    made = Preprocessing(
        3,
        ("CT",),
        (Normalisation("window", -100, 300, 50, 40),),
        spacing=(1, 1, 2.5),
        crop="content",
        smallest=(8, 8, 8),
    )
    assert Preprocessing.from_settings(made.settings) == made


@pytest.mark.parametrize("change", [{"spacings": [1, 1]}, {"normalisation": [{"method": "zscore", "scale": 2}]}])
def test_settings_that_nobody_knows_are_refused(change):
    with pytest.raises(PlanError, match="impossible settings"):
        Preprocessing.from_settings({**volumes.settings, **change})


@given(
    geometries(),
    patches,
    st.tuples(*[st.integers(2, 12)] * 3),
    st.sampled_from(["stretch", "crop", "pad"]),
    st.floats(0, 0.45),
)
def test_what_is_cut_or_padded_to_a_shape_keeps_its_place_in_the_world(geometry, patch, shape, aspect, border):
    preprocessing = Preprocessing(3, ("0",), AS_IT_IS, shape=shape, aspect=aspect, border=border)
    seen, trace = preprocessing(Image(world_linear(geometry), geometry), "case")
    assert seen.shape[1:] == trace.padded_shape == shape
    result = assembled(preprocessing, seen, trace, patch, 0.5)
    kept = np.zeros(geometry.shape, bool)
    kept[trace.region(tuple(slice(0, part.stop - part.start) for part in trace.crop))] = True
    assert_array_equal(np.isnan(result[0]), ~kept)


def test_a_picture_brought_down_by_a_factor_comes_back_on_its_own_grid_and_its_boxes_shrink_as_much():
    down, across = np.indices((40, 60))
    image = Image(np.float32([down + 2 * across]), Geometry.of_pixels((40, 60)))
    halved = Preprocessing(2, ("0",), AS_IT_IS, reduction=2.0)
    seen, trace = halved(image, "here")
    assert seen.shape == (1, 20, 30)
    assert_allclose(seen[0, 4:-4, 4:-4], (2 * (down + 2 * across) + 1.5)[4:16, 4:26])  # the mean of each four
    assert_allclose(trace.boxes(np.array([[4.0, 6.0, 10.0, 30.0]])), [[2, 3, 5, 15]])
    back = assembled(halved, seen, trace, (20, 30), 0.0)
    assert_allclose(back[0, 8:-8, 8:-8], image.data[0, 8:-8, 8:-8], atol=1e-3)


@pytest.mark.parametrize("factor", [0.0, 0.5, float("nan"), float("inf")])
def test_a_factor_that_brings_nothing_down_is_refused(factor):
    with pytest.raises(PlanError, match=r"reduction.*from 1 on"):
        Preprocessing(2, ("0",), AS_IT_IS, reduction=factor)


def test_a_border_is_cut_away_from_both_ends_of_each_axis():
    pixels = np.arange(200, dtype=np.float32).reshape(1, 10, 20)
    preprocessing = Preprocessing(2, ("0",), AS_IT_IS, border=0.1)
    seen, trace = preprocessing(Image(pixels, Geometry.of_pixels((10, 20))), "case")
    assert_array_equal(seen, pixels[:, 1:9, 2:18])
    back = assembled(preprocessing, seen, trace, (8, 16), 0.0)
    assert_allclose(back[:, 1:9, 2:18], pixels[:, 1:9, 2:18], rtol=1e-5)


def test_a_wide_picture_is_cropped_about_its_middle_or_padded_but_not_stretched():
    pixels = np.tile(np.arange(20, dtype=np.float32), (10, 1))[None]
    wide = Image(pixels, Geometry.of_pixels((10, 20)))
    cropped, trace = Preprocessing(2, ("0",), AS_IT_IS, shape=(10, 10), aspect="crop")(wide, "case")
    assert_array_equal(cropped, pixels[:, :, 5:15])
    assert trace.shape == (10, 10)
    padded, trace = Preprocessing(2, ("0",), AS_IT_IS, shape=(20, 20), aspect="pad")(wide, "case")
    assert (trace.shape, trace.pad) == ((10, 20), ((5, 5), (0, 0)))
    assert_array_equal(padded[:, 5:15], pixels)
    stretched, trace = Preprocessing(2, ("0",), AS_IT_IS, shape=(10, 10))(wide, "case")
    assert trace.crop == (slice(0, 10), slice(0, 20))
    assert stretched.max() > 18


def test_the_proportions_of_the_source_no_longer_show_once_they_are_cropped():
    square = Preprocessing(2, ("0",), AS_IT_IS, shape=(8, 8), aspect="crop")
    for shape in ((8, 8), (8, 30), (30, 8)):
        image = Image(np.ones((1, *shape), np.float32), Geometry.of_pixels(shape))
        assert {part.stop - part.start for part in square(image, "case")[1].crop} == {8}


def test_colours_of_more_bits_than_those_of_training_are_refused_and_a_little_noise_is_not():
    colours = ("R", "G", "B")
    chosen = Preprocessing(2, colours, (Normalisation("range", 0.0, 255.0, 0.5, 0.2),) * 3)
    kinds = ((np.uint16, 255), (np.float32, 256), (np.uint16, 256), (np.float32, 600))
    whole, noisy, *others = (
        Image(np.full((3, 4, 4), most, kind), Geometry.of_pixels((4, 4)), channels=colours) for kind, most in kinds
    )
    assert_allclose(chosen(whole, "p")[0], 2.5, rtol=1e-6)
    assert_allclose(chosen(noisy, "p")[0], 2.5, rtol=1e-6)
    for other in others:
        with pytest.raises(DatasetError, match="and those of the model's images 255 at the most"):
            chosen(other, "p")
