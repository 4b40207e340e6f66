"""Reports on structures, clips and images without an answer: read back here, by highdicom, and judged by others."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import UltrasoundMultiFrameImageStorage

import hilum
from files.test_dicom_sr_write import radiograph, series
from hilum.errors import FormatError
from hilum.files import result_images
from hilum.files.dicom.reading import sr_reading
from hilum.files.dicom.writing import sr
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.values import Code, Finding, Image, Label
from written_dicom import write_slice

LIVER = Code("SCT", "10200004", "Liver")
LABELS = (Label(1, "liver", code=LIVER), Label(2, "kidney"), Label(5, "tumour"))


def structures(image: Image, folder: Path) -> list[Finding]:
    """A liver with an interval and a measurement, no kidney, and a tumour; their SEG lies in the folder."""
    mask = np.zeros(image.geometry.shape, np.uint8)
    mask[2:9, 3:8], mask[10:12, 10:12] = 1, 5
    result_images.write_label_map(mask, LABELS, image, folder / "seg.dcm", algorithm="tests")
    unit = "ml" if image.geometry.is_volume else "mm²"
    return [
        Finding("liver", 12.5, unit, low=11.0, high=14.25, label=1, group="liver", codes=(LIVER,)),
        Finding("mean of HU", 60.25, "HU", label=1, group="liver"),
        Finding("kidney", 0.0, unit, label=2, group="kidney"),
        Finding("tumour", 1.5, unit, label=5, group="tumour"),
    ]


def clip(folder: Path, frames: int) -> Image:
    """Ultrasound of a few pixels."""
    none = dict.fromkeys(("position", "orientation", "spacing"))
    pixels = np.zeros((frames, 12, 16), np.uint8)
    kind = {"sop_class": UltrasoundMultiFrameImageStorage, "Modality": "US", "NumberOfFrames": frames, "FrameTime": 40}
    return hilum.read(write_slice(folder / "us.dcm", pixels, **none, **kind))


def judged(path: Path) -> None:
    """Refused by neither of two other programs."""
    if not (shutil.which("dciodvfy") and shutil.which("dsrdump")):
        pytest.skip("dicom3tools or dcmtk is not installed")
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert not [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]
    assert subprocess.run(["dsrdump", path], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("made", [series, radiograph], ids=["series", "radiograph"])
def test_a_structure_names_its_segment_and_states_its_size_interval_and_measurements(made, tmp_path):
    image, path = made(tmp_path), tmp_path / "sr.dcm"
    findings = structures(image, tmp_path)
    seg = tmp_path / "seg.dcm"
    sr.write_report(Result(image, "tests", findings=findings, segmentations={seg: LABELS}), path)
    judged(path)
    uid, stated = str(pydicom.dcmread(seg).SOPInstanceUID), sr_reading.read_report(path).stated
    size = "Volume" if image.geometry.is_volume else "Area"
    assert [(one.answer, one.concept, one.value, one.low, one.high, one.segment) for one in stated] == [
        ("liver", size, 12.5, 11.0, 14.25, (uid, 1)),
        ("liver", "mean of HU", 60.25, None, None, (uid, 1)),
        ("kidney", size, 0.0, None, None, None),
        ("kidney", "kidney", "Absent", None, None, None),
        ("tumour", size, 1.5, None, None, (uid, 3)),
    ]
    report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [one.finding_type.meaning for one in groups] == ["Liver", "tumour"]
    files = {one.SOPInstanceUID for one in map(pydicom.dcmread, image.source.paths)}
    library = report.ContentSequence[-2]
    entries = [one for one in library.ContentSequence[0].ContentSequence if one.ValueType == "IMAGE"]
    assert {one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in entries} == files
    assert not sr_reading.read_report(path).is_whole


def test_one_finding_states_a_probability_where_it_is_calibrated_and_else_a_certainty(tmp_path):
    image, path = radiograph(tmp_path), tmp_path / "sr.dcm"
    findings = [Finding("effusion", True, probability=0.25, calibrated=True), Finding("mass", True, probability=0.5)]
    sr.write_report(Result(image, "tests", findings=findings), path)
    chances = [
        (one.answer, one.concept, one.value) for one in sr_reading.read_report(path).stated if one.unit == "Percent"
    ]
    assert chances == [("effusion", "Probability", 25), ("mass", "Certainty of Finding", 50)]


def test_numbers_that_are_not_finite_are_left_out_and_named(tmp_path):
    image, path = radiograph(tmp_path), tmp_path / "sr.dcm"
    odd = [Finding("age", math.nan, "years"), Finding("index", 2.0, low=1.0, high=math.inf)]
    sr.write_report(Result(image, "tests", findings=[*odd, Finding("depth", 3.0, "mm")]), path)
    judged(path)
    assert [(one.concept, one.value, one.low, one.high) for one in sr_reading.read_report(path).stated] == [
        ("index", 2, 1, None), ("depth", 3, None, None)
    ]  # fmt: skip
    group = highdicom.sr.srread(path).content.get_image_measurement_groups()[0]
    texts = [str(one.TextValue) for one in group[0].ContentSequence if one.ValueType == "TEXT"]
    assert "left out, because they are no finite numbers: age, index" in texts
    with pytest.raises(FormatError, match="nothing of the result"):
        sr.write_report(Result(image, "tests", findings=odd[:1]), tmp_path / "none.dcm")


def test_findings_of_a_clip_name_their_frames_and_those_of_too_many_frames_are_refused(tmp_path):
    image, path = clip(tmp_path, 4), tmp_path / "sr.dcm"
    box = Finding("mass", [1.0, 2, 5, 6], "voxels", probability=0.5, box=0, frame=1)
    sr.write_report(Result(image, "tests", findings=[box, Finding("cavity", 7.0, "mm²", label=1, frame=3)]), path)
    judged(path)
    [marked] = sr_reading.read_report(path).marked
    assert marked.image[1] == 2
    [group] = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert group.source_images[0].referenced_frame_numbers == [4]
    many = [Finding("cavity", 7.0, "mm²", label=1, frame=n) for n in range(201)]
    with pytest.raises(FormatError, match="201 frames have findings"):
        sr.write_report(Result(image, "tests", findings=many), tmp_path / "no.dcm")


def test_a_report_without_an_answer_names_the_model_and_says_why(tmp_path):
    image, path = radiograph(tmp_path), tmp_path / "sr.dcm"
    sr.write_no_answer("it is unlike all that trained it", image.source.paths, path, algorithm_name="tests")
    judged(path)
    [group] = highdicom.sr.srread(path).content.get_image_measurement_groups()
    texts = [str(one.TextValue) for one in group[0].ContentSequence if one.ValueType == "TEXT"]
    assert {"tests", "no answer: it is unlike all that trained it"} <= set(texts)
    assert not sr_reading.read_report(path).is_whole
