"""MGH and MGZ: compared with nibabel, with what the header's flag says taken at its word."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import real_data
from hilum.errors import FormatError
from hilum.files import file_formats

NAMES = real_data.parameters("nifti", ["nib_test.mgz", "niivue_wm.mgz"])


@pytest.mark.parametrize("name", NAMES)
def test_real_volumes_agree_with_nibabel(name: str) -> None:
    path = real_data.find(f"nifti/{name}")
    image, other = file_formats.read(path), nibabel.load(path)
    assert_allclose(image.geometry.affine, other.affine, atol=1e-9)
    values = np.asarray(other.dataobj)
    assert_array_equal(image.data[0], values if values.ndim == 3 else np.moveaxis(values, -1, 0))
    assert image.dtype.isnative


def test_frames_have_the_repetition_time_in_seconds(data: Path) -> None:
    image = file_formats.read(data / "nifti" / "nib_test.mgz")
    assert image.frames == 2
    assert image.times == pytest.approx((0.0, nibabel.load(data / "nifti" / "nib_test.mgz").header["tr"] / 1000))


def test_directions_that_are_not_of_length_one_are_noted(data: Path, tmp_path: Path) -> None:
    assert any("not of length 1" in note for note in file_formats.read(data / "nifti" / "nib_test.mgz").notes)
    nibabel.save(nibabel.MGHImage(np.zeros((2, 3, 4), np.uint8), np.diag([2, 2, 2, 1.0])), tmp_path / "a.mgh")
    assert file_formats.read(tmp_path / "a.mgh").notes == ()


def test_a_real_volume_with_plain_directions_has_no_notes(corpus: Path) -> None:
    assert file_formats.read(corpus / "nifti" / "niivue_wm.mgz").notes == ()


def test_a_header_whose_directions_mean_nothing_gives_neither_size_nor_sides(tmp_path: Path) -> None:
    nibabel.save(nibabel.MGHImage(np.zeros((2, 3, 4), np.uint8), np.diag([2, 2, 2, 1.0])), tmp_path / "a.mgh")
    raw = bytearray((tmp_path / "a.mgh").read_bytes())
    raw[28:30] = b"\0\0"
    (tmp_path / "b.mgz").write_bytes(gzip.compress(bytes(raw)))
    assert file_formats.read(tmp_path / "a.mgh").spacing == (2.0, 2.0, 2.0)
    geometry = file_formats.read(tmp_path / "b.mgz").geometry
    assert (geometry.spacing, geometry.oriented) == (None, False)


@pytest.mark.parametrize("name", NAMES)
def test_a_region_is_the_same_part_of_the_whole(name: str) -> None:
    image = file_formats.read(real_data.find(f"nifti/{name}"))
    # From the middle of each axis on, so that it is no region from the start.
    region = (slice(0, 1), *(slice(size // 2, size // 2 + 2) for size in image.shape[1:]))
    assert_array_equal(file_formats.read(real_data.find(f"nifti/{name}")).pixels[region], image.data[region])


def test_a_damaged_file_is_refused(data: Path, tmp_path: Path) -> None:
    whole = gzip.decompress((data / "nifti" / "nib_test.mgz").read_bytes())
    for name, content in (
        ("short.mgh", whole[:400]),
        ("head.mgh", whole[:100]),
        ("version.mgh", b"\0\0\0\7" + whole[4:]),
        ("type.mgh", whole[:20] + b"\0\0\0\7" + whole[24:]),
        ("sizes.mgh", whole[:4] + b"\xff" * 4 + whole[8:]),
        ("short.mgz", (data / "nifti" / "nib_test.mgz").read_bytes()[:300]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=name.replace(".", r"\.")):
            file_formats.read(tmp_path / name)
