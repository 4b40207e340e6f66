"""Outlines as a presentation state: where lines lie, what stands beside them, and which images are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal

from hilum.errors import FormatError
from hilum.files import file_formats, polygon
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.values import Finding, Image, Label
from written_dicom import write_slice

OPHTHALMIC_8_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.1"  # an image of frames, also where it has one


def series(folder: Path) -> Image:
    for n in range(3):
        write_slice(folder / f"{n}.dcm", np.zeros((8, 9), "i2"), position=(0.0, 0.0, float(n)))
    return file_formats.read(folder)


def test_lines_lie_on_the_edges_of_what_is_marked_with_names_and_values(tmp_path: Path):
    image = series(tmp_path)
    mask = np.zeros(image.geometry.shape, np.uint8)
    mask[2:4, 2:6, 1] = 1
    size = Finding("spot", 0.008, "ml", group="spot", label=1)
    box = Finding("nodule", [5.0, 1.0, 1.0, 8.0, 3.0, 3.0], "voxels", 0.934, box=0)
    result = Result(image, "test", [("", mask, [Label(1, "spot", (255, 0, 0))])], [size, box])
    [path] = ANSWERS["gsps"].write(result, tmp_path / "case")
    made = pydicom.dcmread(path)
    texts_shown = [
        (
            one.ReferencedImageSequence[0].ReferencedSOPInstanceUID,
            one.TextObjectSequence[0].UnformattedTextValue,
            np.reshape(one.GraphicObjectSequence[0].GraphicData, (-1, 2)),
        )
        for one in made.GraphicAnnotationSequence
    ]
    slices = [pydicom.dcmread(tmp_path / f"{n}.dcm").SOPInstanceUID for n in range(3)]
    texts = [("spot 0.008 ml", 1), ("nodule 93.4 %, uncalibrated", 1), ("nodule 93.4 %, uncalibrated", 2)]
    assert [(text, slices.index(uid)) for uid, text, _ in texts_shown] == texts
    assert_array_equal(polygon.inside_polygon(texts_shown[0][2] - 0.5, mask.shape[1::-1]), mask[:, :, 1].T)
    assert_array_equal(texts_shown[1][2], [(5, 1), (8, 1), (8, 3), (5, 3), (5, 1)])


@pytest.mark.parametrize(
    ("tags", "stated"),
    [
        ({"spacing": (2.0, 0.5), "position": (0, 0, 0)}, ("PresentationPixelSpacing", [2, 0.5])),
        ({"ImagerPixelSpacing": [0.3, 0.2]}, ("PresentationPixelAspectRatio", [3, 2])),
        ({"PixelAspectRatio": [4, 3]}, ("PresentationPixelAspectRatio", [4, 3])),
        ({}, ("PresentationPixelAspectRatio", [1, 1])),
    ],
)
def test_a_viewer_shows_pixels_in_the_shape_that_their_image_states(tmp_path: Path, tags, stated):
    is_volume = "position" in tags
    kind = {} if is_volume else {"position": None, "orientation": None, "spacing": None, "Modality": "DX"}
    write_slice(tmp_path / "a.dcm", np.zeros((8, 9), "i2"), SliceThickness=1, **kind, **tags)
    image = file_formats.read(tmp_path / "a.dcm")
    mask = np.ones(image.geometry.shape, np.uint8)
    [path] = ANSWERS["gsps"].write(Result(image, "test", [("", mask, [Label(1, "spot")])], []), tmp_path / "case")
    [area] = pydicom.dcmread(path).DisplayedAreaSelectionSequence
    assert [stated] == [
        (name, [float(one) for one in area[name].value])
        for name in ("PresentationPixelSpacing", "PresentationPixelAspectRatio")
        if name in area
    ]


def test_a_result_without_a_mark_has_none_and_colour_is_refused(data: Path, tmp_path: Path):
    image = series(tmp_path)
    empty = Result(image, "test", [("", np.zeros(image.geometry.shape, np.uint8), [Label(1, "spot")])])
    assert not ANSWERS["gsps"].suits(empty)
    picture = file_formats.read(data / "dicom/files/pydicom_SC_rgb_dcmtk__eb_cr.dcm")
    mask = np.zeros(picture.geometry.shape, np.uint8)
    mask[10:20, 10:20] = 1
    with pytest.raises(FormatError, match="in colour"):
        list(ANSWERS["gsps"].write(Result(picture, "test", [("", mask, [Label(1, "spot")])]), tmp_path / "case"))


def test_of_an_image_with_a_frame_whose_rescaling_has_no_type_the_outlines_are_written(tmp_path: Path):
    rescaling = {"RescaleSlope": 2, "RescaleIntercept": 0}
    write_slice(tmp_path / "0.dcm", np.zeros((1, 8, 9), "u2"), sop_class=OPHTHALMIC_8_BIT, **rescaling)
    picture = file_formats.read(tmp_path)
    mask = np.ones(picture.geometry.shape, np.uint8)
    [path] = ANSWERS["gsps"].write(Result(picture, "test", [("", mask, [Label(1, "spot")])]), tmp_path / "case")
    assert pydicom.dcmread(path).RescaleType == "US"
