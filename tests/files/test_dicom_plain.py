"""Pixels that need no decoding are read from their place in the file, and are what decoding gives."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from isocenter.errors import FormatError
from isocenter.files import read
from isocenter.files.dicom.reading.value_map import ValueMap
from isocenter.files.dicom.reading.voxels import Plan, load
from isocenter.values import Deferred
from written_dicom import write_slice

TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32)


def plan_of(folder: Path) -> Plan:
    pixels = read(folder).pixels
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
    straight = load(plan)
    assert_array_equal(straight, load(replace(plan, plain={})))
    assert_array_equal(straight, load(pickle.loads(pickle.dumps(plan))))  # noqa: S301 - our own, just made


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_lie_above_the_stored_ones_do_not_count(tmp_path, signed):
    words = np.random.default_rng(1).integers(0, 2**16, (4, 6), np.uint16, endpoint=False)
    stored = words.view(np.int16) if signed else words
    path = write_slice(tmp_path / "0.dcm", stored, position=(0, 0, 0), BitsStored=12, HighBit=11)
    plan = plan_of(path)
    assert plan.plain
    assert_array_equal(load(plan), load(replace(plan, plain={})))


def test_a_file_that_was_cut_short_or_moved_since_is_named(tmp_path):
    path = write_slice(tmp_path / "0.dcm", np.zeros((4, 6), np.uint16), position=(0, 0, 0))
    image = read(path)
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
