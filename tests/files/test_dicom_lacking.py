"""One slice that lacks a value which its neighbours state: refused by name, or named and the rest kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import CTImageStorage, MRImageStorage

from hilum.errors import HilumError
from hilum.files import file_formats
from hilum.files.dicom.reading import series_survey
from hilum.values import Image
from written_dicom import sequence, write_enhanced, write_slice

SLICES = 4


def write_series(
    folder: Path, lacking: tuple[str, ...], stated: Mapping[str, Any], *, volumes: int = 1, at: int = SLICES - 1
) -> Path:
    """A series whose last volume has one slice without some attributes; lists hold a value for each volume."""
    folder.mkdir(exist_ok=True)
    for volume in range(volumes):
        for place in range(SLICES):
            values = {name: one[volume] if isinstance(one, list) else one for name, one in stated.items()}
            values.setdefault("InstanceNumber", volume * SLICES + place + 1)
            if (volume, place) == (volumes - 1, at):
                absent = [name for name in lacking if values.pop(name, None) is None]
                values |= dict.fromkeys(absent)  # those that `write_slice` states by itself
            pixels = np.full((3, 4), 10 * volume + place, np.int16)
            values.setdefault("sop_class", MRImageStorage)
            write_slice(folder / f"v{volume}s{place}.dcm", pixels, position=(0, 0, 2.0 * place), **values)
    return folder


def read_lacking(folder: Path, lacking: str, stated: Mapping[str, Any], **kwargs: Any) -> Image:
    """The image of a series with one slice that lacks an attribute."""
    return file_formats.read(write_series(folder, (lacking,), stated, **kwargs))


@pytest.mark.parametrize("at", [0, SLICES - 1])
@pytest.mark.parametrize(
    ("lacking", "stated"),
    [
        ("RescaleSlope", {"RescaleSlope": 2.0, "RescaleIntercept": 5.0}),
        ("RescaleIntercept", {"RescaleSlope": 1.0, "RescaleIntercept": -1024.0, "sop_class": CTImageStorage}),
        ("PixelRepresentation", {}),
        ("BitsStored", {"BitsStored": 12, "HighBit": 11}),
        ("PixelSpacing", {}),
        ("ImageOrientationPatient", {}),
        ("ImagePositionPatient", {}),
    ],
)
def test_a_slice_without_what_its_voxels_are_read_by_is_refused_by_name(
    tmp_path: Path, lacking: str, stated: dict[str, Any], at: int
) -> None:
    with pytest.raises(HilumError, match=lacking) as refused:
        read_lacking(tmp_path, lacking, stated, at=at)
    assert f"v0s{at}.dcm" in str(refused.value)


def test_an_absent_slope_is_read_where_the_others_state_the_value_that_it_stands_for(tmp_path: Path) -> None:
    image = read_lacking(tmp_path, "RescaleSlope", {"RescaleSlope": 1.0, "RescaleIntercept": 5.0})
    assert image.data[0, 0, 0].tolist() == [5.0, 6.0, 7.0, 8.0]
    assert image.notes == ()


@pytest.mark.parametrize("at", [0, SLICES - 1])
@pytest.mark.parametrize(
    ("lacking", "stated", "volumes"),
    [
        ("WindowCenter", {"WindowCenter": 2.0, "WindowWidth": 5.0}, 1),
        ("PixelPaddingValue", {"PixelPaddingValue": -5}, 1),
        ("AcquisitionTime", {"AcquisitionDate": "20200101", "AcquisitionTime": ["101000", "101001"]}, 2),
        ("TemporalPositionIdentifier", {"TemporalPositionIdentifier": [1, 2]}, 2),
        ("DiffusionBValue", {"DiffusionBValue": [0.0, 1000.0]}, 2),
        ("EchoTime", {"EchoTime": [5.0, 15.0]}, 2),
        ("PatientID", {}, 1),
        ("StudyInstanceUID", {}, 1),
        ("Modality", {}, 1),
    ],
)
def test_a_slice_without_what_is_known_beside_its_voxels_is_named(
    tmp_path: Path, lacking: str, stated: dict[str, Any], volumes: int, at: int
) -> None:
    image = read_lacking(tmp_path, lacking, stated, volumes=volumes, at=at)
    assert image.geometry.shape == (4, 3, SLICES)
    assert image.modality == "MR"
    [note] = [note for note in image.notes if "not state" in note]
    assert note.startswith(f"1 of {SLICES * volumes} slices (v{volumes - 1}s{at}.dcm) does not state")


def test_the_window_and_the_b_value_of_a_volume_are_those_that_its_other_slices_state(tmp_path: Path) -> None:
    stated = {"DiffusionBValue": [0.0, 1000.0], "WindowCenter": 2.0, "WindowWidth": 5.0}
    folder = write_series(tmp_path, ("DiffusionBValue", "WindowCenter"), stated, volumes=2, at=0)
    image = file_formats.read(folder)
    assert image.facts["b_values"] == (0.0, 1000.0)
    assert image.facts["window"] == (2.0, 5.0, "LINEAR")


def test_an_instance_number_that_is_absent_puts_no_slice_first(tmp_path: Path) -> None:
    with pytest.raises(HilumError, match=r"InstanceNumber \(0020,0013\), which v1s3.dcm does not state"):
        read_lacking(tmp_path, "InstanceNumber", {}, volumes=2)


def test_a_slice_that_names_nobody_is_one_of_the_series_with_its_uid(tmp_path: Path) -> None:
    write_series(tmp_path, ("PatientID", "StudyInstanceUID"), {}, at=0)
    [files] = series_survey.list_series(tmp_path)
    assert len(files.paths) == SLICES
    assert not files.is_nobodys


def test_a_slice_without_a_series_says_that_it_is_one_of_its_own(tmp_path: Path) -> None:
    write_series(tmp_path, ("SeriesInstanceUID",), {})
    alone, others = file_formats.read_volumes(tmp_path).values()
    assert others.geometry.shape[2] == SLICES - 1
    assert any("SeriesInstanceUID (0020,000E)" in note for note in alone.notes)


def test_a_frame_of_an_object_without_the_rescale_of_the_others_is_refused_by_its_number(tmp_path: Path) -> None:
    frames = [
        {
            "PlanePositionSequence": sequence(ImagePositionPatient=[0, 0, 3.0 * n]),
            "PixelValueTransformationSequence": sequence(RescaleSlope=2.0, RescaleIntercept=1.0, RescaleType="US"),
        }
        for n in range(3)
    ]
    del frames[1]["PixelValueTransformationSequence"]
    path = write_enhanced(tmp_path / "a.dcm", np.ones((3, 2, 2), np.uint16), frames)
    with pytest.raises(HilumError, match=r"1 of 3 slices \(a.dcm frame 2\) does not state RescaleSlope"):
        file_formats.read(path)
