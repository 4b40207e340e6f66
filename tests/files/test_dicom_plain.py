"""Pixels that need no decoding are read from their place in the file, and are what decoding gives."""

from __future__ import annotations

import pickle
import struct
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from fuzzing import peak_of
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import codecs, voxel_loading
from hilum.files.dicom.reading.value_maps import ValueMap
from hilum.files.dicom.reading.voxel_loading import VoxelPlan
from hilum.values import Deferred
from written_dicom import write_slice

TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32)


def plan_of(folder: Path) -> VoxelPlan:
    pixels = file_formats.read(folder).pixels
    assert isinstance(pixels, Deferred)
    return pixels.load.args[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("line", [(1, 0), (1, -1024), (-2, 7), (0.5, 3)])
def test_straight_from_the_file_come_the_values_that_decoding_gives(tmp_path, kind, line):
    random, info = np.random.default_rng(0), np.iinfo(kind)
    for n in range(3):
        stored = random.integers(info.min, info.max, (4, 6), kind, endpoint=True)
        write_slice(tmp_path / f"{n}.dcm", stored, position=(0, 0, n), RescaleSlope=line[0], RescaleIntercept=line[1])
    plan = plan_of(tmp_path)
    assert len(plan.plain) == 3
    straight = voxel_loading.load_voxels(plan)
    assert_array_equal(straight, voxel_loading.load_voxels(replace(plan, plain={})))
    assert_array_equal(straight, voxel_loading.load_voxels(pickle.loads(pickle.dumps(plan))))  # noqa: S301 - our own, just made


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("fragments", [1, 3])
def test_compressed_slices_too_are_found_by_their_place_in_the_file(tmp_path, syntax, fragments):
    random = np.random.default_rng(0)
    for n in range(3):
        path = tmp_path / f"{n}.dcm"
        write_slice(path, random.integers(-9, 99, (64, 48), np.int16), position=(0, 0, n), RescaleIntercept=n)
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments, has_bot=bool(n))
        dataset.save_as(path)
    plan = plan_of(tmp_path)
    assert [len(one.fragments) for one in plan.plain.values()] == [fragments] * 3
    assert_array_equal(voxel_loading.load_voxels(plan), voxel_loading.load_voxels(replace(plan, plain={})))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"2\.dcm: the pixel data are cut short"):
        voxel_loading.load_voxels(plan)


@pytest.mark.parametrize("shape", [(12, 8, 10), (12, 8, 10, 3)], ids=["grey", "colours"])
def test_a_frame_of_a_compressed_clip_is_read_without_the_others(tmp_path, monkeypatch, shape):
    stored = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    samples, first = (1, stored) if stored.ndim == 3 else (3, stored[..., 0])
    path = write_slice(
        tmp_path / "clip.dcm", first, position=None, orientation=None, spacing=None, PixelData=stored.tobytes(),
        BitsAllocated=8, BitsStored=8, HighBit=7, SamplesPerPixel=samples, PlanarConfiguration=0,
        PhotometricInterpretation="MONOCHROME2" if samples == 1 else "RGB", sop_class="1.2.840.10008.5.1.4.1.1.3.1",
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    clip = file_formats.read(path)
    whole = clip.data

    monkeypatch.setattr(header_reading, "read_object", lambda path: pytest.fail("reads all frames"))
    for frame in (0, 7, 11):
        assert_array_equal(clip.frame(frame).data, whole[:, frame])
        assert_array_equal(whole[0, frame], first[frame])


def test_what_follows_the_last_row_of_a_run_length_segment_is_left_out():
    packed = imagecodecs.packbits_encode(bytes(range(10)) * 2)
    assert bytes(codecs._segment_of_rle(packed, bytearray(20))) == bytes(range(10)) * 2
    assert bytes(codecs._segment_of_rle(packed, bytearray(13))) == bytes([*range(10), 0, 1, 2])
    with pytest.raises(ValueError, match="20 bytes instead of 21"):
        codecs._segment_of_rle(packed, bytearray(21))


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_lie_above_the_stored_ones_do_not_count(tmp_path, signed):
    words = np.random.default_rng(1).integers(0, 2**16, (4, 6), np.uint16, endpoint=False)
    stored = words.view(np.int16) if signed else words
    path = write_slice(tmp_path / "0.dcm", stored, position=(0, 0, 0), BitsStored=12, HighBit=11)
    plan = plan_of(path)
    assert plan.plain
    assert_array_equal(voxel_loading.load_voxels(plan), voxel_loading.load_voxels(replace(plan, plain={})))


def test_a_file_that_was_cut_short_or_moved_since_is_named(tmp_path):
    path = write_slice(tmp_path / "0.dcm", np.zeros((4, 6), np.uint16), position=(0, 0, 0))
    image = file_formats.read(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(FormatError, match=r"0\.dcm: the pixel data are cut short"):
        image.data  # noqa: B018
    path.unlink()
    with pytest.raises(FormatError, match=r"0\.dcm: cannot be read any more"):
        image.data  # noqa: B018


@given(st.sampled_from(TYPES), st.integers(-5, 5).filter(bool), st.integers(-70_000, 70_000), st.integers(0, 99))
def test_whole_numbers_wrap_round_on_the_way_and_come_out_right(kind, slope, intercept, seed):
    info = np.iinfo(kind)
    stored = np.random.default_rng(seed).integers(info.min, info.max, 50, kind, endpoint=True)
    values = ValueMap(float(slope), float(intercept), low=int(info.min), high=int(info.max))(stored)
    assert values.dtype == ValueMap(float(slope), float(intercept), low=int(info.min), high=int(info.max)).dtype
    assert_array_equal(values.astype(np.int64), stored.astype(np.int64) * slope + intercept)


@pytest.mark.whole
def test_a_million_empty_fragments_take_hardly_more_memory_than_the_file(tmp_path):
    path, empty = tmp_path / "a.dcm", struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    write_slice(path, np.zeros((64, 48), np.int16), position=(0, 0, 0))
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    start = header_reading.read_header(path).offset
    path.write_bytes(path.read_bytes()[:start] + 1_000_000 * empty + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    peak, count = peak_of(lambda: len(header_reading.read_header(path).fragments))
    assert count == 999_999  # the first is the table
    # A million objects would take twenty times the file; pages that the system had taken away come back meanwhile.
    assert peak < 10 * path.stat().st_size
    with pytest.raises(FormatError):
        voxel_loading.load_voxels(plan_of(path))
