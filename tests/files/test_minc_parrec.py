"""MINC and PAR/REC, whose readers lean on nibabel: axes, values, and what is refused."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.io import netcdf_file

from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats


def minc1(
    path: Path, names: tuple[str, ...], stored: np.ndarray, low: float, high: float, left_out: tuple[str, ...] = ()
) -> Path:
    """A MINC 1 file; `stored` are unsigned bytes that stand for the values from low to high."""
    with netcdf_file(path, "w") as file:
        for name, size in zip(names, stored.shape, strict=True):
            file.createDimension(name, size)
            axis = file.createVariable(name, "i", ())
            axis.spacing = b"regular__"
            if name.endswith("space"):
                start, step = {"xspace": (10.0, -2.0), "yspace": (20.0, 3.0), "zspace": (30.0, 4.0)}[name]
                for key, value in (("start", start), ("step", step)):
                    if key not in left_out:
                        setattr(axis, key, value)
        image = file.createVariable("image", "b", names)
        image.signtype, image.valid_range = b"unsigned", np.array([0.0, 255.0])
        image[:] = stored.astype(np.int8)
        for name, value in (("image-max", high), ("image-min", low)):
            file.createVariable(name, "d", ())[...] = value
    return path


def test_a_real_minc_2_file_agrees_with_nibabel(data: Path) -> None:
    path = data / "nifti" / "nib_minc2.mnc"
    image, other = file_formats.read(path), nibabel.load(path)
    assert image.geometry.orientation == "RAS"
    assert_array_equal(image.data[0], other.get_fdata().transpose(2, 1, 0))
    for index in ((0, 0, 0), (3, 5, 7), (19, 19, 9)):
        there = np.array([*index[::-1], 1]) @ other.affine.T
        assert_allclose(image.geometry.to_world(index), there[:3])


def test_a_minc_1_file_lies_where_start_and_step_say(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    image = file_formats.read(minc1(tmp_path / "a.mnc", ("zspace", "yspace", "xspace"), stored, 0.0, 510.0))
    assert image.geometry.shape == (2, 3, 4) and image.geometry.orientation == "LAS"
    assert_allclose(image.geometry.to_world((1, 2, 3)), (10 - 2, 20 + 6, 30 + 12))
    assert_allclose(image.data[0], stored.T * 2.0)


def test_what_a_minc_header_does_not_say_is_unknown(tmp_path: Path) -> None:
    axes, stored = ("zspace", "yspace", "xspace"), np.zeros((4, 3, 2), np.uint8)
    unplaced = file_formats.read(minc1(tmp_path / "a.mnc", axes, stored, 0.0, 1.0, left_out=("start",))).geometry
    assert (unplaced.spacing, unplaced.oriented) == ((2.0, 3.0, 4.0), False)
    unsized = file_formats.read(minc1(tmp_path / "b.mnc", axes, stored, 0.0, 1.0, left_out=("start", "step"))).geometry
    assert (unsized.spacing, unsized.shape) == (None, (2, 3, 4))


def test_a_valid_range_that_no_number_lies_in_is_refused(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    path = minc1(tmp_path / "a.mnc", ("zspace", "yspace", "xspace"), stored, 0.0, 255.0)
    with netcdf_file(path, "a", mmap=False) as file:
        file.variables["image"].valid_range = np.array([255.0, 0.0])
    with pytest.raises(FormatError, match=r"a\.mnc: its valid_range is 255 to 0"):
        file_formats.read(path)


def test_time_becomes_frames(tmp_path: Path) -> None:
    stored = np.arange(48, dtype=np.uint8).reshape(2, 4, 3, 2)
    image = file_formats.read(minc1(tmp_path / "a.mnc", ("time", "zspace", "yspace", "xspace"), stored, 0.0, 255.0))
    assert_allclose(image.data[0], stored.transpose(0, 3, 2, 1))


def test_a_gzipped_minc_file_is_read(tmp_path: Path, data: Path) -> None:
    whole = (data / "nifti" / "nib_minc2.mnc").read_bytes()
    (tmp_path / "a.mnc.gz").write_bytes(gzip.compress(whole))
    assert_array_equal(
        file_formats.read(tmp_path / "a.mnc.gz").data, file_formats.read(data / "nifti" / "nib_minc2.mnc").data
    )


def test_a_damaged_minc_file_is_refused(tmp_path: Path, data: Path) -> None:
    whole = (data / "nifti" / "nib_minc2.mnc").read_bytes()
    (tmp_path / "a.mnc").write_bytes(whole[:4000])
    with pytest.raises(FormatError, match=r"a\.mnc: "):
        file_formats.read(tmp_path / "a.mnc")
    with h5py.File(tmp_path / "b.mnc", "w") as file:
        file["something"] = 1
    with pytest.raises(FormatError, match=r"b\.mnc: no MINC volume"):
        file_formats.read(tmp_path / "b.mnc")


@pytest.mark.parametrize("name", ["nib_phantom_EPI.PAR", "nib_phantom_EPI.REC"])
def test_either_half_of_a_philips_pair_opens_both(data: Path, name: str) -> None:
    image, other = file_formats.read(data / "nifti" / name), nibabel.load(data / "nifti" / "nib_phantom_EPI.PAR")
    assert image.geometry.orientation == "LPS" and image.frames == 3
    assert_allclose(image.geometry.affine, other.affine)
    assert_array_equal(image.data[0], np.moveaxis(other.get_fdata(), -1, 0))
    assert image.times == pytest.approx((0.0, 2.0, 4.0))


@pytest.fixture
def phantom(data: Path, tmp_path: Path) -> Path:
    for suffix in (".PAR", ".REC"):
        shutil.copy(data / "nifti" / f"nib_phantom_EPI{suffix}", tmp_path / f"p{suffix}")
    (tmp_path / "p.PAR").chmod(0o644)
    (tmp_path / "p.REC").chmod(0o644)
    return tmp_path / "p.PAR"


def test_a_philips_pair_cut_short_is_refused(phantom: Path) -> None:
    text = phantom.read_text()
    phantom.with_suffix(".REC").write_bytes(phantom.with_suffix(".REC").read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"p\.REC: the voxels are cut short: .* 221184 bytes and there are 221084"):
        file_formats.read(phantom)
    phantom.write_text("\n".join(text.splitlines()[:-9]))
    with pytest.raises(FormatError, match=r"p\.PAR: the header is incomplete"):
        file_formats.read(phantom)
    phantom.with_suffix(".REC").unlink()
    with pytest.raises(FormatError, match=r"half of a pair: p\.REC is missing"):
        file_formats.read(phantom)


def test_a_protocol_may_have_any_name(phantom: Path) -> None:
    phantom.write_bytes(phantom.read_bytes().replace(b"EPI_asc CLEAR", b"Sch\xe4del \xb5"))
    assert file_formats.read(phantom).data.shape == (1, 3, 64, 64, 9)


def test_a_localizer_in_several_directions_is_refused(phantom: Path) -> None:
    lines = phantom.read_text().splitlines()
    at = max(n for n, line in enumerate(lines) if line.strip() and line.split()[0].isdigit())
    words = lines[at].split()
    assert words[25] == "1"  # slice orientation
    words[25] = "2"
    phantom.write_text("\n".join([*lines[:at], " " + " ".join(words), *lines[at + 1 :]]))
    with pytest.raises(GeometryError, match=r"p\.PAR: no one grid \(Varying slice orientation"):
        file_formats.read(phantom)


def test_an_emptied_general_part_is_not_believed(phantom: Path) -> None:
    """As in umass_anonymized.PAR of nibabel, whose slices still know where they are."""
    text = phantom.read_text().replace("2.508  30.339  -16.032", "0.0  0.0  0.0").replace("-13.265", "0.0")
    phantom.write_text(text)
    with pytest.raises(GeometryError, match="general part"):
        file_formats.read(phantom)


def test_slices_away_from_where_the_header_puts_them_are_refused(phantom: Path) -> None:
    text = phantom.read_text()
    assert "-16.032" in text
    phantom.write_text(text.replace("-16.032", "-56.032"))
    with pytest.raises(GeometryError, match=r"p\.PAR: slices lie up to 40\.\d+ mm from"):
        file_formats.read(phantom)


def test_frames_that_differ_in_more_than_the_dynamic_are_named(phantom: Path) -> None:
    lines = phantom.read_text().splitlines(keepends=True)
    image_lines = [n for n, line in enumerate(lines) if line.strip() and line.split()[0].isdigit()]
    second = [n for n in image_lines if lines[n].split()[2] == "2"]
    kept = [line for n, line in enumerate(lines) if n not in image_lines or line.split()[2] in "12"]
    # The second dynamic becomes the first one's phase image (type 3).
    changed = []
    for line in kept:
        if line in [lines[n] for n in second]:
            head, tail = line[:8], line[8:]
            words = (head + tail).split()
            words[2], words[4] = "1", "3"
            line = " " + " ".join(words) + "\n"  # noqa: PLW2901
        changed.append(line)
    text = "".join(changed).replace("number of dynamics            :   3", "number of dynamics            :   1")
    phantom.write_text(text)
    image = file_formats.read(phantom)
    assert image.frames == 2 and image.times is None
    assert image.facts["image_type_mr"] == (0, 3)
    assert any("image_type_mr" in note for note in image.notes)
