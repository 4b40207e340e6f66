from __future__ import annotations

import base64
import gzip

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from hilum.report import slice_viewer
from hilum.report.slice_viewer import Packed


def unpacked(packed: Packed, shape: tuple[int, ...]) -> np.ndarray:
    """What the browser does, in Python."""
    raw = gzip.decompress(base64.b64decode(packed.data))
    codes = np.frombuffer(raw, dtype=f"<u{packed.bits // 8}").reshape(shape)
    values = codes * packed.slope + packed.intercept
    return values if packed.missing is None else np.where(codes == packed.missing, np.nan, values)


@settings(max_examples=30)
@given(hnp.arrays(st.sampled_from([np.uint8, np.int16, np.uint16]), (2, 3, 4)))
def test_whole_numbers_of_up_to_16_bits_come_back_exactly(values: np.ndarray) -> None:
    packed = slice_viewer.pack_values(values)
    assert packed.exact
    assert_array_equal(unpacked(packed, values.shape), values)


@settings(max_examples=40)
@given(hnp.arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6) | st.just(np.nan)))
def test_other_numbers_come_back_to_within_half_a_step_and_gaps_stay_gaps(values: np.ndarray) -> None:
    packed = slice_viewer.pack_values(values)
    back = unpacked(packed, values.shape)
    assert_array_equal(np.isnan(back), np.isnan(values))
    tolerance = 1e-9 if packed.exact else packed.slope * 0.5001
    assert_allclose(back, values, rtol=0, atol=tolerance + 1e-9)


def test_a_full_range_of_16_bits_with_a_gap_does_not_overrun() -> None:
    values = np.append(np.arange(65_536, dtype=np.float64), np.nan)
    packed = slice_viewer.pack_values(values)
    assert not packed.exact
    assert_allclose(unpacked(packed, values.shape), values, atol=packed.slope * 0.5001)


def test_few_values_take_one_byte_each() -> None:
    assert slice_viewer.pack_values(np.array([-1000, -900])).bits == 8
    assert slice_viewer.pack_values(np.array([0, 256])).bits == 16


def test_the_same_voxels_make_the_same_text() -> None:
    assert slice_viewer.pack_values(np.arange(100)) == slice_viewer.pack_values(np.arange(100))


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 90), min_size=2, max_size=3),
    st.integers(1, 5000),
)
def test_thinning_leaves_no_more_than_the_limit_and_nothing_out_where_all_fits(shape: list[int], limit: int) -> None:
    every = slice_viewer.thinning_steps(shape, [1.0] * len(shape), limit)
    kept = np.prod([len(range(0, size, step)) for size, step in zip(shape, every, strict=True)])
    assert kept <= limit
    assert every == (1,) * len(shape) or np.prod(shape) > limit


def test_the_finest_axes_are_thinned_first_and_axes_that_are_alike_stay_alike() -> None:
    assert slice_viewer.thinning_steps((100, 100, 20), (0.5, 0.5, 5.0), 100_000) == (2, 2, 1)
