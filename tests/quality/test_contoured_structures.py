"""What was contoured and is not in the label map is said by name: inputs of users, built anew, as `check` sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

import hilum
from hilum.files import file_formats
from hilum.files.dicom.writing import seg
from hilum.values import Label
from hilum.verbs.check import Check
from written_dicom import Contour, structure_set, write_slice

# Rows and columns of a slice; slices lie 2 mm apart, and the first voxel at (0, 0, 0).
PIXELS = (32, 40)


def write_ct(folder: Path, patient: int, slices: int = 8) -> Path:
    """A CT of noise, of one patient."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(patient)
    for n in range(slices):
        write_slice(
            folder / f"{n:03d}.dcm",
            generator.integers(0, 100, PIXELS).astype(np.int16),
            position=(0, 0, 2 * n),
            PatientID=f"P{patient}",
            StudyInstanceUID=f"1.2.3.1.{patient}",
            SeriesInstanceUID=f"1.2.3.2.{patient}",
            FrameOfReferenceUID=f"1.2.3.3.{patient}",
        )
    return folder


def write_contours(folder: Path, patient: int, regions: Mapping[str, Sequence[Contour]]) -> Path:
    """A structure set on the CT of this patient."""
    frame_of_reference = f"1.2.3.3.{patient}"
    path = structure_set(folder / "rs.dcm", dict(regions), frame_of_reference=frame_of_reference, instance=None)
    structures = pydicom.dcmread(path)
    structures.PatientID = f"P{patient}"
    structures.StudyInstanceUID = f"1.2.3.1.{patient}"
    structures.SOPInstanceUID = f"1.2.3.9.{patient}"
    structures.FrameOfReferenceUID = frame_of_reference
    structures.save_as(path)
    return path


def rectangle(columns: tuple[int, int], rows: tuple[int, int], plane: int) -> Contour:
    """A contour around the voxels from the first column and row on, up to the last ones."""
    left, right = columns[0] - 0.5, columns[1] - 0.5
    top, bottom = rows[0] - 0.5, rows[1] - 0.5
    z = 2.0 * plane
    return [(left, top, z), (right, top, z), (right, bottom, z), (left, bottom, z)]


def traced_twice(root: Path) -> Path:
    """Four patients with two structures each; the second one of patient 3 goes around twice."""
    for patient in range(1, 5):
        folder = write_ct(root / f"P{patient}", patient)
        body = [rectangle((5, 25), (5, 25), plane) for plane in (2, 3, 4)]
        tumour = [rectangle((28, 35), (5, 25), plane) * (2 if patient == 3 else 1) for plane in (2, 3, 4)]
        write_contours(folder, patient, {"body": body, "GTV": tumour})
    return root


def sizes(checked: Check) -> list[dict[str, int]]:
    """{structure: voxels} of each case."""
    names = {label.value: label.name for label in checked.dataset.classes["mask"]}
    measured = [case.references["mask"] for case in checked.examination.fingerprint.cases]
    return [{names[value]: count for value, count in own.items() if value} for own in measured]


def findings(checked: Check, severity: str) -> list[str]:
    return [one.what for one in checked.problems if one.severity == severity]


def test_a_contour_that_is_traced_twice_is_the_structure_of_its_patient(tmp_path):
    checked = hilum.check(traced_twice(tmp_path))
    assert sizes(checked) == [{"body": 1200, "GTV": 420}] * 4
    assert findings(checked, "warning") == []


def test_a_contour_that_went_there_and_back_is_named_by_patient_and_structure(tmp_path):
    path = traced_twice(tmp_path) / "P3" / "rs.dcm"
    dataset = pydicom.dcmread(path)
    for contour in dataset.ROIContourSequence[1].ContourSequence:
        points = np.reshape([float(number) for number in contour.ContourData], (-1, 3))[:4]
        contour.ContourData = [f"{number:g}" for number in np.concatenate([points, points[::-1]]).ravel()]
    dataset.save_as(path)
    [lost] = [one for one in hilum.check(tmp_path).problems if one.severity == "warning"]
    assert lost.what == "GTV was contoured and has no voxel: its contours hold the centre of none"
    assert len(lost.cases) == 1
    # A structure that was not chosen is no loss.
    assert findings(hilum.check(tmp_path, labels="1=body"), "warning") == []


def test_contours_on_every_second_slice_are_said_and_interpolated_where_that_is_asked_for(tmp_path):
    for patient in range(1, 5):
        folder = write_ct(tmp_path / f"P{patient}", patient, slices=12)
        write_contours(folder, patient, {"GTV": [rectangle((5, 25), (5, 25), plane) for plane in (2, 4, 6, 8)]})
    plain = hilum.check(tmp_path)
    assert sizes(plain) == [{"GTV": 1600}] * 4
    assert findings(plain, "warning") == ["GTV is contoured on slices 2, 4, 6, 8 and not between them, on 3, 5, 7"]
    filled = hilum.check(tmp_path, fill_contours=True)
    assert sizes(filled) == [{"GTV": 2800}] * 4
    assert findings(filled, "warning") == []
    assert "mask: GTV is interpolated on 3 slices between contoured ones" in findings(filled, "note")


def write_fractions(folder: Path, fractions: np.ndarray) -> None:
    """A fractional segmentation on a CT, of one plane of values from 0 to 255 that is repeated on three slices."""
    image = file_formats.read(folder)
    tumour = np.zeros(image.geometry.shape, np.uint8)
    tumour[5:25, 5:25, 2:5] = 1
    path = folder / "seg.dcm"
    seg.write_segmentation(tumour, [Label(1, "tumour")], image, path, algorithm_name="test")
    segmentation = pydicom.dcmread(path)
    segmentation.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    segmentation.SegmentationType = "FRACTIONAL"
    segmentation.SegmentationFractionalType = "PROBABILITY"
    segmentation.MaximumFractionalValue = 255
    segmentation.BitsAllocated = 8
    segmentation.BitsStored = 8
    segmentation.HighBit = 7
    segmentation.PixelData = np.repeat(fractions[None], 3, axis=0).tobytes()
    segmentation.save_as(path)


def test_a_fractional_segmentation_that_is_a_bit_mask_is_named(tmp_path):
    inside = np.zeros(PIXELS, np.uint8)
    inside[5:25, 5:25] = 255
    bits = np.zeros(PIXELS, np.uint8)
    bits[5:25, 5:12] = 0x31
    bits[5:25, 12:18] = 0x21
    bits[5:25, 18:25] = 0x11
    for patient in (1, 2, 3):
        write_fractions(write_ct(tmp_path / f"P{patient}", patient), bits if patient == 2 else inside)
    checked = hilum.check(tmp_path)
    lost = [one for one in checked.problems if one.severity == "warning"]
    assert [one.what for one in lost] == [
        "tumour was contoured and has no voxel: none reaches one half: the highest value is 49 of 255"
    ]
    assert len(lost[0].cases) == 1


def test_regions_that_share_a_number_keep_their_names(tmp_path):
    folder = write_ct(tmp_path / "P1", 1)
    tumour = [rectangle((5, 25), (5, 25), plane) for plane in (2, 3, 4)]
    lung = [rectangle((28, 35), (5, 25), plane) for plane in (2, 3, 4)]
    path = write_contours(folder, 1, {"GTV": tumour, "lung": lung})
    structures = pydicom.dcmread(path)
    structures.StructureSetROISequence[1].ROINumber = 1
    structures.ROIContourSequence[1].ReferencedROINumber = 1
    structures.save_as(path)
    checked = hilum.check(tmp_path)
    assert sizes(checked) == [{"GTV": 1200, "lung": 420}]
    said = "mask: several regions have the number 1: their order says whose contours are whose"
    assert said in findings(checked, "note")
