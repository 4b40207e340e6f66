"""The mark of a synthetic image in its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest

from hilum.files import file_formats, synthetic_marks
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.files.synthetic_marks import SYNTHETIC
from hilum.values import Geometry, Image

MARK = "0123456789abcdef" * 4


def synthetic(shape: tuple[int, ...], facts: dict[str, str]) -> Image:
    geometry = Geometry.of_pixels(shape) if len(shape) == 2 else Geometry(shape, np.diag([1.0, 2.0, 3.0, 1.0]))
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(1, *shape)
    return Image(pixels, geometry, channels=("0",), facts=facts)


@pytest.mark.parametrize(("name", "shape"), [("x.png", (5, 7)), ("x.nii.gz", (5, 7, 3)), ("x.nii", (5, 7, 3))])
def test_a_mark_is_read_back_and_changes_no_voxel(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    marked, plain = tmp_path / name, tmp_path / f"plain_{name}"
    file_formats.write(synthetic(shape, {SYNTHETIC: MARK}), marked)
    file_formats.write(synthetic(shape, {}), plain)
    assert synthetic_marks.read_mark(marked) == MARK
    assert synthetic_marks.read_mark(plain) == ""
    assert np.array_equal(file_formats.read(marked).data, file_formats.read(plain).data)


def test_other_programs_read_the_mark(tmp_path: Path) -> None:
    for name, shape in (("x.png", (5, 7)), ("x.nii.gz", (5, 7, 3))):
        file_formats.write(synthetic(shape, {SYNTHETIC: MARK}), tmp_path / name)
    with PIL.Image.open(tmp_path / "x.png") as opened:
        assert opened.info["Synthetic"] == MARK
        opened.verify()
    header = nibabel.load(tmp_path / "x.nii.gz").header
    assert bytes(header["descrip"]).rstrip(b"\0").decode() == f"Synthetic {MARK}"


def test_a_series_of_dicom_states_that_it_is_synthetic_by_the_attribute_of_the_standard(tmp_path: Path) -> None:
    for name, facts in (("marked", {SYNTHETIC: MARK}), ("plain", {})):
        image = replace(synthetic((5, 7, 3), facts), modality="MR")
        series_writing.write_series(image, SeriesNames("p", name, "s"), tmp_path / name)
    for path in (tmp_path / "marked").iterdir():
        assert pydicom.dcmread(path).SyntheticData == "YES"
        assert synthetic_marks.read_mark(path) == "YES"
    for path in (tmp_path / "plain").iterdir():
        assert "SyntheticData" not in pydicom.dcmread(path)
        assert synthetic_marks.read_mark(path) == ""


def test_a_file_that_cannot_be_read_has_no_mark(tmp_path: Path) -> None:
    for name in ("x.png", "x.nii", "x.nii.gz", "x.txt", "x.dcm"):
        (tmp_path / name).write_bytes(b"no image")
        assert synthetic_marks.read_mark(tmp_path / name) == ""
    assert synthetic_marks.read_mark(tmp_path / "absent.png") == ""
