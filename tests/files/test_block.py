"""Blocks of voxels: a part is the part of the whole, however the file is packed, and scaling loses no step."""

from __future__ import annotations

import bz2
import gzip
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.errors import FormatError
from hilum.files import _voxel_files
from hilum.files.storage.block import VoxelBlock
from hilum.files.storage.packed_files import Compression

PACKERS: dict[Compression, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
}


@st.composite
def slices(draw: st.DrawFn, size: int) -> slice:
    start = draw(st.integers(0, size))
    return slice(start, draw(st.integers(start, size)), draw(st.sampled_from([None, 1, 2])))


@given(st.data(), st.sampled_from(sorted(PACKERS)), st.sampled_from(["<i2", ">i4", "u1", "<f8"]))
def test_a_part_is_the_part_of_the_whole(data: st.DataObject, packing: Compression, kind: str) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 4))
    axes = tuple(data.draw(st.permutations(range(4))))
    stored = np.arange(np.prod(shape)).astype(kind).reshape(shape, order="F")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block"
        path.write_bytes(b"head" + PACKERS[packing](b"skip" + stored.tobytes(order="F")))
        block = VoxelBlock(path, np.dtype(kind), shape, axes, start=4, offset=4, compression=packing)
        deferred = block.defer()
        whole = deferred.load()
        assert_array_equal(whole, stored.transpose(axes))
        assert whole.dtype == deferred.dtype and whole.shape == deferred.shape and whole.dtype.isnative
        region = tuple(data.draw(slices(size)) for size in whole.shape)
        assert_array_equal(deferred[region], whole[region])


@given(st.data(), st.sampled_from(sorted(PACKERS)), st.sampled_from(["<i2", ">f4"]))
def test_parts_one_after_the_other_are_the_parts_of_the_whole(
    data: st.DataObject, packing: Compression, kind: str
) -> None:
    shape = (*data.draw(st.tuples(*[st.integers(1, 5)] * 3)), 1)
    stored = np.arange(np.prod(shape)).astype(kind).reshape(shape, order="F")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block"
        path.write_bytes(PACKERS[packing](b"skip" + stored.tobytes(order="F")))
        deferred = VoxelBlock(path, np.dtype(kind), shape, (3, 0, 1, 2), offset=4, compression=packing).defer()
        whole, read = deferred.load(), deferred.reader()
        for _ in range(4):  # forwards, back again, twice the same: a reader keeps a place, and gives every part
            region = (slice(None), *(data.draw(slices(size)) for size in whole.shape[1:]))
            assert_array_equal(read(region), whole[region])


def test_a_file_that_is_read_in_order_is_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.random.default_rng(0).integers(0, 9, (40, 40, 300)).astype("u1")
    (tmp_path / "a").write_bytes(gzip.compress(stored.tobytes(order="F")))
    inflated = 0
    plain = gzip.GzipFile.readinto

    def counted(self: gzip.GzipFile, buffer: bytearray) -> int:
        nonlocal inflated
        inflated += (got := plain(self, buffer))
        return got

    monkeypatch.setattr(gzip.GzipFile, "readinto", counted)
    read = (
        VoxelBlock(tmp_path / "a", np.dtype("u1"), (*stored.shape, 1), (3, 0, 1, 2), compression="gzip")
        .defer()
        .reader()
    )
    for start in range(0, 290, 10):  # each begins among the slices of the one before
        part = read((slice(None), slice(None), slice(None), slice(start, start + 20)))
        assert_array_equal(part[0], stored[:, :, start : start + 20])
    assert inflated == stored.size


@pytest.mark.parametrize("cut", [10, 2000])
def test_a_file_that_ends_too_early_says_so_when_it_is_read_in_parts(tmp_path: Path, cut: int) -> None:
    packed = gzip.compress(np.random.default_rng(0).integers(0, 255, 8000).astype("u1").tobytes())
    (tmp_path / "a").write_bytes(packed[:-cut] + packed[-4:])  # the size at the end is right
    read = (
        VoxelBlock(tmp_path / "a", np.dtype("u1"), (20, 20, 20, 1), (3, 0, 1, 2), compression="gzip").defer().reader()
    )
    with pytest.raises(FormatError, match="a: the compressed voxels"):
        read((slice(None),) * 4)


@given(
    st.sampled_from(["i1", "u1", "i2", "u2", "i4"]),
    st.floats(1e-6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_scaling_keeps_neighbouring_numbers_apart(kind: str, slope: float, intercept: float) -> None:
    bounds = np.iinfo(kind)
    stored = np.unique(
        np.clip([bounds.min, bounds.min + 1, -1, 0, 1, bounds.max - 1, bounds.max], bounds.min, bounds.max)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block"
        path.write_bytes(stored.astype(kind).tobytes())
        values = VoxelBlock(path, np.dtype(kind), (len(stored),), (0,), slope=slope, intercept=intercept).load()
        exact = stored * slope + intercept
        assert (np.diff(values) > 0).all()
        assert np.abs(values - exact).max() <= 0.02 * slope


def test_voxels_are_written_first_axis_fastest_and_little_endian(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    with _voxel_files.create_file(tmp_path / "a", compressed=True) as file:
        _voxel_files.write_voxels(file, voxels)
    assert gzip.decompress((tmp_path / "a").read_bytes()) == voxels.astype("<i2").tobytes(order="F")


@pytest.mark.parametrize("packing", ["gzip", "zlib", "bzip2"])
def test_damaged_bytes_are_named(tmp_path: Path, packing: Compression) -> None:
    noise = np.random.default_rng(0).integers(0, 255, 4000, dtype=np.uint8)
    packed = bytearray(PACKERS[packing](noise.tobytes()))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "a").write_bytes(bytes(packed))
    block = VoxelBlock(tmp_path / "a", np.dtype("u1"), (4000,), (0,), compression=packing)
    with pytest.raises(FormatError, match="a: the compressed voxels"):
        block.load()


@pytest.mark.parametrize("kind", ["O", "S4", "M8[s]", "V3"])
def test_what_is_no_number_is_no_voxel(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(b"\0" * 100)
    with pytest.raises(FormatError, match="voxels of type"):
        VoxelBlock(tmp_path / "a", np.dtype(kind), (2,), (0,))
