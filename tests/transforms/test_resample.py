from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.transforms import resampling
from hilum.values import Geometry

shapes = st.one_of(*[st.tuples(*[st.integers(1, 9)] * n) for n in (2, 3)])
orders = st.sampled_from(["linear", "cubic"])
seeds = st.integers(0, 99)


@st.composite
def two_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    old = draw(shapes)
    return old, draw(st.tuples(*[st.integers(1, 12)] * len(old)))


def centres(old: int, new: int) -> np.ndarray:
    """Where the new samples lie among the old ones, edge to edge."""
    return (np.arange(new) + 0.5) * old / new - 0.5


def whole(old: int, new: int, order: str) -> np.ndarray:
    """Which new samples need none from beyond the edge."""
    if old == new:
        return np.ones(new, bool)
    reach = (1 if order == "linear" else 2) * max(1.0, old / new)
    return (centres(old, new) - reach >= -1) & (centres(old, new) + reach <= old)


@given(two_shapes(), orders, seeds)
def test_numpy_and_torch_give_the_same_voxels(both, order, seed):
    old, new = both
    image = np.random.default_rng(seed).normal(size=(2, *old)).astype(np.float32)
    ours, theirs = resampling.resample(image, new, order), resampling.resample(torch.from_numpy(image), new, order)
    assert ours.dtype == np.float32
    assert_allclose(theirs.numpy(), ours, atol=1e-5)


@given(two_shapes(), orders, st.floats(-1000, 1000, width=32))
def test_a_constant_image_stays_constant(both, order, value):
    old, new = both
    assert_allclose(resampling.resample(np.full((1, *old), value, np.float32), new, order), value, rtol=1e-5, atol=1e-5)


@given(shapes, orders, seeds)
def test_the_same_shape_gives_the_same_voxels_to_the_bit(shape, order, seed):
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    assert_array_equal(resampling.resample(image, shape, order), image)


@given(st.integers(1, 30), st.integers(1, 30), orders)
def test_the_weights_of_each_new_sample_sum_to_one_and_stay_on_the_axis(old, new, order):
    step = resampling.axis_taps(old, new, order)
    assert_allclose(step.weight.sum(axis=1), 1, atol=1e-6)
    assert step.index.min() >= 0
    assert step.index.max() < old
    assert (np.diff(step.index.max(axis=1)) >= 0).all()  # rows are needed in order: prediction streams them


@given(st.integers(6, 30), st.integers(6, 30), orders)
def test_a_ramp_stays_a_ramp_away_from_the_edges(old, new, order):
    ramp = np.arange(old, dtype=np.float32)[None]
    inside = whole(old, new, order)
    assert_allclose(resampling.resample(ramp, (new,), order)[0][inside], centres(old, new)[inside], atol=1e-4)


@given(two_shapes(), seeds)
def test_a_world_linear_function_resampled_is_the_function_on_the_reshaped_grid(both, seed):
    old, new = both
    rng, n = np.random.default_rng(seed), len(old)
    affine = np.eye(n + 1)
    affine[:n, :n] = np.eye(n) + rng.uniform(-0.3, 0.3, (n, n))  # oblique and sheared
    affine[:n, n] = rng.uniform(-20, 20, n)
    geometry, slope = Geometry(old, affine), rng.normal(size=n)
    reshaped = geometry.reshape(new)

    def values(grid: Geometry) -> np.ndarray:
        index = np.stack(np.meshgrid(*[np.arange(size) for size in grid.shape], indexing="ij"), axis=-1)
        return grid.to_world(index) @ slope

    resampled = resampling.resample(values(geometry)[None].astype(np.float64), new)[0]
    inside = np.ix_(*[whole(size, count, "linear") for size, count in zip(old, new, strict=True)])
    assert_allclose(resampled[inside], values(reshaped)[inside], atol=1e-3)


@pytest.mark.parametrize("order", ["linear", "cubic"])
def test_a_checkerboard_finer_than_the_new_grid_goes_to_its_mean(order):
    board = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)[None]
    small = resampling.resample(board, (16, 16), order)[0]
    assert_allclose(small[2:-2, 2:-2], 0.5, atol=0.02)


def amplitude(old: int, new: int, order: str, frequency: float) -> float:
    """Largest amplitude, away from the edges, of a wave of so many cycles an old sample after resampling."""
    phase = 2 * np.pi * frequency * np.arange(old)
    cosine, sine = resampling.resample(np.stack([np.cos(phase), np.sin(phase)]), (new,), order)
    return float(np.hypot(cosine, sine)[8:-8].max())


@given(st.integers(60, 160), st.floats(0.05, 1.5))
def test_linear_going_down_weakens_a_wave_as_the_triangle_of_its_kernel_does(new, cycles):
    """The Fourier transform of a triangle is a squared sinc; `cycles` a new sample, of which 0.5 can be told apart."""
    ratio = 240 / new
    frequency = min(cycles / ratio, 0.5)
    # At ratios that are not whole the triangle meets the old samples off their places: up to 0.105 at a ratio of 1.5.
    assert_allclose(amplitude(240, new, "linear", frequency), np.sinc(frequency * ratio) ** 2, atol=0.11)


@given(st.integers(40, 160))
def test_cubic_going_down_keeps_what_the_new_grid_can_hold_and_lets_nothing_else_through(new):
    ratio = 240 / new
    assert amplitude(240, new, "cubic", 0.1 / ratio) > 0.99
    assert amplitude(240, new, "cubic", 0.25 / ratio) > 0.9
    for cycles in (0.75, 1.0, 1.3):
        if cycles / ratio <= 0.5:
            assert amplitude(240, new, "cubic", cycles / ratio) < (0.12 if cycles < 1 else 0.02)


@given(st.integers(10, 30), st.integers(2, 6), orders)
def test_going_down_by_a_whole_ratio_every_old_sample_counts_alike_so_that_the_mean_stays(new, ratio, order):
    old = new * ratio
    step, given = resampling.axis_taps(old, new, order), np.zeros(old)
    np.add.at(given, step.index, step.weight)
    inside = slice(2 * ratio, -2 * ratio)
    assert_allclose(given[inside], 1 / ratio, atol=1e-6)


@given(st.tuples(st.integers(2, 9), st.integers(2, 9)), st.tuples(st.integers(1, 4), st.integers(1, 4)), seeds)
def test_linear_going_up_is_that_of_scipy_and_of_torch(shape, factors, seed):
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    new = tuple(size * factor for size, factor in zip(shape, factors, strict=True))
    ours = resampling.resample(image[None], new)[0]
    zoomed = scipy.ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)
    assert_allclose(ours, zoomed, atol=1e-4)
    tensor = torch.from_numpy(image)[None, None]
    interpolated = torch.nn.functional.interpolate(tensor, new, mode="bilinear", align_corners=False)
    assert_allclose(ours, interpolated[0, 0], atol=1e-5)


# From two samples on: torch takes an image of one column for one whose channels come last, and gives its mean.
@given(st.tuples(*[st.integers(2, 8)] * 2), st.tuples(*[st.integers(1, 5)] * 2), orders, seeds)
def test_going_down_by_whole_ratios_is_the_anti_aliased_one_of_torch_away_from_the_edges(new, ratios, order, seed):
    old = tuple(count * ratio for count, ratio in zip(new, ratios, strict=True))
    image = np.random.default_rng(seed).normal(size=old).astype(np.float32)
    mode = "bilinear" if order == "linear" else "bicubic"
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], new, mode=mode, align_corners=False, antialias=True
    )[0, 0].numpy()
    ours = resampling.resample(image[None], new, order)[0]
    inside = np.ix_(*[whole(size, count, order) for size, count in zip(old, new, strict=True)])
    assert_allclose(ours[inside], theirs[inside], atol=1e-4)  # at the edge torch leaves out what lies outside


def test_cubic_goes_through_a_parabola_exactly():
    old, new = 12, 24
    inside = whole(old, new, "cubic")
    parabola = np.arange(old, dtype=np.float64) ** 2
    expected = centres(old, new)[inside] ** 2
    assert len(expected) > 10
    assert_allclose(resampling.resample(parabola[None], (new,), "cubic")[0][inside], expected, atol=1e-4)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_an_axis_resampled_row_by_row_is_the_axis_resampled_whole(old, new, data):
    image = np.random.default_rng(old).normal(size=(1, old, 3)).astype(np.float32)
    cut = data.draw(st.integers(0, new))
    step = resampling.axis_taps(old, new)
    parts = [resampling.resample_axis(image, 1, step.part(rows)) for rows in (slice(0, cut), slice(cut, new))]
    assert_allclose(np.concatenate(parts, axis=1), resampling.resample_axis(image, 1, step), atol=1e-6)


@pytest.mark.parametrize("order", ["linear", "cubic"])
@pytest.mark.parametrize("new", [(40, 36, 30), (18, 17, 21), (27, 14, 26)])
def test_an_image_larger_than_one_slab_is_the_image_in_one_piece(new, order, monkeypatch):
    image = np.random.default_rng(0).normal(size=(2, 27, 25, 28)).astype(np.float32)
    whole = resampling.resample(image, new, order)
    monkeypatch.setattr(sys.modules["hilum.transforms.resampling"], "SLAB_VOXELS", 1500)
    assert_allclose(resampling.resample(image, new, order), whole, atol=1e-5)


def test_a_long_axis_of_half_precision_is_picked_from_exactly():
    ramp = torch.linspace(0, 1, 3000, dtype=torch.float16)[None]
    assert_allclose(
        resampling.resample(ramp, (6000,)).float()[0], resampling.resample(ramp.float().numpy(), (6000,))[0], atol=2e-3
    )


def test_whole_numbers_come_as_float32():
    numbers = np.random.default_rng(0).integers(-1000, 3000, (1, 9, 8), np.int16)
    ours = resampling.resample(numbers, (5, 12), "cubic")
    assert ours.dtype == np.float32
    assert_array_equal(ours, resampling.resample(numbers.astype(np.float32), (5, 12), "cubic"))
