"""Series written slice by slice come back with every voxel in its place."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.uid import ComputedRadiographyImageStorage, MRImageStorage

from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats
from hilum.files.dicom.reading import dicom_reading
from hilum.values import Geometry, Image
from strategies import geometries
from written_dicom import AXIAL, sequence, write_enhanced, write_slice

LPS = np.diag([-1.0, -1.0, 1.0])


def write_grid(folder: Path, grid: Geometry, voxels: np.ndarray[Any, Any], seed: int, **tags: Any) -> None:
    """(columns, rows, slices) on a grid whose first two axes are at a right angle, under shuffled names."""
    affine = LPS @ grid.affine[:3]
    columns, rows = grid.steps[0], grid.steps[1]
    orientation = (*(affine[:, 0] / columns), *(affine[:, 1] / rows))
    names = [f"{n:03d}" for n in range(grid.shape[2])]
    random.Random(seed).shuffle(names)  # noqa: S311
    for n, name in enumerate(names):
        write_slice(
            folder / f"{tags.get('prefix', '')}{name}.dcm",
            voxels[:, :, n].T,
            position=affine[:, 3] + n * affine[:, 2],
            orientation=orientation,
            spacing=(rows, columns),
            SliceThickness=1.0,
            **{keyword: value for keyword, value in tags.items() if keyword != "prefix"},
        )


@st.composite
def slabs(draw: st.DrawFn) -> Geometry:
    """Oblique grids, also sheared along the slices (a gantry tilt), with more than one slice."""
    grid = draw(geometries(sheared=False))
    affine = grid.affine.copy()
    tilt = draw(st.sampled_from([0.0, 0.3, -0.5]))
    affine[:3, 2] += tilt * affine[:3, 1] / grid.steps[1] * grid.steps[2]
    return Geometry((*grid.shape[:2], draw(st.integers(2, 6))), affine)


@settings(max_examples=25)
@given(slabs(), st.integers(0, 99))
def test_every_voxel_comes_back_in_its_place_whatever_the_files_are_called(grid: Geometry, seed: int) -> None:
    voxels = np.random.default_rng(seed).integers(0, 4000, grid.shape, dtype=np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        write_grid(Path(folder), grid, voxels, seed)
        image = file_formats.read(folder)
        # Slices follow the normal of rows and columns, so the third axis may come turned round.
        there = np.rint(image.geometry.to_index(grid.to_world(np.argwhere(voxels >= 0)))).astype(int)
        assert_allclose(image.geometry.to_world(there), grid.to_world(np.argwhere(voxels >= 0)), atol=2e-3)
        assert_array_equal(image.data[0][tuple(there.T)], voxels.reshape(-1))
    assert image.geometry.frame_of_reference == "1.2.3.3"


@settings(max_examples=10)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_volumes_at_the_same_positions_become_frames(frames: int, slices: int, seed: int, has_times: bool) -> None:
    voxels = np.random.default_rng(seed).integers(0, 999, (frames, 3, 4, slices), dtype=np.uint16)
    order = [(t, n) for t in range(frames) for n in range(slices)]
    with tempfile.TemporaryDirectory() as folder:
        names = random.Random(seed).sample(range(1000), len(order))  # noqa: S311
        for (t, n), name in zip(order, names, strict=True):
            tags = {"TemporalPositionIdentifier": t + 1} if has_times else {}
            # Where the time is told, instance numbers say something else and must not count.
            instance = 1000 - t if has_times else 1 + t * slices + n
            write_slice(
                Path(folder) / f"{name}", voxels[t, :, :, n].T, position=(0, 0, 2 * n), InstanceNumber=instance,
                SliceThickness=2, **tags,
            )  # fmt: skip
        image = file_formats.read(folder)
        assert_array_equal(image.data[0], voxels)
    expected = "temporal position" if has_times else "rank of the instance number"
    assert any(f"{frames} volumes distinguished by {expected}" in note for note in image.notes)


def test_times_are_seconds_from_the_first_volume(tmp_path: Path) -> None:
    for t in range(3):
        for n in range(2):
            write_slice(
                tmp_path / f"{t}_{n}.dcm", np.full((2, 2), t, np.uint16), position=(0, 0, n), SliceThickness=1,
                TemporalPositionIdentifier=3 - t, AcquisitionDate="20200101", AcquisitionTime=f"2359{58 - 2 * t}.{n}",
            )  # fmt: skip
    image = file_formats.read(tmp_path)
    assert image.times == (0.0, 2.0, 4.0)
    assert_array_equal(image.data[0, :, 0, 0, 0], [2, 1, 0])


def test_a_cine_of_one_slice_has_its_trigger_times(tmp_path: Path) -> None:
    for t in range(3):
        write_slice(tmp_path / f"{t}.dcm", np.full((2, 2), t, np.uint16), TriggerTime=40.0 * t, SliceThickness=8)
    image = file_formats.read(tmp_path)
    assert image.shape == (1, 3, 2, 2, 1)
    assert image.times == (0.0, 0.04, 0.08)


def test_magnitude_and_phase_of_one_grid_are_channels(tmp_path: Path) -> None:
    for part, value in (("P", 7), ("M", 3)):
        for n in range(2):
            write_slice(
                tmp_path / f"{part}{n}.dcm", np.full((2, 2), value, np.uint16), position=(0, 0, n), SliceThickness=1,
                sop_class=MRImageStorage, ImageType=["ORIGINAL", "PRIMARY", part, "ND"],
            )  # fmt: skip
    image = file_formats.read(tmp_path)
    assert image.channels == ("magnitude", "phase")
    assert_array_equal(image.data[:, 0, 0, 0], [3, 7])
    assert_array_equal(file_formats.read(tmp_path, part="phase").data, np.full((1, 2, 2, 2), 7))


def test_kinds_on_different_slices_are_volumes_of_their_own(tmp_path: Path) -> None:
    for part, slices in (("P", 2), ("M", 4)):
        for n in range(slices):
            write_slice(
                tmp_path / f"{part}{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1,
                sop_class=MRImageStorage, ImageType=["ORIGINAL", "PRIMARY", part], SeriesDescription="flow",
            )  # fmt: skip
    volumes = file_formats.read_volumes(tmp_path)
    assert {name: image.shape[-1] for name, image in volumes.items()} == {"flow_magnitude": 4, "flow_phase": 2}


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"orientation": (1, 0, 0, 0, 0, -1)}, "2 orientations in one series (ImageOrientationPatient (0020,0037))"),
        ({"spacing": (1, 1.1)}, "2 pixel spacings in one series (PixelSpacing (0028,0030))"),
        ({"FrameOfReferenceUID": "1.2.9"}, "2 frames of reference in one series (FrameOfReferenceUID (0020,0052))"),
        ({"pixels": np.ones((3, 2), np.uint16)}, "2 sizes in one series"),
        ({"position": (0, 0, 2.5)}, "slices are not evenly spaced: gaps of 0.5, 1, 1.5 mm"),
        ({"position": (0, 0, 4)}, "1 slice is missing, the first between 1.dcm and 3.dcm: gaps of 1, 2 mm"),
        ({"position": (0, 0, 1)}, "slices are doubled or missing"),
        ({"position": (0.2, 0, 2)}, "on no straight line"),
        ({"position": None, "orientation": None}, "does not state where it lies"),
        ({"position": None}, "ImagePositionPatient (0020,0032) is missing"),
        ({"spacing": None}, "PixelSpacing (0028,0030) is missing"),
        ({"orientation": (0, 0, 0, 0, 0, 0)}, "are not two unit vectors at a right angle"),
        ({"spacing": (0, 1)}, "PixelSpacing (0028,0030) is 0\\1"),
    ],
)
def test_one_slice_that_does_not_belong_refuses_the_series(tmp_path: Path, odd: dict[str, Any], words: str) -> None:
    for n in range(4):
        slice_ = {"pixels": np.ones((2, 2), np.uint16), "position": (0, 0, n)} | (odd if n == 2 else {})
        write_slice(tmp_path / f"{n}.dcm", slice_.pop("pixels"), SliceThickness=1, **slice_)
    with pytest.raises(GeometryError) as refusal:
        file_formats.read(tmp_path)
    assert words in refusal.value.problem
    assert str(tmp_path) in refusal.value.where and refusal.value.remedy


def test_one_object_with_two_orientations_cannot_be_sorted_into_folders(tmp_path: Path) -> None:
    turned = {"PlaneOrientationSequence": sequence(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])}
    path = write_enhanced(
        tmp_path / "e.dcm", np.ones((2, 2, 2), np.uint16), [enhanced_frame(0), enhanced_frame(3) | turned]
    )
    with pytest.raises(GeometryError, match="2 orientations in one series") as refusal:
        file_formats.read(path)
    assert refusal.value.remedy == "Export the frames of each as a series of their own"


@pytest.mark.parametrize(
    ("tags", "units"),
    [
        (lambda n: {"RescaleIntercept": 0, "RescaleSlope": 1, "RescaleType": "US" if n == 2 else "HU"}, "HU.*none"),
        (lambda n: {"Modality": "PT", "Units": "BQML" if n == 2 else "CNTS"}, "counts.*Bq/ml"),
    ],
)
def test_slices_whose_values_have_different_units_are_refused(tmp_path: Path, tags: Any, units: str) -> None:
    for n in range(4):
        write_slice(tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1, **tags(n))
    first, other = units.split(".*")
    with pytest.raises(FormatError, match=f"different units in one series: {first} in 0.dcm, {other} in 2.dcm"):
        file_formats.read(tmp_path)


def test_a_copy_of_a_slice_is_read_once_with_a_note(tmp_path: Path) -> None:
    for n in range(3):
        write_slice(tmp_path / f"{n}.dcm", np.full((2, 2), n, np.uint16), position=(0, 0, n), SliceThickness=1)
    alone = file_formats.read(tmp_path)
    copy = pydicom.dcmread(tmp_path / "1.dcm")
    copy.file_meta.SourceApplicationEntityTitle = "ANOTHER"  # who wrote the file is no part of the object
    copy.save_as(tmp_path / "copy.dcm")
    image = file_formats.read(tmp_path)
    assert image.notes == ("copy.dcm is a copy of 1.dcm: it is read once", *alone.notes)
    assert_array_equal(image.data, alone.data)
    assert image.geometry.equals(alone.geometry)


@pytest.mark.parametrize("position", [(0, 0, 1), None])
def test_two_objects_with_one_uid_and_different_pixels_are_refused(position: Any, tmp_path: Path) -> None:
    for n, name in enumerate(("1.dcm", "other.dcm")):
        write_slice(tmp_path / name, np.full((2, 2), n, np.uint16), position=position, SOPInstanceUID="1.2.3.4")
    with pytest.raises(GeometryError, match=r"1.dcm and other.dcm have one SOPInstanceUID \(0008,0018\) and different"):
        file_formats.read(tmp_path)


def test_repeats_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    for n in range(4):
        write_slice(tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n % 2), SliceThickness=1)
    with pytest.raises(GeometryError, match="nothing distinguishes"):
        file_formats.read(tmp_path)


def test_two_fields_of_view_beside_each_other_are_no_repeats(tmp_path: Path) -> None:
    for n in range(4):
        write_slice(
            tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(100 * (n // 2), 0, n % 2), InstanceNumber=n,
            SliceThickness=1,
        )  # fmt: skip
    with pytest.raises(GeometryError, match="at one depth but 100 mm from each other"):
        file_formats.read(tmp_path)


def test_orientations_that_differ_by_rounding_are_one_and_by_more_are_two(tmp_path: Path) -> None:
    for tilt, refused in ((0.0009, False), (0.002, True)):
        for n in range(2):
            write_slice(
                tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1,
                orientation=(1, 0, 0, 0, 1, n * tilt),
            )  # fmt: skip
        if refused:
            with pytest.raises(GeometryError, match="2 orientations"):
                file_formats.read(tmp_path)
        else:
            assert file_formats.read(tmp_path).shape == (1, 2, 2, 2)


def test_gaps_that_differ_by_less_than_one_percent_are_equal(tmp_path: Path) -> None:
    for n, depth in enumerate((0, 1.004, 1.998, 3.003)):
        write_slice(tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, depth), SliceThickness=1)
    assert_allclose(file_formats.read(tmp_path).geometry.steps[2], 3.003 / 3)


def test_missing_slices_are_marked_even_where_no_padding_is_stated(tmp_path: Path) -> None:
    for n in (0, 1, 4):
        write_slice(
            tmp_path / f"{n}.dcm", np.zeros((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1,
            RescaleSlope=1, RescaleIntercept=-1024,
        )  # fmt: skip
    image = file_formats.read(tmp_path, fill_missing=True)
    assert image.facts["missing_slices"] == (2, 3)
    assert image.valid[0, 0, 0].tolist() == [True, True, False, False, True]
    assert image.data[0, 0, 0].tolist() == [-1024, -1024, -1025, -1025, -1024]
    assert image.pixels[:, :, :, 2:4].max() == -1025


def test_missing_slices_between_coloured_ones_stay_refused(data: Path, tmp_path: Path) -> None:
    for path in sorted((data / "dicom" / "series" / "sc_rgb_volume_j2k").iterdir()):
        if "0002" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(GeometryError, match="no colour can stand for a missing one"):
        file_formats.read(tmp_path, fill_missing=True)


def test_slices_that_state_different_padding_have_none_marked(tmp_path: Path) -> None:
    for n in range(2):
        write_slice(
            tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1,
            PixelPaddingValue=n,
        )  # fmt: skip
    image = file_formats.read(tmp_path)
    assert image.padding is None
    assert "slices state different padding values: none is marked" in image.notes


def rescaled_frames(tmp_path: Path, slopes: list[float], positions: list[float], padding: int | None) -> Image:
    """An enhanced object whose frames have slopes of their own; the first pixel of each holds -100."""
    frames = [
        {
            "PlanePositionSequence": sequence(ImagePositionPatient=[0, 0, z]),
            "FrameContentSequence": sequence(StackID="1", InStackPositionNumber=n + 1),
            "PixelValueTransformationSequence": sequence(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US"),
        }
        for n, (slope, z) in enumerate(zip(slopes, positions, strict=True))
    ]
    pixels = np.full((len(frames), 4, 4), 7, np.int16)
    pixels[:, 0, 0] = -100
    stated = {} if padding is None else {"PixelPaddingValue": padding}
    return file_formats.read(write_enhanced(tmp_path / "a.dcm", pixels, frames, **stated), fill_missing=True)


def test_padding_is_marked_only_where_it_means_one_value_in_every_frame(tmp_path: Path) -> None:
    image = rescaled_frames(tmp_path, [1, 2, 3], [0, 3, 6], -100)
    assert image.padding is None
    assert "slices state different padding values: none is marked" in image.notes
    image = rescaled_frames(tmp_path, [2, 2, 2], [0, 3, 6], -100)
    assert image.padding == (-200, -200)


def test_missing_slices_are_no_measurement_of_any_frame(tmp_path: Path) -> None:
    image = rescaled_frames(tmp_path, [1, 2, 3, 1], [0, 3, 6, 12], None)
    assert image.padding == (-(2**15) * 3 - 1,) * 2


def test_more_missing_than_there_is_refused_even_then(tmp_path: Path) -> None:
    for n in (0, 1, 9):
        write_slice(tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1)
    with pytest.raises(GeometryError, match="7 slices are missing"):
        file_formats.read(tmp_path, fill_missing=True)


def test_slices_without_any_position_are_frames(tmp_path: Path) -> None:
    for n in range(3):
        write_slice(
            tmp_path / f"{9 - n}.dcm", np.full((4, 2), n, np.uint16), position=None, orientation=None, spacing=None,
            InstanceNumber=n + 1,
        )  # fmt: skip
    image = file_formats.read(tmp_path)
    assert image.shape == (1, 3, 4, 2)
    assert image.spacing is None and image.geometry.orientation is None
    assert image.data[0, :, 0, 0].tolist() == [0, 1, 2]


def test_radiographs_of_one_series_are_images_of_their_own(tmp_path: Path) -> None:
    for n in range(2):
        write_slice(
            tmp_path / f"{n}.dcm", np.full((4, 2 + n), n, np.uint16), position=None, orientation=None, spacing=None,
            sop_class=ComputedRadiographyImageStorage, Modality="CR", SeriesDescription="chest pa",
        )  # fmt: skip
    assert {name: image.shape for name, image in file_formats.read_volumes(tmp_path).items()} == {
        "chest_pa_1": (1, 4, 2),
        "chest_pa_2": (1, 4, 3),
    }


def test_what_is_no_dicom_is_passed_over_in_a_folder(tmp_path: Path) -> None:
    write_slice(tmp_path / "IM0001", np.ones((2, 2), np.uint16), SliceThickness=1)
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "deeper").mkdir()
    write_slice(tmp_path / "deeper" / "1.2.840.7", np.ones((2, 2), np.uint16), position=(0, 0, 1), SliceThickness=1)
    assert file_formats.read(tmp_path).shape == (1, 2, 2, 2)


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    with pytest.raises(FormatError, match="no DICOM file in this folder"):
        file_formats.read(tmp_path)


def test_a_slice_that_has_lost_its_pixels_is_not_passed_over(tmp_path: Path) -> None:
    for n in range(3):
        write_slice(tmp_path / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1)
    write_slice(tmp_path / "3.dcm", np.ones((2, 2), np.uint16), position=(0, 0, 3), PixelData=None)
    with pytest.raises(FormatError, match=r"3\.dcm: holds no image: CT Image Storage without PixelData"):
        file_formats.read(tmp_path)


def test_a_damaged_slice_is_refused_by_name_when_it_is_decoded(tmp_path: Path) -> None:
    for n in range(3):
        write_slice(tmp_path / f"{n}.dcm", np.ones((8, 8), np.uint16), position=(0, 0, n), SliceThickness=1)
    image = file_formats.read(tmp_path)
    (tmp_path / "1.dcm").write_bytes((tmp_path / "1.dcm").read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"1\.dcm"):
        _ = image.data
    with pytest.raises(FormatError, match="cut short: 108 bytes where 128 belong"):
        file_formats.read(tmp_path)


def test_two_series_in_a_folder_have_two_names_and_neither_names_the_patient(tmp_path: Path) -> None:
    for series in (1, 2):
        write_slice(
            tmp_path / f"{series}.dcm", np.ones((2, 2), np.uint16), SliceThickness=1,
            SeriesInstanceUID=f"1.2.3.{series}", SeriesDescription="CHEST Doe" if series == 1 else "CHEST 1/2 ",
        )  # fmt: skip
    assert sorted(file_formats.read_volumes(tmp_path)) == ["CHEST_1_2", "CT"]


def test_the_files_of_one_series_can_be_given_by_name(tmp_path: Path) -> None:
    paths = [
        write_slice(tmp_path / f"{n}.dcm", np.full((2, 2), n, np.uint16), position=(0, 0, n), SliceThickness=1)
        for n in range(3)
    ]
    (image,) = dicom_reading.read_series(paths[1:]).values()
    assert image.data[0, 0, 0].tolist() == [1, 2]
    assert image.source is not None and image.source.paths == (str(paths[1]), str(paths[2]))


def enhanced_frame(depth: float, **content: Any) -> dict[str, Any]:
    return {
        "PlanePositionSequence": sequence(ImagePositionPatient=[1.0, 2.0, depth]),
        "FrameContentSequence": sequence(**content),
    }


def test_the_parts_of_a_concatenation_are_one_volume_and_one_of_them_alone_is_refused(tmp_path):
    pixels = np.arange(4 * 2 * 2, dtype=np.uint16).reshape(4, 2, 2)
    stated = {"ConcatenationUID": "1.2.3.7", "InConcatenationTotalNumber": 2}
    for number, own in enumerate((slice(0, 3), slice(3, 4)), start=1):
        frames = [enhanced_frame(3.0 * n) for n in range(4)][own]
        place = {"InConcatenationNumber": number, "ConcatenationFrameOffsetNumber": own.start}
        tags = stated | place | {"SOPInstanceUID": f"1.2.3.7.{number}", "NumberOfFrames": len(frames)}
        write_enhanced(tmp_path / f"{number}.dcm", pixels[own], frames, **tags)
    assert_array_equal(np.asarray(file_formats.read(tmp_path).data[0]), pixels.transpose(2, 1, 0))
    (tmp_path / "2.dcm").unlink()
    with pytest.raises(FormatError, match="is part 1 of a concatenation of 2 parts, and the others are not there"):
        file_formats.read(tmp_path)


def test_an_enhanced_object_is_ordered_by_the_position_of_its_frames(tmp_path: Path) -> None:
    order = [2, 0, 1]
    pixels = np.stack([np.full((4, 5), n, np.uint16) for n in order])
    path = write_enhanced(tmp_path / "e.dcm", pixels, [enhanced_frame(3.0 * n) for n in order])
    image = file_formats.read(path)
    assert image.data[0, 0, 0].tolist() == [0, 1, 2]
    assert_allclose(image.geometry.affine, [[-1.5, 0, 0, -1], [0, -2, 0, -2], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("MG", "1.2.840.10008.5.1.4.1.1.13.1.3"),  # breast tomosynthesis
        ("OPT", "1.2.840.10008.5.1.4.1.1.77.1.5.4"),  # optical coherence tomography
        ("PT", "1.2.840.10008.5.1.4.1.1.130"),  # enhanced PET
    ],
)
def test_any_object_whose_frames_have_places_is_a_volume(tmp_path: Path, modality: str, sop_class: str) -> None:
    frames = [enhanced_frame(0.05 * n) for n in range(5)]
    path = write_enhanced(
        tmp_path / "e.dcm", np.ones((5, 2, 3), np.uint16), frames, Modality=modality, SOPClassUID=sop_class
    )
    image = file_formats.read(path)
    assert image.shape == (1, 3, 2, 5)
    assert_allclose(image.geometry.steps, (1.5, 2, 0.05))


def test_an_enhanced_object_in_time_has_its_times(tmp_path: Path) -> None:
    frames = [
        enhanced_frame(3.0 * n, TemporalPositionIndex=t + 1, FrameReferenceDateTime=f"2020010112000{2 * t}.5")
        for n in range(2)
        for t in range(3)
    ]
    pixels = np.stack([np.full((2, 2), t, np.uint16) for _ in range(2) for t in range(3)])
    image = file_formats.read(write_enhanced(tmp_path / "e.dcm", pixels, frames))
    assert image.times == (0.0, 2.0, 4.0)
    assert image.data[0, :, 0, 0].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_declared_stacks_are_volumes_of_their_own(tmp_path: Path) -> None:
    frames = [enhanced_frame(3.0 * n, StackID=stack) for stack in "ab" for n in range(2)]
    volumes = file_formats.read_volumes(write_enhanced(tmp_path / "e.dcm", np.ones((4, 2, 2), np.uint16), frames))
    assert sorted(volumes) == ["MR_stack_a", "MR_stack_b"]


def test_enhanced_objects_that_do_not_fit_together_are_volumes_of_their_own(tmp_path: Path) -> None:
    for name, start in (("a", 0.0), ("b", 50.5)):
        frames = [enhanced_frame(start + 3.0 * n) for n in range(2)]
        write_enhanced(tmp_path / name, np.ones((2, 2, 2), np.uint16), frames)
    assert sorted(file_formats.read_volumes(tmp_path)) == ["MR_1", "MR_2"]


def test_a_frame_without_its_functional_groups_is_refused(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e.dcm", np.ones((3, 2, 2), np.uint16), [enhanced_frame(0), enhanced_frame(3)])
    with pytest.raises(FormatError, match="2 items in PerFrameFunctionalGroupsSequence"):
        file_formats.read(path)


@pytest.mark.parametrize(("offsets", "depths"), [([0, 2, 4], [5, 7, 9]), ([5, 7, 9], [5, 7, 9])])
def test_dose_planes_may_be_told_relative_or_absolute(
    tmp_path: Path, offsets: list[float], depths: list[float]
) -> None:
    image = file_formats.read(write_dose(tmp_path, offsets))
    assert_allclose(image.geometry.to_world([[0, 0, n] for n in range(3)])[:, 2], depths)
    assert image.data.max() == 0.5
    assert image.facts["unit"] == "Gy"


def write_dose(folder: Path, offsets: list[float], orientation: Any = AXIAL) -> Path:
    return write_slice(
        folder / "dose.dcm", np.ones((3, 2, 2), np.uint16), position=(0, 0, 5), orientation=orientation,
        Modality="RTDOSE", sop_class="1.2.840.10008.5.1.4.1.1.481.2", GridFrameOffsetVector=offsets,
        DoseGridScaling=0.5, DoseUnits="GY",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("offsets", "orientation"), [([2, 4, 6], AXIAL), ([-5, -3, -1], AXIAL), ([5, 7, 9], (1, 0, 0, 0, 0, -1))]
)
def test_dose_planes_that_are_neither_relative_nor_absolute_are_refused(
    tmp_path: Path, offsets: list[float], orientation: Any
) -> None:
    with pytest.raises(GeometryError, match=r"GridFrameOffsetVector \(3004,000C\) begins with .*, neither 0 nor"):
        file_formats.read(write_dose(tmp_path, offsets, orientation))


def test_reconstructed_nuclear_medicine_lies_where_its_detector_says(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "nm.dcm", np.stack([np.full((2, 2), n, np.uint16) for n in range(3)]), position=None,
        orientation=None, spacing=(4.0, 4.0), sop_class="1.2.840.10008.5.1.4.1.1.20", Modality="NM",
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"], SpacingBetweenSlices=-4.0, SliceVector=[1, 2, 3],
        DetectorInformationSequence=sequence(ImagePositionPatient=[0.0, 0, 8], ImageOrientationPatient=list(AXIAL)),
    )  # fmt: skip
    image = file_formats.read(path)
    # A negative spacing: the second slice lies below the first.
    assert image.data[0, 0, 0].tolist() == [2, 1, 0]
    assert_allclose(image.geometry.affine[2, 2:], [4, 0])


@pytest.mark.parametrize("vectors", [["TimeSlotVector"], ["RRIntervalVector", "TimeSlotVector"], ["TimeSliceVector"]])
def test_gates_of_reconstructed_nuclear_medicine_are_frames_and_slices_lie_by_their_vector(
    vectors: list[str], tmp_path: Path
) -> None:
    slices, gates = 3, 4
    states = [(gate // 2 + 1, gate % 2 + 1) for gate in range(gates)] if len(vectors) == 2 else [(0, 0)] * gates
    stated = {name: [states[n // slices][k] or n // slices + 1 for n in range(12)] for k, name in enumerate(vectors)}
    path = write_slice(
        tmp_path / "nm.dcm", np.stack([np.full((2, 2), 100 * (n // 3) + n % 3, np.uint16) for n in range(12)]),
        position=None, orientation=None, spacing=(4.0, 4.0), sop_class="1.2.840.10008.5.1.4.1.1.20", Modality="NM",
        ImageType=["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"], SpacingBetweenSlices=4.0,
        SliceVector=[1, 2, 3] * gates, **stated,
        DetectorInformationSequence=sequence(ImagePositionPatient=[0.0, 0, 8], ImageOrientationPatient=list(AXIAL)),
    )  # fmt: skip
    image = file_formats.read(path)
    assert image.data[0, :, 0, 0].tolist() == [[100 * gate + number for number in range(3)] for gate in range(gates)]
    assert_allclose(image.geometry.affine[2, 2:], [4, 8])


def test_frames_with_one_position_and_no_time_may_be_slices_so_none_has_a_place(tmp_path: Path) -> None:
    image = file_formats.read(write_slice(tmp_path / "many.dcm", np.ones((4, 2, 2), np.uint16), SpacingBetweenSlices=3))
    assert image.shape == (1, 4, 2, 2)
    assert image.geometry.orientation is None and image.spacing == (1, 1)


def test_an_enhanced_object_may_tell_its_times_as_offsets(tmp_path: Path) -> None:
    frames = [
        enhanced_frame(0.0, TemporalPositionIndex=t + 1)
        | {"TemporalPositionSequence": sequence(TemporalPositionTimeOffset=0.5 * t)}
        for t in range(3)
    ]
    image = file_formats.read(write_enhanced(tmp_path / "e.dcm", np.ones((3, 2, 2), np.uint16), frames))
    assert image.times == (0.0, 0.5, 1.0)


def test_a_clip_with_one_position_is_frames_of_one_slice(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "clip.dcm", np.stack([np.full((2, 2), n, np.uint16) for n in range(4)]), FrameTime=50.0,
        SliceThickness=6,
    )  # fmt: skip
    image = file_formats.read(path)
    assert image.shape == (1, 4, 2, 2, 1)
    assert image.data[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert image.times == (0.0, 0.05, 0.1, 0.15)
