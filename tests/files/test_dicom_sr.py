"""Structured reports: outlines of findings become boxes on the images that they were outlined on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, MammographyCADSRStorage, generate_uid

from hilum.errors import DatasetError, FormatError, GeometryError
from hilum.files.dicom.reading import sr_reading
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import BoundingBoxes
from written_dicom import sequence, write_slice
from written_reports import CYST, headers, outline, planar, rectangle, report, volumetric

# Rows and columns turned about two axes, steps of 2.5 mm along the normal.
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
FRAME = "1.2.3.3"


def ct(root: Path, slices: int = 6, **tags: object) -> list[Dataset]:
    """An oblique series of slices of 20 rows and 30 columns, written in no order."""
    (root / "ct").mkdir(parents=True)
    for n in range(slices):
        pixels = np.random.default_rng(n).integers(0, 99, (20, 30)).astype(np.int16)
        place = {"position": tuple(10.0 + 2.5 * n * NORMAL), "orientation": OBLIQUE, "spacing": (0.7, 0.9)}
        write_slice(root / "ct" / f"{(n * 5) % 7}.dcm", pixels, **place, InstanceNumber=n + 1, **tags)
    return sorted(headers(root / "ct"), key=lambda one: int(one.InstanceNumber))


def radiographs(root: Path, count: int = 1, uid: str = "1.2.3.2") -> list[Dataset]:
    """Of 40 rows and 50 columns, all in one series."""
    (root / "dx").mkdir(parents=True)
    for n in range(count):
        write_slice(
            root / "dx" / f"{n}.dcm",
            np.full((40, 50), n + 1, np.uint16),
            position=None,
            orientation=None,
            spacing=None,
            sop_class=DigitalXRayImageStorageForPresentation,
            Modality="DX",
            InstanceNumber=n + 1,
            SeriesInstanceUID=uid,
        )
    return headers(root / "dx")


def only_boxes(root: Path) -> BoundingBoxes:
    [case] = dataset_layouts.read_dataset(root)
    return case.references["boxes"]


def test_a_rectangle_on_a_radiograph_is_a_box_of_its_finding(tmp_path):
    [image] = radiographs(tmp_path)
    groups = [planar(rectangle(image, 3, 5.5, 10, 7)), planar(rectangle(image, 0, 0, 50, 40), CYST)]
    report(tmp_path / "sr.dcm", [image], groups)
    dataset = dataset_layouts.read_dataset(tmp_path)
    boxes = dataset.cases[0].references["boxes"]
    assert boxes.names == ("Nodule", "Cyst")
    assert_array_equal(boxes.corners, [[5.5, 3, 7, 10], [0, 0, 40, 50]])  # rows first, as the image
    assert [label.name for label in dataset.classes["boxes"]] == ["Cyst", "Nodule"]
    assert dataset.problems == ()


def test_circles_and_ellipses_are_bounded_and_points_and_lines_are_passed_over(tmp_path):
    [image] = radiographs(tmp_path)
    turned = np.array([(-6, -8), (6, 8), (4, -3), (-4, 3)]) + 20.0  # half axes of 10 and 5, turned by 53 degrees
    outlines = [
        planar(outline(image, [(20, 15), (23, 19)], "CIRCLE")),
        planar(outline(image, turned, "ELLIPSE")),
        planar(outline(image, [(4, 4)], "POINT")),
        planar(outline(image, [(4, 4), (9, 9)])),
        planar(outline(image, [(4, 4), (9, 8), (4, 4)])),  # there and back: three points, of which two are one
    ]
    report(tmp_path / "sr.dcm", [image], outlines)
    dataset = dataset_layouts.read_dataset(tmp_path)
    half = np.hypot([6, 8], [4, 3])
    expected = [[10, 15, 20, 25], [*(20 - half[::-1]), *(20 + half[::-1])]]
    assert_allclose(dataset.cases[0].references["boxes"].corners, expected, atol=1e-5)
    assert [(one.cases, one.what) for one in dataset.problems] == [
        (("sr.dcm",), "1 outline: a point bounds no region"),
        (("sr.dcm",), "2 outlines: a polyline of fewer points than 3 bounds no region"),
    ]


@settings(max_examples=6)
@given(
    st.lists(
        st.tuples(*[st.floats(0, 0.45)] * 4, st.integers(0, 2), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_boxes_come_back_from_a_report_on_an_oblique_series(tmp_path_factory, outlines):
    root = tmp_path_factory.mktemp("series")
    images, groups, expected = ct(root), [], []
    for x, y, width, height, first, slices, in_mm in outlines:
        low, high = np.array([30 * x, 20 * y]), np.array([30 * (x + width) + 1, 20 * (y + height) + 1])
        expected.append([*low, first, *high, first + slices])
        if in_mm:
            groups.append(volumetric(referenced_volume_surface=surface(images, low, high, first, slices)))
        else:
            flat = [rectangle(image, *low, *high) for image in images[first : first + slices]]
            groups.append(volumetric(referenced_regions=flat))
    report(root / "sr.dcm", images, groups)
    assert_allclose(only_boxes(root).corners, expected, atol=1e-3)


def surface(images: list[Dataset], low: np.ndarray, high: np.ndarray, first: int, slices: int):
    """The ellipsoid within a box, by the ends of its axes: worked out from the headers alone."""
    centre = np.array([*(low + high) / 2, first + slices / 2]) - 0.5
    half = np.array([*(high - low) / 2, slices / 2])
    ends = np.concatenate([[centre - half * axis, centre + half * axis] for axis in np.eye(3)])
    steps = np.stack([0.9 * np.array(OBLIQUE[:3]), 0.7 * np.array(OBLIQUE[3:]), 2.5 * NORMAL])
    from highdicom import sr

    named = [sr.SourceImageForSegmentation(images[0].SOPClassUID, images[0].SOPInstanceUID)]
    return sr.VolumeSurface(sr.GraphicTypeValues3D.ELLIPSOID, 10.0 + ends @ steps, FRAME, source_images=named)


def test_flat_outlines_with_one_tracking_number_are_one_box(tmp_path):
    images, uid = ct(tmp_path), generate_uid()
    outlines = [rectangle(images[2], 1, 2, 8, 9), rectangle(images[3], 0, 4, 5, 12), rectangle(images[5], 20, 1, 24, 3)]
    report(
        tmp_path / "sr.dcm",
        images,
        [planar(outlines[0], tracking=uid), planar(outlines[1], tracking=uid), planar(outlines[2])],
    )
    assert_array_equal(only_boxes(tmp_path).corners, [[0, 2, 2, 8, 12, 4], [20, 1, 5, 24, 3, 6]])


def test_a_planar_outline_in_mm_fills_the_slice_in_which_it_lies(tmp_path):
    from highdicom import sr

    images = ct(tmp_path)
    corners = np.array([(2, 3, 4.02), (9, 3, 4.02), (9, 8, 4.02), (2, 8, 4.02), (2, 3, 4.02)]) - (0.5, 0.5, 0)
    steps = np.stack([0.9 * np.array(OBLIQUE[:3]), 0.7 * np.array(OBLIQUE[3:]), 2.5 * NORMAL])
    region = sr.ImageRegion3D(sr.GraphicTypeValues3D.POLYGON, 10.0 + corners @ steps, FRAME)
    report(tmp_path / "sr.dcm", images, [planar(region)])
    assert_allclose(only_boxes(tmp_path).corners, [[2, 3, 4, 9, 8, 5]], atol=1e-3)


def test_another_frame_of_reference_is_refused_and_the_report_named(tmp_path):
    from highdicom import sr

    images = ct(tmp_path)
    ball = np.array([(-9, 0, 0), (9, 0, 0), (0, -9, 0), (0, 9, 0), (0, 0, -9), (0, 0, 9)], float)
    named = [sr.SourceImageForSegmentation(images[0].SOPClassUID, images[0].SOPInstanceUID)]
    region = sr.VolumeSurface(sr.GraphicTypeValues3D.ELLIPSOID, ball, "1.2.3.99", source_images=named)
    report(tmp_path / "other.dcm", images, [volumetric(referenced_volume_surface=region)])
    with pytest.raises(GeometryError, match=r"other\.dcm: marks places in another frame of reference"):
        only_boxes(tmp_path)


def test_a_box_outside_its_image_is_refused_and_the_report_named(tmp_path):
    [image] = radiographs(tmp_path)
    report(tmp_path / "sr.dcm", [image], [planar(rectangle(image, 45, 30, 60, 35))])
    with pytest.raises(DatasetError, match=r"sr\.dcm: finding 1 \(Nodule\) .* lies outside the image"):
        only_boxes(tmp_path)


def test_a_report_on_images_that_are_not_there_is_named(tmp_path):
    images = ct(tmp_path)
    [other] = radiographs(tmp_path, uid="1.2.3.22")
    report(
        tmp_path / "sr.dcm",
        [*images, other],
        [planar(rectangle(images[0], 1, 1, 4, 4)), planar(rectangle(other, 1, 1, 4, 4))],
    )
    shutil.rmtree(tmp_path / "dx")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset.cases[0].references["boxes"]) == 1
    [problem] = dataset.problems
    assert (problem.severity, problem.cases) == ("warning", ("sr.dcm",))
    assert "1 region of 2 on no image series here" in problem.what


def test_each_radiograph_of_a_series_is_a_case_and_one_without_a_region_holds_nothing(tmp_path):
    images = radiographs(tmp_path, 3)
    report(tmp_path / "sr.dcm", images[:2], [planar(rectangle(images[1], 1, 2, 4, 6))])
    dataset = dataset_layouts.read_dataset(tmp_path)
    found = {int(case.images["image"].data.max()): case.references["boxes"] for case in dataset}
    assert sorted(found) == [1, 2]  # the third is in no report, and so not known to hold nothing
    assert len(found[1]) == 0
    assert_array_equal(found[2].corners, [[2, 1, 6, 4]])


def test_a_box_in_two_reports_counts_once_and_a_report_that_a_later_one_replaces_not_at_all(tmp_path):
    [image] = radiographs(tmp_path)
    wrong, same, other = (rectangle(image, *edges) for edges in ((1, 1, 9, 9), (3, 5.5, 10, 7), (20, 20, 30, 30)))
    first = report(tmp_path / "first.dcm", [image], [planar(wrong), planar(same)])
    second = report(tmp_path / "second.dcm", [image], [planar(same), planar(same, CYST), planar(other)])
    assert len(only_boxes(tmp_path)) == 4
    assert only_boxes(tmp_path).notes == ("1 box stands in several reports and counts once",)
    predecessor = pydicom.dcmread(first)
    named = sequence(ReferencedSOPInstanceUID=predecessor.SOPInstanceUID)
    within = sequence(SeriesInstanceUID=predecessor.SeriesInstanceUID, ReferencedSOPSequence=named)
    dataset = pydicom.dcmread(second)
    dataset.PredecessorDocumentsSequence = sequence(StudyInstanceUID="1.2.3.1", ReferencedSeriesSequence=within)
    dataset.save_as(second)
    read = dataset_layouts.read_dataset(tmp_path)
    assert len(read.cases[0].references["boxes"]) == 3
    assert [(one.what, one.cases) for one in read.problems] == [
        ("a later report names it as its predecessor", ("first.dcm",))
    ]


def test_finding_categories_stand_in_for_findings(tmp_path):
    [image] = radiographs(tmp_path)
    groups = [
        planar(rectangle(image, 3, 5, 10, 7), None, finding_category=CYST),
        planar(rectangle(image, 1, 1, 4, 4), None),
    ]
    report(tmp_path / "sr.dcm", [image], groups)
    assert only_boxes(tmp_path).names == ("Cyst", "finding")


def test_a_report_of_points_alone_says_nothing_about_what_is_not_there(tmp_path):
    [image] = radiographs(tmp_path)
    report(tmp_path / "sr.dcm", [image], [planar(outline(image, [(4, 4)], "POINT"))])
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def cad_report(path: Path, image: Dataset) -> Path:
    """A mammography CAD report as devices write it: outlines point at the images of a library, TID 4000."""

    def coded(value: str, meaning: str) -> list[Dataset]:
        return sequence(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)

    def node(
        kind: str, relation: str, concept: tuple[str, str] | None = None, *below: Dataset, **tags: object
    ) -> Dataset:
        [made] = sequence(ValueType=kind, RelationshipType=relation, **tags)
        if concept:
            made.ConceptNameCodeSequence = coded(*concept)
        if below:
            made.ContentSequence = list(below)
        return made

    def finding(x: float, shown: bool) -> Dataset:
        pointer = node("IMAGE", "SELECTED FROM")
        pointer.ReferencedContentItemIdentifier = [1, 1, 1]
        corners = [x, 3.0, x + 4, 3.0, x + 4, 9.0, x, 9.0, x, 3.0]
        rendering = coded("111150", "Presentation Required") if shown else coded("111152", "Not for Presentation")
        return node(
            "CODE", "CONTAINS", ("111059", "Single Image Finding"),
            node("CODE", "HAS CONCEPT MOD", ("111056", "Rendering Intent"), ConceptCodeSequence=rendering),
            node("NUM", "HAS PROPERTIES", ("111012", "Certainty of Finding"),
                 MeasuredValueSequence=sequence(NumericValue="87.5")),
            node("SCOORD", "HAS PROPERTIES", ("111010", "Center"), node("IMAGE", "SELECTED FROM"), GraphicType="POINT",
                 GraphicData=[x + 2, 6.0]),
            node("SCOORD", "HAS PROPERTIES", ("111041", "Outline"), pointer, GraphicType="POLYLINE",
                 GraphicData=corners),
            ConceptCodeSequence=coded("F-01796", "Mammography breast density"),
        )  # fmt: skip

    referenced = sequence(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    library = node(
        "CONTAINER",
        "CONTAINS",
        ("111028", "Image Library"),
        node("IMAGE", "CONTAINS", ReferencedSOPSequence=referenced),
    )
    findings = node("CONTAINER", "CONTAINS", ("111017", "CAD Processing"), finding(5, True), finding(25, False))
    [dataset] = sequence(
        SOPClassUID=MammographyCADSRStorage, SOPInstanceUID=generate_uid(), Modality="SR", PatientID=image.PatientID,
        StudyInstanceUID=image.StudyInstanceUID, SeriesInstanceUID=generate_uid(), ValueType="CONTAINER",
        ConceptNameCodeSequence=coded("111036", "Mammography CAD Report"), ContentSequence=[library, findings],
    )  # fmt: skip
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def test_findings_of_a_mammography_cad_report_are_boxes_unless_they_are_hidden(tmp_path):
    [image] = radiographs(tmp_path)
    path = cad_report(tmp_path / "cad.dcm", image)
    assert_array_equal(only_boxes(tmp_path).corners, [[3, 5, 9, 9]])
    assert only_boxes(tmp_path).names == ("Mammography breast density",)
    assert [one.score for one in sr_reading.read_report(path).marked] == [0.875]


def test_a_report_of_a_viewer_is_read(corpus):
    viewer = sr_reading.read_report(corpus / "dicom" / "files" / "dwv_tid1500_0_sr_roi.dcm")
    assert [one.name for one in viewer.marked] == ["finding"] * 3
    assert_allclose(np.concatenate(viewer.marked[0].bounds), [4.139, 4.101, 7.975, 7.975], atol=0.2)


def test_reports_of_other_programs_are_read(data):
    [circle] = sr_reading.read_report(data / "dicom" / "files" / "highdicom_sr_document.dcm").marked
    assert (circle.name, circle.graphic) == ("Spinal cord", "CIRCLE")
    assert_array_equal(np.concatenate(circle.bounds), [47, 41, 69, 63])
    by_segments = sr_reading.read_report(data / "dicom" / "files" / "dcmqi_sr_example_sr.dcm")
    assert (by_segments.marked, by_segments.is_whole) == ((), False)


def test_what_is_no_report_or_damaged_is_refused_by_name(tmp_path, data):
    with pytest.raises(FormatError, match="not a structured report with coordinates"):
        sr_reading.read_report(data / "dicom" / "files" / "pydicom_CT_small.dcm")
    [image] = radiographs(tmp_path)
    path = report(tmp_path / "sr.dcm", [image], [planar(rectangle(image, 3, 5, 10, 7))])
    damaged = pydicom.dcmread(path)
    for element in damaged.iterall():
        if element.keyword == "GraphicData":
            element.value = list(element.value)[:-1]
    damaged.save_as(path)
    with pytest.raises(FormatError, match=r"sr\.dcm: a POLYLINE of 9 numbers"):
        sr_reading.read_report(path)
    report(tmp_path / "whole.dcm", [image], [planar(rectangle(image, 3, 5, 10, 7))])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [(one.severity, one.cases) for one in dataset.problems] == [("error", ("sr.dcm",))]
    assert len(dataset.cases[0].references["boxes"]) == 1
    images = dataset_layouts.read_dataset(
        tmp_path, DatasetOptions(references=False)
    )  # of no concern where images are predicted
    assert not [one for one in images.problems if one.severity == "error"]


def test_patients_stand_in_nothing_that_is_said(tmp_path):
    images = ct(tmp_path)
    report(
        tmp_path / "sr.dcm",
        images,
        [planar(outline(images[0], [(4, 4)], "POINT")), planar(rectangle(images[0], 1, 1, 9, 9))],
    )
    dataset = dataset_layouts.read_dataset(tmp_path)
    stated = repr([dataset.problems, dataset.layout, dataset.classes, dataset.cases[0].references["boxes"].notes])
    assert "secret" not in stated
    assert "Doe" not in stated


@given(st.lists(st.floats(-9, 9), min_size=9, max_size=9), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_the_bounds_of_an_ellipsoid_hold_its_surface_and_touch_it(axes, centre):
    half = np.reshape(axes, (3, 3))
    points = np.concatenate([[np.array(centre) - one, np.array(centre) + one] for one in half])
    low, high = sr_reading.graphic_bounds("ELLIPSOID", points)
    steps = np.linspace(0, np.pi, 25)
    down, around = (one.ravel() for one in np.meshgrid(steps, 2 * steps))
    sphere = np.stack([np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)], axis=1)
    surface_points = centre + sphere @ half
    assert (surface_points >= low - 1e-9).all()
    assert (surface_points <= high + 1e-9).all()
    norm = np.linalg.norm(half, axis=0)
    touching = centre + (half.T @ half)[np.arange(3)] / np.maximum(norm, 1e-12)[:, None]
    assert_allclose(np.diagonal(touching), high, atol=1e-6)
