"""What a pixel of a picture measures in the patient, where that can be known: PS3.3 10.7.1.3 and C.8.5.5."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from hilum.errors import FormatError
from hilum.files.dicom.reading import picture_scale
from written_dicom import sequence


def dataset(**tags: Any) -> Dataset:
    made = Dataset()
    made.Rows, made.Columns = 100, 200
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.2]}, None),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}, None),
        ({"Modality": "CR", "PixelSpacing": [0.2, 0.2]}, None),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.18, 0.18]}, (0.18, 0.18)),
        (
            {"Modality": "XA", "PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.2, 0.2),
        ),
        (
            {
                "Modality": "DX",
                "ImagerPixelSpacing": [0.2, 0.2],
                "PixelSpacing": [0.2, 0.2],
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            (0.2, 0.2),
        ),
        ({"Modality": "OP", "PixelSpacing": [0.01, 0.02]}, (0.01, 0.02)),
        ({"Modality": "OT"}, None),
    ],
)
def test_only_a_calibrated_spacing_of_a_shadow_is_in_the_patient(
    tags: dict[str, Any], spacing: tuple[float, float] | None
) -> None:
    scale = picture_scale.pixel_scale(dataset(**tags), "here")
    assert scale.spacing == spacing
    assert scale.geometry((100, 200)).spacing == spacing
    assert scale.geometry((100, 200)).orientation is None


def test_the_spacing_at_the_detector_is_a_fact_and_no_size() -> None:
    scale = picture_scale.pixel_scale(dataset(Modality="MG", ImagerPixelSpacing=[0.07, 0.07]), "here")
    assert scale.facts["imager_pixel_spacing"] == (0.07, 0.07)
    assert "detector" in scale.notes[0]


@pytest.mark.parametrize(
    ("tags", "ratio"),
    [
        ({"PixelAspectRatio": [2, 1]}, "1 : 2"),
        ({"PixelAspectRatio": [3, 4], "Modality": "DX"}, "1.333 : 1"),
        ({"ImagerPixelSpacing": [0.2, 0.3], "Modality": "DX"}, "1.5 : 1"),
        ({"PixelAspectRatio": [1, 1]}, None),
        ({}, None),
    ],
)
def test_pixels_that_are_not_square_are_named_where_their_size_is_unknown(
    tags: dict[str, Any], ratio: str | None
) -> None:
    notes = " ".join(picture_scale.pixel_scale(dataset(**tags), "a.dcm").notes)
    assert ("not square" in notes) == (ratio is not None)
    assert ratio is None or f"({ratio}, width to height)" in notes


def region(**tags: Any) -> list[Dataset]:
    usual = {
        "RegionLocationMinX0": 0,
        "RegionLocationMinY0": 0,
        "RegionLocationMaxX1": 199,
        "RegionLocationMaxY1": 99,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": 0.03,
        "RegionSpatialFormat": 1,
    }
    return sequence(**usual | tags)


@pytest.mark.parametrize(
    ("regions", "spacing"),
    [
        (region(), (0.3, 0.2)),
        (region(PhysicalDeltaY=-0.03), (0.3, 0.2)),
        (region(RegionLocationMinX0=10), None),
        (region(PhysicalUnitsXDirection=4), None),  # seconds: an M-mode
        (region(RegionSpatialFormat=3), None),
        (region() + region(), None),
    ],
)
def test_an_ultrasound_has_a_size_where_one_region_covers_it_all(
    regions: list[Dataset], spacing: tuple[float, float] | None
) -> None:
    found = picture_scale.pixel_scale(dataset(Modality="US", SequenceOfUltrasoundRegions=regions), "here").spacing
    assert found is None if spacing is None else found == pytest.approx(spacing)


def test_a_spacing_that_cannot_be_is_refused() -> None:
    with pytest.raises(FormatError, match=r"PixelSpacing \(0028,0030\) is 0"):
        picture_scale.pixel_scale(dataset(Modality="OT", PixelSpacing=[0, 1]), "here")


@pytest.mark.parametrize(
    ("tags", "times"),
    [
        ({"FrameTime": 40}, (0.0, 0.04, 0.08)),
        ({"FrameTimeVector": [0, 10, 30]}, (0.0, 0.01, 0.04)),
        ({"FrameTimeVector": [5, 10, 30]}, (0.0, 0.01, 0.04)),  # the first is before the first frame
        ({"CineRate": 25}, (0.0, 0.04, 0.08)),
        ({"FrameTimeVector": [0, 10], "FrameTime": 40}, (0.0, 0.04, 0.08)),
        ({}, None),
        ({"FrameTime": 0}, None),
        ({"FrameTime": -40}, None),
        ({"FrameTimeVector": [0, 0, 0]}, None),
        ({"FrameTimeVector": [0, 40, -40]}, None),
    ],
)
def test_frames_come_at_the_times_that_the_file_tells(tags: dict[str, Any], times: tuple[float, ...] | None) -> None:
    found, notes = picture_scale.frame_times(dataset(**tags), 3)
    assert found == times
    lacks_frames = len(tags.get("FrameTimeVector", [0, 0, 0])) < 3
    assert bool(notes) == (lacks_frames or "CineRate" in tags or (times is None and bool(tags)))
