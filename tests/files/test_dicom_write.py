"""A volume becomes a DICOM series that lies where it lay, and holds what it held."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import FormatError, GeometryError, UsageError
from hilum.files import file_formats
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.values import Geometry, Image

NAMES = SeriesNames("patient", "study", "series")
RIGHT_HANDED = np.array([[-1.0, 0, 0, 30], [0, -1.2, 0, -7.5], [0, 0, 2.5, 11], [0, 0, 0, 1]])
SHAPE = (4, 5, 6)


def image(data: np.ndarray, affine: np.ndarray = RIGHT_HANDED, modality: str = "MR") -> Image:
    return Image(data[None], Geometry(data.shape, affine), modality=modality)


def numbered(dtype: str = "u2", low: int = 0) -> np.ndarray:
    """Every voxel another value, so that none can change places unseen."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) + low).astype(dtype)


def there_and_back(written: Image, folder: Path) -> Image:
    series_writing.write_series(written, NAMES, folder)
    return file_formats.read(folder)


@st.composite
def rotated_grids(draw: st.DrawFn) -> np.ndarray:
    """Right-handed grids of any direction, spacing and origin, some with the shear of a tilted gantry."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    length = np.linalg.norm(quaternion)
    w, x, y, z = quaternion / length if length > 0.1 else np.array([1.0, 0, 0, 0])
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * [draw(st.floats(0.3, 4)) for _ in range(3)]
    affine[:3, 2] += draw(st.sampled_from([0.0, 0.0, 0.4])) * affine[:3, 1]
    affine[:3, 3] = [draw(st.floats(-400, 400)) for _ in range(3)]
    return affine


@settings(max_examples=15)
@given(rotated_grids())
def test_every_right_handed_grid_comes_back_as_it_was(affine: np.ndarray) -> None:
    with TemporaryDirectory() as place:
        back = there_and_back(image(numbered(), affine), Path(place, "series"))
        assert back.geometry.equals(
            Geometry(SHAPE, affine, frame_of_reference=NAMES.frame_of_reference), tolerance=1e-4
        )
        np.testing.assert_array_equal(back.data[0], numbered())


def test_a_left_handed_grid_comes_back_with_its_slices_turned_round_and_each_voxel_in_its_place(tmp_path: Path) -> None:
    written = image(numbered(), np.diag([-1.0, -1.0, -2.0, 1.0]))
    back = there_and_back(written, tmp_path / "series")
    np.testing.assert_array_equal(back.data[0, :, :, ::-1], written.data[0])
    np.testing.assert_allclose(back.geometry.to_world([0, 0, 0]), written.geometry.to_world([0, 0, 5]), atol=1e-6)


@pytest.mark.parametrize(("dtype", "low"), [("u2", 65535 - 119), ("i2", -1024), ("u1", 0), ("f4", -50)])
def test_whole_numbers_of_16_bits_are_kept_exactly(dtype: str, low: int, tmp_path: Path) -> None:
    back = there_and_back(image(numbered(dtype, low), modality="CT"), tmp_path / "series")
    np.testing.assert_array_equal(back.data[0], numbered("i4", low))


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (3.7, -1e5), (1e6, 1e9)])
def test_other_numbers_are_off_by_half_a_level_at_most(scale: float, shift: float, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=SHAPE) * scale + shift
    back = there_and_back(image(values), tmp_path / "series")
    level = (values.max() - values.min()) / 65535
    rounding = np.abs(values).max() * 2**-23  # read as float32
    assert np.abs(back.data[0] - values).max() <= level * 0.501 + rounding


def test_a_constant_that_is_no_whole_number_comes_back(tmp_path: Path) -> None:
    back = there_and_back(image(np.full(SHAPE, 0.25)), tmp_path / "series")
    np.testing.assert_allclose(back.data[0], 0.25, rtol=1e-7)


def test_the_same_names_give_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        series_writing.write_series(image(numbered()), NAMES, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == SHAPE[2]
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "other" / n).read_bytes() for n in files)


def test_names_that_only_read_alike_when_joined_give_different_identifiers() -> None:
    assert SeriesNames("ab", "c", "d").study_uid != SeriesNames("a", "bc", "d").study_uid


def test_series_of_one_study_share_study_and_frame_of_reference_but_not_their_own_identifier() -> None:
    one, other = SeriesNames("p", "s", "first"), SeriesNames("p", "s", "second")
    assert (one.study_uid, one.frame_of_reference) == (other.study_uid, other.frame_of_reference)
    assert one.series_uid != other.series_uid
    assert one.instance_uid(1) != other.instance_uid(1)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_what_the_standard_demands_is_there(modality: str, tmp_path: Path) -> None:
    """Types 1 and 2 of the image, plane and pixel modules, PS3.3 C.7.6.1 to C.7.6.3."""
    series_writing.write_series(image(numbered(), modality=modality), NAMES, tmp_path / "series")
    slice_ = pydicom.dcmread(tmp_path / "series" / "0001.dcm")
    assert slice_.SOPClassUID.name == f"{modality} Image Storage"
    for keyword in ("ImageType", "PixelSpacing", "SliceThickness", "ImagePositionPatient", "FrameOfReferenceUID"):
        assert not slice_[keyword].is_empty
    for keyword in ("PatientBirthDate", "StudyDate", "StudyID", "ReferringPhysicianName", "InstanceNumber"):
        assert keyword in slice_
    assert slice_.PixelSpacing == [1.2, 1.0]  # between rows first


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("oblique", [False, True])
def test_dcm2niix_reads_the_same_voxels_in_the_same_places(oblique: bool, tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    written = image(numbered(), turn @ RIGHT_HANDED if oblique else RIGHT_HANDED)
    series_writing.write_series(written, NAMES, tmp_path / "series")
    out = tmp_path / "nifti"
    out.mkdir()
    subprocess.run(["dcm2niix", "-o", out, "-f", "x", tmp_path / "series"], check=True, capture_output=True)
    found = nibabel.load(out / "x.nii")
    data, affine = np.asarray(found.dataobj), np.asarray(found.affine)
    index = np.array([[1, 2, 3], [0, 4, 5], [3, 0, 0]])
    there = np.rint(np.linalg.solve(affine, np.c_[written.geometry.to_world(index), np.ones(3)].T).T[:, :3]).astype(int)
    np.testing.assert_array_equal(data[tuple(there.T)], written.data[0][tuple(index.T)])
    np.testing.assert_allclose(nibabel.affines.apply_affine(affine, there), written.geometry.to_world(index), atol=1e-4)


def test_a_grid_without_a_place_in_a_patient_is_refused(tmp_path: Path) -> None:
    nowhere = Image(numbered()[None], Geometry.of_pixels(SHAPE), modality="MR")
    with pytest.raises(GeometryError, match="no place"):
        series_writing.write_series(nowhere, NAMES, tmp_path / "series")
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_not_at_right_angles_to_columns_are_refused(tmp_path: Path) -> None:
    askew = RIGHT_HANDED.copy()
    askew[0, 1] = 0.3
    with pytest.raises(GeometryError, match="right angles"):
        series_writing.write_series(image(numbered(), askew), NAMES, tmp_path / "series")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    data = numbered("f4")
    data[1, 2, 3] = value
    with pytest.raises(FormatError, match="not numbers"):
        series_writing.write_series(image(data), NAMES, tmp_path / "series")


def test_what_is_neither_ct_nor_mr_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a CT"):
        series_writing.write_series(image(numbered(), modality="US"), NAMES, tmp_path / "series")


def test_a_folder_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        series_writing.write_series(image(numbered()), NAMES, tmp_path / "series")
    assert list((tmp_path / "series").iterdir()) == []
