"""Boxes written as structured reports: read back here and by highdicom."""

from __future__ import annotations

import time
import warnings
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydicom.datadict import dictionary_VR
from pydicom.uid import DigitalXRayImageStorageForPresentation

import hilum
from hilum.errors import FormatError
from hilum.files import result_images
from hilum.files.dicom.reading import sr_reading
from hilum.files.dicom.writing import sr, stamp
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.dicom.writing.stamp import Stamp
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import BoundingBoxes, Code, Finding, Geometry, Image, Label
from written_dicom import write_slice

NODULE = Finding("nodule", [1.0, 2, 0, 9, 9, 1], "voxels", box=0)
EFFUSION = Code("SCT", "60046008", "Pleural effusion")
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def series(root: Path) -> Image:
    """Oblique, 30 columns, 20 rows, 6 slices."""
    (root / "ct").mkdir(parents=True)
    for n in range(6):
        place = tuple(2.5 * n * np.cross(OBLIQUE[:3], OBLIQUE[3:]))
        pixels = np.full((20, 30), n, np.int16)
        write_slice(root / "ct" / f"{n}.dcm", pixels, position=place, orientation=OBLIQUE, InstanceNumber=n + 1)
    return hilum.read(root / "ct")


def radiograph(root: Path) -> Image:
    """Of 40 rows and 50 columns."""
    none = dict.fromkeys(("position", "orientation", "spacing"))
    kind = {"sop_class": DigitalXRayImageStorageForPresentation, "Modality": "DX"}
    return hilum.read(write_slice(root / "dx.dcm", np.ones((40, 50), np.uint16), **none, **kind))


def found(boxes: BoundingBoxes) -> list[Finding]:
    """Boxes as findings."""
    scores = [None] * len(boxes) if boxes.scores is None else boxes.scores.tolist()
    rows = zip(boxes.names, boxes.corners.tolist(), scores, strict=True)
    return [Finding(name, at, "voxels", probability=p, box=n) for n, (name, at, p) in enumerate(rows)]


def edges(size: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(0, size - 1), st.floats(1, size)).map(lambda one: (one[0], max(one[1], one[0] + 0.5)))


@settings(max_examples=5)
@given(st.lists(st.tuples(edges(30), edges(20), st.integers(0, 5), st.integers(1, 6)), max_size=3), st.floats(0, 1))
def test_boxes_on_an_oblique_series_come_back(tmp_path_factory, outlines, score):
    root = tmp_path_factory.mktemp("series")
    image = series(root)
    corners = [[x[0], y[0], z, x[1], y[1], min(z + n, 6)] for x, y, z, n in outlines]
    corners = np.reshape(np.minimum(corners, [30, 20, 6] * 2) if corners else [], (-1, 6))
    boxes = BoundingBoxes(corners, ("nodule",) * len(corners), np.full(len(corners), score))
    sr.write_report(Result(image, "tests", findings=found(boxes), is_empty=not corners.size), root / "sr.dcm")
    [case] = dataset_layouts.read_dataset(root)
    assert case.references["boxes"].names == boxes.names
    assert_allclose(case.references["boxes"].corners, corners, atol=1e-3)
    assert_allclose([one.score for one in sr_reading.read_report(root / "sr.dcm").marked], score, atol=1e-6)


def test_boxes_on_a_radiograph_come_back_and_highdicom_reads_them(tmp_path):
    image = radiograph(tmp_path)
    boxes = BoundingBoxes(np.array([[5.5, 3, 7, 10], [0, 0, 40, 50]]), ("mass", "lung"), np.array([0.873, 1.0]))
    sr.write_report(Result(image, "tests", findings=found(boxes)), tmp_path / "sr.dcm")
    read = dataset_layouts.read_dataset(tmp_path).cases[0].references["boxes"]
    assert read.names == boxes.names
    assert_allclose(read.corners, boxes.corners, atol=1e-5)
    report = highdicom.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.finding_type.meaning for group in groups] == ["mass", "lung"]
    assert_allclose(groups[0].roi.value, [(3, 5.5), (10, 5.5), (10, 7), (3, 7), (3, 5.5)])
    assert [float(group.get_measurements()[0].value) for group in groups] == [87.3, 100]
    source = pydicom.dcmread(tmp_path / "dx.dcm")
    assert (report.PatientID, report.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)


def test_a_box_between_slices_is_rounded_to_whole_ones_and_has_at_least_one(tmp_path):
    corners = np.array([[1, 1, 2.2, 5, 5, 2.4], [1, 1, 0.6, 5, 5, 3.4], [1, 1, 5.7, 5, 5, 6.0]])
    boxes = BoundingBoxes(corners, ("a", "b", "c"))
    sr.write_report(Result(series(tmp_path), "tests", findings=found(boxes)), tmp_path / "sr.dcm")
    read = dataset_layouts.read_dataset(tmp_path).cases[0].references["boxes"].corners
    assert_allclose(read[:, [2, 5]], [[2, 3], [1, 3], [5, 6]])


def test_no_box_is_a_report_that_says_so(tmp_path):
    sr.write_report(Result(radiograph(tmp_path), "tests", findings=[], is_empty=True), tmp_path / "sr.dcm")
    assert len(dataset_layouts.read_dataset(tmp_path).cases[0].references["boxes"]) == 0


def test_a_report_without_a_box_states_what_was_looked_for_by_which_model_and_within_which_limits(tmp_path):
    source, path = radiograph(tmp_path), tmp_path / "sr.dcm"
    limits = ["least score: 40 %", "only a part of the image was looked at"]
    sr.write_report(Result(source, "tests", findings=[], classes=["mass", "結節"], is_empty=True, limits=limits), path)
    [group] = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert group.finding_type.meaning == "Not detected"
    assert group.tracking_identifier == "not detected: mass, 結節"
    stated = [str(item.TextValue) for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert {"tests", "looked for: mass, 結節", *limits} <= set(stated)
    assert sr_reading.read_report(path).is_whole


def test_the_device_of_a_report_keeps_its_uid_as_long_as_the_model_is_the_same(tmp_path):
    source, uids = radiograph(tmp_path), []
    boxes = BoundingBoxes(np.array([[5.0, 3, 7, 10]]), ("mass",))
    for n, model in enumerate(("first", "first", "second")):
        sr.write_report(Result(source, model, findings=found(boxes)), tmp_path / f"{n}.dcm")
        uids.append(_stated_uids(pydicom.dcmread(tmp_path / f"{n}.dcm")))
        uids.append(_stated_uids(stamp.apply_stamp(tmp_path / f"{n}.dcm", Stamp("1.2.3", str(n), 0.0))))
    devices = [one["Device Observer UID"] for one in uids]
    assert devices == [devices[0]] * 4 + [devices[4]] * 2
    assert devices[4] != devices[0]
    assert len({one["Tracking Unique Identifier"] for one in uids}) == 6


def _stated_uids(dataset: pydicom.Dataset) -> dict[str, str]:
    """{meaning: UID} of all content items that state one."""
    own = {str(dataset.ConceptNameCodeSequence[0].CodeMeaning): str(dataset.UID)} if "UID" in dataset else {}
    for item in dataset.get("ContentSequence", ()):
        own |= _stated_uids(item)
    return own


@pytest.mark.parametrize("name", ["nodule", "結節"])
def test_a_report_names_a_patient_of_japan_as_the_series_does(tmp_path, name):
    tags = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    source = hilum.read(write_slice(tmp_path / "ct.dcm", np.zeros((20, 30), np.int16), SliceThickness="2", **tags))
    boxes = BoundingBoxes(np.array([[1.0, 2, 0, 9, 9, 1]]), (name,))
    sr.write_report(Result(source, "test", findings=found(boxes)), tmp_path / "sr.dcm")
    assert pydicom.dcmread(tmp_path / "sr.dcm").PatientName == tags["PatientName"]
    assert [one.name for one in sr_reading.read_report(tmp_path / "sr.dcm").marked] == [name]


@pytest.mark.parametrize(("zone", "expected"), [("+0530", "19700101053000"), ("-0330", "19691231203000")])
@pytest.mark.parametrize("kind", ["report", "segmentation"])
def test_a_result_is_dated_in_the_zone_that_its_source_states(kind, zone, expected, tmp_path):
    source = hilum.read(
        write_slice(tmp_path / "ct.dcm", np.zeros((20, 30), np.int16), SliceThickness="2", TimezoneOffsetFromUTC=zone)
    )
    path, before = tmp_path / "result.dcm", time.time()
    if kind == "report":
        sr.write_report(Result(source, "test", findings=[NODULE]), path)
    else:
        result_images.write_label_map(
            np.ones((30, 20, 1), np.uint8), (Label(1, "nodule"),), source, path, algorithm="test"
        )
    made = pydicom.dcmread(path)
    assert made.TimezoneOffsetFromUTC == zone
    stated = datetime.strptime(f"{made.ContentDate}{made.ContentTime}{zone}", "%Y%m%d%H%M%S.%f%z").timestamp()
    assert before - 1 <= stated <= time.time()
    again = stamp.apply_stamp(path, Stamp("2.25", "a", 0.0))
    assert f"{again.ContentDate}{again.ContentTime}" == f"{expected}.000000"
    assert f"{again.InstanceCreationDate}{again.InstanceCreationTime}" == f"{expected}.000000"


@pytest.mark.parametrize("kind", ["report", "segmentation"])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "17.03.1962"),
        ("PatientSex", "D"),
        ("StudyDate", "2026-11-25"),
        ("StudyTime", "noon"),
        ("PatientBirthDate", "19620317"),
        ("SpecificCharacterSet", "ISO_IR 100"),
        ("PatientName", "O\\Brien^Pat"),
    ],
)
def test_a_result_states_patient_and_study_letter_for_letter_and_no_warning_repeats_them(
    kind, keyword, value, tmp_path, caplog
):
    write_slice(tmp_path / "ct.dcm", np.zeros((20, 30), np.int16), SliceThickness="2")
    header = pydicom.dcmread(tmp_path / "ct.dcm")
    header[keyword] = pydicom.DataElement(keyword, dictionary_VR(keyword), value, validation_mode=0)
    header.save_as(tmp_path / "ct.dcm")
    expected = str(pydicom.dcmread(tmp_path / "ct.dcm")[keyword].value)  # a backslash separates two values
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source, path = hilum.read(tmp_path / "ct.dcm"), tmp_path / "result.dcm"
        if kind == "report":
            sr.write_report(Result(source, "test", findings=[NODULE]), path)
        else:
            result_images.write_label_map(
                np.ones((30, 20, 1), np.uint8), (Label(1, "nodule"),), source, path, algorithm="test"
            )
        assert str(stamp.apply_stamp(path, Stamp("2.25", "a", 0.0))[keyword].value) == expected
    assert value not in caplog.text


@pytest.mark.parametrize("zone", ["+9999", "Europe"])
def test_a_zone_that_cannot_be_is_not_repeated(zone, tmp_path):
    source = hilum.read(
        write_slice(tmp_path / "ct.dcm", np.zeros((20, 30), np.int16), SliceThickness="2", TimezoneOffsetFromUTC=zone)
    )
    sr.write_report(Result(source, "test", findings=[NODULE]), tmp_path / "sr.dcm")
    assert "TimezoneOffsetFromUTC" not in stamp.apply_stamp(tmp_path / "sr.dcm", Stamp("2.25", "a", 0.0))


def test_a_report_names_the_program_and_its_version(tmp_path):
    sr.write_report(Result(radiograph(tmp_path), "tests", findings=[], is_empty=True), tmp_path / "sr.dcm")
    made = pydicom.dcmread(tmp_path / "sr.dcm")
    assert (made.ManufacturerModelName, made.SoftwareVersions) == ("Hilum", version("hilum"))


def test_what_is_no_dicom_has_no_report(tmp_path):
    image = Image(np.zeros((1, 8, 8), np.uint8), Geometry.of_pixels((8, 8)))
    with pytest.raises(FormatError, match="needs the DICOM image"):
        sr.write_report(Result(image, "tests", findings=[NODULE]), tmp_path / "sr.dcm")
    assert list(tmp_path.iterdir()) == []


def test_answers_without_a_place_are_evaluations_and_numbers_with_their_units(tmp_path):
    image, path = series(tmp_path), tmp_path / "sr.dcm"
    classes = [
        Finding("benign", probability=0.12, group="class", called=False),
        Finding("malignant", probability=0.88, group="class", called=True, possible=("malignant", "benign")),
    ]
    effusion = Finding("effusion", value=False, probability=0.4, possible=("present", "absent"), codes=(EFFUSION,))
    age = Finding("bone age", value=10.25, unit="years", low=9.5, high=11.0)
    odd = [Finding("index", value=1 / 3, unit="Å"), Finding("score", value=-1.23456789012e-5)]
    limits = ["coverage of sets and intervals: 90 % of new patients"]
    sr.write_report(Result(image, "tests", findings=[*classes, effusion, age, *odd], limits=limits), path)
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert [one.tracking_identifier for one in groups] == ["class", "effusion", "bone age", "index", "score"]
    evaluated = [[(one.name.meaning, one.value.meaning) for one in g.get_qualitative_evaluations()] for g in groups]
    assert evaluated[0] == [
        ("class", "malignant"), ("Not ruled out: class", "malignant"), ("Not ruled out: class", "benign"),
    ]  # fmt: skip
    assert evaluated[1:] == [
        [("Pleural effusion", "Absent"), ("At the stated coverage: effusion", "Undetermined")], [], [], []
    ]  # fmt: skip
    [(_, presence), *_] = [(one.name, one.value) for one in groups[1].get_qualitative_evaluations()]
    assert (presence.value, presence.scheme_designator) == ("272519000", "SCT")
    numbers = [
        [(one.name.meaning, float(one.value), one.unit.value, one.unit.meaning) for one in g.get_measurements()]
        for g in groups
    ]
    assert numbers[0] == [
        ("Probability of benign", 12, "%", "Percent"), ("Probability of malignant", 88, "%", "Percent")
    ]  # fmt: skip
    assert numbers[1] == [("Certainty of Finding", 40, "%", "Percent")]
    assert numbers[2] == [("bone age", 10.25, "a", "years")]
    [stated_age] = [one for one in sr_reading.read_report(path).stated if one.concept == "bone age"]
    assert (stated_age.value, stated_age.unit, stated_age.low, stated_age.high) == (10.25, "years", 9.5, 11.0)
    assert [(name, value, unit) for [(name, value, _, unit)] in numbers[3:]] == [
        ("index", 0.333333333, "Å"), ("score", -1.23456789e-05, "unit not stated")
    ]  # fmt: skip
    stated = [str(item.TextValue) for item in groups[2][0].ContentSequence if item.ValueType == "TEXT"]
    assert {"tests", version("hilum"), *limits} <= set(stated)
    made = pydicom.dcmread(path)
    [study] = made.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 6
    assert (made.SOPClassUID.name, made.SeriesDescription) == ("Comprehensive 3D SR Storage", "Findings")
    assert sr_reading.read_report(path).marked == ()
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)).cases
    assert not case.references  # what a model answers is no reference, and no sign of an image without boxes


def test_answers_beside_boxes_that_were_not_found_leave_the_image_known_to_hold_none(tmp_path):
    image, path = radiograph(tmp_path), tmp_path / "sr.dcm"
    answer = Finding("dense", value=True, probability=0.9)
    sr.write_report(Result(image, "tests", findings=[answer], is_empty=True, least_score=0.3), path)
    assert sr_reading.read_report(path).is_whole
    [nothing, dense] = highdicom.sr.srread(path).content.get_image_measurement_groups()
    texts = [[str(i.TextValue) for i in g[0].ContentSequence if i.ValueType == "TEXT"] for g in (nothing, dense)]
    assert "least score: 30 %" in texts[0]
    assert "least score: 30 %" not in texts[1]
    sr.write_report(Result(image, "tests", findings=[answer]), tmp_path / "only.dcm")
    assert not sr_reading.read_report(tmp_path / "only.dcm").is_whole
