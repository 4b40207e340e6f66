"""An array in a file without a name is the array that it would be in memory."""

from __future__ import annotations

import pickle
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.errors import ResourceError
from hilum.files.storage import spool
from hilum.files.storage.spool import Spool
from hilum.values import Deferred, voxel_images


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[slice, ...]:
    first = [draw(st.integers(0, size - 1)) for size in shape]
    return tuple(slice(start, draw(st.integers(start + 1, size))) for start, size in zip(first, shape, strict=True))


@given(st.data(), st.sampled_from(["u1", "u2"]), st.sampled_from([0, 2**20]))
def test_what_is_written_in_parts_is_read_back_in_any_others(data, kind, held):
    shape = data.draw(st.one_of(*[st.tuples(*[st.integers(1, 6)] * n) for n in (2, 3)]))
    expected, rng = np.zeros(shape, kind), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spool, "SPOOLED_BYTES", held)
        written = Spool(shape, np.dtype(kind))
        for _ in range(data.draw(st.integers(0, 4))):
            region = data.draw(regions(shape))
            part = rng.integers(1, 200, expected[region].shape).astype(kind)
            expected[region] = part
            written[region] = part
        assert isinstance(written.data, Deferred) == (held == 0)
        assert_array_equal(np.asarray(written.data), expected)
        region = data.draw(regions(shape))
        assert_array_equal(written.data[region], expected[region])
        walked = np.zeros(shape, kind)
        for place, part in voxel_images.walk_blocks(written.data, 3):
            walked[place] = part
        assert_array_equal(walked, expected)
        crossed = pickle.loads(pickle.dumps(written))  # noqa: S301 - what was just made
        assert_array_equal(np.asarray(crossed.data), expected)


def test_a_full_disk_is_named(monkeypatch):
    monkeypatch.setattr(spool, "SPOOLED_BYTES", 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = Spool((64, 64, 64), np.dtype("u1"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, before[1]))
    try:
        with pytest.raises(ResourceError, match="Free some space"):
            written[slice(None), slice(None), slice(0, 64)] = np.ones((64, 64, 64), np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.data())
def test_where_nothing_was_written_lies_what_was_said_to_lie_there(data):
    shape = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    written, region = Spool(shape, np.dtype("f2"), fill=1.0, held=0), data.draw(regions(shape))
    expected = np.ones(shape, "f2")
    assert_array_equal(np.asarray(written.data), expected)
    expected[region] = written[region] * 3
    written[region] = expected[region]
    assert_array_equal(np.asarray(written.data), expected)
