"""Each kind of DICOM object that states a result is valid, and lies on its source."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

import real_data
from hilum.errors import FormatError
from hilum.files import file_formats, polygon
from hilum.files.dicom.reading import rtstruct_reading, seg_reading
from hilum.files.dicom.writing import mask_outlines, stamp
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.files.dicom.writing.stamp import Stamp
from hilum.values import Code, Finding, Image, Label, Map
from matrices import thinned
from written_dicom import write_slice

LABELS = (
    Label(1, "Liver", (221, 130, 101), Code("SCT", "10200004", "Liver")),
    Label(3, "腫瘍", (255, 0, 0)),
    Label(7, "rest of it " * 8),
)
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
RETIRED_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6"
# A series of slices, one object of several frames, one that several acquisitions share, a mosaic.
SOURCES = real_data.parameters(
    "dicom",
    (
        "series/mr_hippocampus_001",
        "files/dcmqi_legacy_enhanced_ct_23x38x3.dcm",
        "series/ct_23x38x3_with_seg",
        "series/enh_mr_siemens_xa10",
        "series/mr_siemens_mosaic",
    ),
)
# A report states findings and a series is an image, which `result_on` has not: they have tests of their own.
KINDS = [kind for kind in ANSWERS if kind not in ("sr", "series")]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        yield


class Blank:
    """A page without content."""

    def pixels(self) -> Any:
        return np.zeros((12, 8, 3), np.uint8)

    def pdf(self) -> bytes:
        return b"%PDF-1.4 without content"


def result_on(source: Image, **stated: Any) -> Result:
    """A ball of the first label with a hole, and a bar of the second one through the border of the image."""
    places = np.indices(source.geometry.shape).T
    middle = np.array(source.geometry.shape) / 2
    away = (np.abs((places - middle) / middle) ** 2).sum(axis=-1).T
    marked = np.where((away < 0.5) & (away > 0.05), 1, 0).astype(np.uint8)
    marked[:2, : marked.shape[1] // 2] = 3
    numbers = np.random.default_rng(0).normal(size=(2, *source.geometry.shape)).astype(np.float32)
    maps = {"total": Map(numbers[0], "nats"), "probabilities": Map(abs(np.sin(numbers)), names=("Liver", "腫瘍"))}
    return Result(source, "hilum segmentation abc", [("", marked, LABELS)], maps=maps, page=Blank, **stated)


def written(kind: str, result: Result, folder: Path) -> list[Path]:
    return list(ANSWERS[kind].write(result, folder / "case"))


def errors_in(path: Path) -> Sequence[str]:
    """What dciodvfy calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    told = subprocess.run(["dciodvfy", "-new", path], check=False, capture_output=True, text=True, errors="replace")
    return [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]


# -- every kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", thinned(3, [kind for kind in KINDS if kind != "labelmap"]))
@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error(name: str, kind: str, tmp_path: Path):
    paths = written(kind, result_on(read_first(real_data.find(f"dicom/{name}"))), tmp_path)
    assert paths
    for path in paths:
        assert errors_in(path) == []


@pytest.mark.parametrize("kind", thinned(3, KINDS))
def test_made_again_under_one_stamp_an_object_has_the_same_bytes(kind: str, data: Path, tmp_path: Path):
    result = result_on(file_formats.read(data / "dicom/series/ct_23x38x3_with_seg"))
    made = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        paths = written(kind, result, folder)
        for path in paths:
            stamp.apply_stamp(path, Stamp("2.25", f"job {path.name}", 1e9, "For research use only"))
        made.append([path.read_bytes() for path in paths])
        original = pydicom.dcmread(result.source.source.paths[0])  # type: ignore[union-attr]
        for path in paths:
            own = pydicom.dcmread(path)
            assert "For research use only" in own.SeriesDescription
            for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
                assert own[keyword].value == original[keyword].value
            assert own.get("FrameOfReferenceUID", original.FrameOfReferenceUID) == original.FrameOfReferenceUID
    assert made[0] and made[0] == made[1]


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct", "stl", "pm"])
def test_a_source_without_a_frame_of_reference_is_refused(kind: str, tmp_path: Path):
    for n in range(3):
        position = (0.0, 0.0, float(n))
        write_slice(tmp_path / f"{n}.dcm", np.zeros((8, 9), "i2"), position=position, FrameOfReferenceUID=None)
    result = result_on(file_formats.read(tmp_path))
    with pytest.raises(FormatError, match="FrameOfReferenceUID"):
        written(kind, result, tmp_path)


@pytest.mark.parametrize(
    ("kind", "tags", "lacking"),
    [
        ("sr", {"StudyInstanceUID": None}, "the image states no StudyInstanceUID (0020,000D)"),
        (
            "sc",
            {"SOPClassUID": RETIRED_ULTRASOUND},
            f"highdicom does not know images of SOP class {RETIRED_ULTRASOUND}",
        ),
    ],
)
def test_what_a_source_lacks_is_said_in_words_of_dicom(kind: str, tags: Any, lacking: str, tmp_path: Path):
    write_slice(tmp_path / "0.dcm", np.zeros((8, 9), "i2"), InstanceNumber=1, **tags)
    result = result_on(file_formats.read(tmp_path), findings=[Finding("effusion", True)])
    with pytest.raises(FormatError) as refusal:
        written(kind, result, tmp_path)
    assert lacking in str(refusal.value)


@pytest.mark.parametrize(
    "stated",
    [
        {"BodyPartExamined": "BRAIN", "SequenceVariant": "", "ScanningSequence": "SE", "WindowWidth": 0},
        {"BodyPartExamined": "KNEE", "ScanningSequence": "IR", "SpecificCharacterSet": ""},
        {"InversionTime": 100, "ScanningSequence": "SE"},
    ],
)
def test_a_series_computed_from_an_odd_header_is_valid(stated: Any, tmp_path: Path):
    for n in range(3):
        position, tags = (0.0, 0.0, float(n)), {"WindowCenter": 40, "InstanceNumber": n + 1, **stated}
        write_slice(tmp_path / f"{n}.dcm", np.zeros((8, 9), "i2"), position=position, sop_class=MR_IMAGE, **tags)
    source = file_formats.read(tmp_path)
    enhanced = {"enhanced": Map(np.ones(source.geometry.shape, np.float32), is_image=True)}
    paths = list(ANSWERS["series"].write(Result(source, "denoiser", maps=enhanced), tmp_path / "case"))
    odd = ("Laterality", "InversionTime", "SequenceVariant", "CharacterSet", "Window")
    assert len(paths) == 3
    assert [line for path in paths for line in errors_in(path) if any(word in line for word in odd)] == []


def test_a_series_computed_from_an_image_in_colour_is_refused(data: Path, tmp_path: Path):
    picture = read_first(data / "dicom" / "files" / "pydicom_examples_rgb_color.dcm")
    enhanced = {"enhanced": Map(np.zeros(picture.geometry.shape, np.float32), is_image=True)}
    with pytest.raises(FormatError, match="one channel"):
        list(ANSWERS["series"].write(Result(picture, "denoiser", maps=enhanced), tmp_path / "case"))


@cache
def read_first(path: Path) -> Image:
    """The first volume of a series or an object, read once for all kinds."""
    volumes = file_formats.read_volumes(path)
    return volumes[next(iter(volumes))]


@pytest.mark.parametrize("kind", ["seg", "gsps", "sc", "sr"])
def test_odd_headers_that_a_result_repeats_do_not_make_it_invalid(kind: str, tmp_path: Path):
    code = pydicom.Dataset()  # without a meaning
    code.CodeValue, code.CodingSchemeDesignator = "4711", "99SITE"
    window = {"WindowCenter": 40, "WindowWidth": 0}
    write_slice(tmp_path / "0.dcm", np.zeros((8, 9), "i2"), ProcedureCodeSequence=[code], InstanceNumber=1, **window)
    result = result_on(file_formats.read(tmp_path), findings=[Finding("effusion", True)])
    [path] = written(kind, result, tmp_path)
    assert not [line for line in errors_in(path) if "CodeSequence" in line or "Window" in line]


def test_a_segmentation_of_a_picture_states_how_it_lies_towards_the_patient(data: Path, tmp_path: Path):
    [path] = written("seg", result_on(file_formats.read(data / "dicom/files/highdicom_dx_image.dcm")), tmp_path)
    assert errors_in(path) == []


# -- label map and structure set --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", thinned(2, SOURCES))
def test_a_label_map_and_a_structure_set_are_read_again_voxel_by_voxel(name: str, tmp_path: Path):
    result = result_on(read_first(real_data.find(f"dicom/{name}")))
    [(_, truth, _)] = result.label_maps
    [label_map], [structures] = written("labelmap", result, tmp_path), written("rtstruct", result, tmp_path)
    numbers = {1: 1, 2: 3, 3: 7}  # segments are counted on
    again = seg_reading.read_segmentation(label_map, on=result.source.geometry)
    assert_array_equal(np.vectorize(lambda n: numbers.get(n, 0))(again.data[0]), truth)
    assert_array_equal(rtstruct_reading.rasterise_regions(structures, result.source.geometry).data[0], truth)


def test_highdicom_reads_a_label_map_by_its_segments(data: Path, tmp_path: Path):
    result = result_on(file_formats.read(data / "dicom/series/mr_hippocampus_001"))
    [path] = written("labelmap", result, tmp_path)
    made = highdicom.seg.segread(path)
    assert made.segmentation_type == highdicom.seg.SegmentationTypeValues.LABELMAP
    assert next(made.get_segment_description(n).segment_label for n in made.segment_numbers if n) == "Liver"
    counts = np.bincount(made.pixel_array.ravel())
    assert counts[1:].tolist() == np.unique(result.label_maps[0][1], return_counts=True)[1][1:].tolist()


def test_regions_keep_names_colours_and_codes(data: Path, tmp_path: Path):
    result = result_on(file_formats.read(data / "dicom/series/mr_hippocampus_001"))
    [path] = written("rtstruct", result, tmp_path)
    labels = rtstruct_reading.rasterise_regions(path, result.source.geometry).labels
    assert labels[0] == LABELS[0]
    assert (labels[1].value, labels[1].name, labels[1].colour) == (3, "腫瘍", (255, 0, 0))


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=60)
def test_outlines_filled_are_the_mask(mask: Any):
    filled = np.zeros_like(mask)
    for corners in mask_outlines.trace_outlines(mask):
        piece = polygon.inside_polygon(corners[:, ::-1] - 0.5, mask.shape)
        assert not (filled & piece).any()
        filled |= piece
    assert_array_equal(filled, mask)


# -- surfaces ---------------------------------------------------------------------------------------------------------


def test_an_encapsulated_surface_lies_around_the_voxels_of_its_structure_in_lps(data: Path, tmp_path: Path):
    result = result_on(file_formats.read(data / "dicom/series/mr_hippocampus_001"))
    [(_, mask, _)] = result.label_maps
    paths = written("stl", result, tmp_path)
    made = [pydicom.dcmread(path) for path in paths]
    assert [one.DocumentTitle for one in made] == ["Liver", "腫瘍"]  # the third has no voxel
    for one, label in zip(made, LABELS, strict=False):
        document = one.EncapsulatedDocument[84 : one.EncapsulatedDocumentLength]
        triangles = np.frombuffer(document, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
        corners = triangles["corners"].astype(float)
        volume = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        voxels = np.argwhere(mask == label.value)
        assert volume == pytest.approx(len(voxels) * result.source.geometry.voxel_volume, rel=1e-3)
        index = result.source.geometry.to_index(corners.reshape(-1, 3) * (-1, -1, 1))
        assert (index.min(axis=0) > voxels.min(axis=0) - 1).all()
        assert (index.max(axis=0) < voxels.max(axis=0) + 1).all()
