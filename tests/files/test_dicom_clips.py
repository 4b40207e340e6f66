"""Masks of clips as DICOM SEG: each frame names its source frame, and other readers find it there."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

import hilum
from hilum.errors import GeometryError
from hilum.files.dicom.writing import seg
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Finding, Label
from service.thresholds import threshold_model

FRAMES, SHAPE = 11, (33, 37)
LABELS = (Label(1, "wall"), Label(2, "lumen"))


def ultrasound(path: Path) -> np.ndarray:
    """A clip of a disc that moves, as an ultrasound machine writes it; its (frames, rows, columns) values."""
    row, column = np.indices(SHAPE)
    values = np.stack([20 + 150 * (np.hypot(row - 16, column - 6 - 2 * n) < 5) for n in range(FRAMES)])
    clip = Dataset()
    clip.file_meta = FileMetaDataset()
    clip.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    clip.SOPClassUID, clip.SOPInstanceUID = UltrasoundMultiFrameImageStorage, generate_uid()
    clip.StudyInstanceUID, clip.SeriesInstanceUID = generate_uid(), generate_uid()
    clip.Modality, clip.PatientID, clip.PatientName, clip.StudyDate = "US", "p", "p", "20240101"
    clip.SeriesNumber, clip.InstanceNumber, clip.NumberOfFrames = 1, 1, FRAMES
    clip.Rows, clip.Columns = SHAPE
    clip.SamplesPerPixel, clip.PhotometricInterpretation, clip.PixelRepresentation = 1, "MONOCHROME2", 0
    clip.BitsAllocated, clip.BitsStored, clip.HighBit = 8, 8, 7
    clip.FrameTime, clip.FrameIncrementPointer = "40", 0x00181063
    clip.PixelData = values.astype(np.uint8).tobytes().ljust(values.size + values.size % 2, b"\0")
    path.parent.mkdir(exist_ok=True)
    clip.save_as(path, enforce_file_format=True)
    return values


@pytest.fixture
def clip(tmp_path):
    """(image, its mask of two labels, which marks nothing in frame 3, the folder)"""
    values = ultrasound(tmp_path / "clip" / "clip.dcm")
    mask = (values > 100).astype(np.uint8)
    mask[:, 16:] *= 2
    mask[3] = 0
    return hilum.read(tmp_path / "clip" / "clip.dcm"), mask, tmp_path / "clip"


@pytest.mark.parametrize("form", [SegmentationTypeValues.BINARY, SegmentationTypeValues.LABELMAP])
def test_highdicom_finds_each_frame_of_the_mask_of_a_clip_at_its_source_frame(clip, form):
    image, mask, folder = clip
    seg.write_segmentation(mask, LABELS, image, folder / "mask.dcm", algorithm_name="a", form=form)
    read = highdicom.seg.segread(folder / "mask.dcm")
    source = pydicom.dcmread(folder / "clip.dcm").SOPInstanceUID
    given = {"combine_segments": True, "ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    found = read.get_pixels_by_source_frame(source, list(range(1, FRAMES + 1)), **given)
    np.testing.assert_array_equal(found, mask)
    assert "PixelMeasuresSequence" not in read.SharedFunctionalGroupsSequence[0], "nobody stated a size"


def test_a_clip_with_such_a_mask_is_a_data_set_of_its_marked_frames(clip):
    image, mask, folder = clip
    seg.write_segmentation(mask, LABELS, image, folder / "mask.dcm", algorithm_name="a")
    cases = list(dataset_layouts.read_dataset(folder, DatasetOptions()))
    marked = [n for n in range(FRAMES) if mask[n].any()]
    assert [case.id.rpartition("_frame")[2] for case in cases] == [f"{n:03}" for n in marked]
    assert len({case.patient for case in cases}) == 1, "a split never parts a clip"
    for number, case in zip(marked, cases, strict=True):
        np.testing.assert_array_equal(case.references["mask"].data[0], mask[number])


def test_a_mask_of_other_frames_than_its_clip_is_refused(clip):
    image, mask, folder = clip
    with pytest.raises(GeometryError, match="Give the same grid"):
        seg.write_segmentation(mask[1:], LABELS, image, folder / "mask.dcm", algorithm_name="a")


def test_predict_writes_a_clip_s_mask_beside_a_report_that_names_frames(clip, tmp_path):
    *_, folder = clip
    model = hilum.load(threshold_model(tmp_path / "model", 100.0, modality="US", axes=2))
    done = hilum.predict(model, folder / "clip.dcm", out=tmp_path / "out", format="dcm", answers="seg,gsps,sr")
    [written] = [path for path in done.files if not path.name.endswith(("_report.dcm", "_gsps.dcm"))]
    assert "clip_gsps.dcm" in {path.name for path in done.files}
    read = pydicom.dcmread(written)
    named = [
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for groups in read.PerFrameFunctionalGroupsSequence
    ]
    assert named == list(range(1, FRAMES + 1))


def test_a_presentation_state_shows_on_each_frame_of_a_clip_what_is_marked_there(clip):
    image, mask, folder = clip
    box = np.array([2.0, 3.0, 12.0, 9.0])
    findings = [Finding("spot", box, probability=0.8, box=0, frame=3)]
    [path] = ANSWERS["gsps"].write(Result(image, "a", [("", mask, LABELS)], findings), folder / "case")
    polylines = {}
    for one in pydicom.dcmread(path).GraphicAnnotationSequence:
        [named] = one.ReferencedImageSequence
        layer = one.TextObjectSequence[0].UnformattedTextValue
        points = [np.reshape(each.GraphicData, (-1, 2)) for each in one.GraphicObjectSequence]
        polylines[named.ReferencedFrameNumber, layer.partition(" ")[0]] = np.concatenate(points)
    wanted = {(n + 1, label.name) for n in range(FRAMES) for label in LABELS if (mask[n] == label.value).any()}
    assert set(polylines) == {*wanted, (4, "spot")}, "frame 4 has a box alone"
    for number, name in wanted:
        value = next(label.value for label in LABELS if label.name == name)
        rows, columns = np.nonzero(mask[number - 1] == value)
        lines = polylines[number, name]
        assert (lines.min(axis=0) - 0.5 <= [columns.min(), rows.min()]).all()
        assert (lines.max(axis=0) + 0.5 >= [columns.max() + 1, rows.max() + 1]).all()
