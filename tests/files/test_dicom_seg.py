"""DICOM SEG: what was contoured lies where it was contoured, and what is written is read again, voxel by voxel."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.color import CIELabColor
from numpy.testing import assert_array_equal
from pydicom.dataset import Dataset

import real_data
from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats
from hilum.files.dicom import seg_planes, slice_geometry
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.slice_geometry import Plane
from hilum.values import Code, Geometry, Label
from hilum.values.voxel_images import WITHOUT_VOXELS

LIVER = Label(1, "Liver", (221, 130, 101), Code("SCT", "10200004", "Liver"))
TUMOUR = Label(2, "Tumour", (255, 0, 0), Code("SCT", "108369006", "Neoplasm"))
PLAIN = Label(3, "rest")
LABELS = (LIVER, TUMOUR, PLAIN)
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        yield


def marked(geometry: Geometry, highest: int = 3) -> np.ndarray[Any, Any]:
    return RNG.integers(0, highest + 1, geometry.shape).astype(np.uint8)


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path)
    return path


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "name", "voxels"),
    [
        ("ct_23x38x3_with_seg", "dcmqi_seg_23x38x3", 322),
        pytest.param("ct_3slices_with_seg", "dcmqi_seg_liver", 107098, marks=pytest.mark.corpus),
    ],
)
def test_a_segment_lies_on_its_ct(series: str, name: str, voxels: int):
    source = file_formats.read(real_data.find(f"dicom/series/{series}"))
    path = real_data.find(f"dicom/files/{name}.dcm")
    segments = seg_reading.read_segmentation(path, on=source.geometry)
    stored = pydicom.dcmread(path)
    assert segments.geometry is source.geometry
    assert segments.data.sum() == stored.pixel_array.sum() == voxels
    for groups, frame in zip(stored.PerFrameFunctionalGroupsSequence, stored.pixel_array, strict=True):
        z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        slice_ = int(np.rint(source.geometry.to_index([0, 0, z])[2]))
        assert_array_equal(segments.data[0, :, :, slice_], frame.T)


def test_a_liver_has_the_density_of_a_liver(corpus: Path):
    source = file_formats.read(corpus / "dicom/series/ct_3slices_with_seg")
    segments = seg_reading.read_segmentation(corpus / "dicom/files/dcmqi_seg_liver.dcm", on=source.geometry)
    # Liver without contrast is 40 to 60 HU: what lies elsewhere has other values.
    assert 40 < np.median(source.data[segments.data == 1]) < 60


def test_its_own_grid_is_that_of_the_ct(data: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    own = seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_23x38x3.dcm")
    assert own.geometry.equals(source.geometry)
    assert_array_equal(own.data, seg_reading.read_segmentation(own.source.paths[0], on=source.geometry).data)  # type: ignore[union-attr]


def test_names_colours_and_codes_are_kept(data: Path):
    [label] = seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_liver.dcm").labels
    assert label == Label(1, "Liver", (221, 130, 101), Code("SRT", "T-62000", "Liver"))


def test_compressed_segmentations_are_the_uncompressed_one(data: Path):
    plain = seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_liver.dcm")
    for name in ("pydicomdata_liver_j2k", "pydicomdata_liver_deflate"):
        assert_array_equal(seg_reading.read_segmentation(data / f"dicom/files/{name}.dcm").data, plain.data)


def test_overlapping_segments_are_one_channel_each(data: Path):
    path = data / "dicom/files/dcmqi_seg_partial_overlaps.dcm"
    image = seg_reading.read_segmentation(path)
    stored = pydicom.dcmread(path)
    assert image.channels == ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    assert image.notes == ("segments overlap: one channel a segment",)
    assert (image.data != 0).sum() == stored.pixel_array.sum()
    for n, label in enumerate(image.labels):
        assert set(np.unique(image.data[n])) == {0, label.value}


def test_fractions_count_from_one_half_on_and_it_is_said(data: Path):
    binary = seg_reading.read_segmentation(data / "dicom/files/highdicom_seg_image_ct_binary.dcm")
    fractional = seg_reading.read_segmentation(data / "dicom/files/highdicom_seg_image_ct_true_fractional.dcm")
    assert_array_equal(fractional.data, binary.data)
    assert fractional.notes == (
        "a voxel belongs to a segment from a probability of one half on",
        "no voxel lies wholly in a segment: the highest value is 128 of 255",
    )


def fractions(data: Path, path: Path, half: int, whole: int, most: int | None) -> Path:
    """A real fractional segmentation of 0, 64 and 128 with other values for the last two, and another maximum."""
    dataset = pydicom.dcmread(data / "dicom/files/highdicom_seg_image_ct_true_fractional.dcm")
    stored = dataset.pixel_array
    dataset.PixelData = np.select([stored == 64, stored == 128], [half, whole]).astype("u1").tobytes()
    if most is None:
        del dataset.MaximumFractionalValue
    else:
        dataset.MaximumFractionalValue = most
    return save(dataset, path)


def test_fractions_count_by_the_maximum_that_is_stated(data: Path, tmp_path: Path):
    as_stored = seg_reading.read_segmentation(data / "dicom/files/highdicom_seg_image_ct_true_fractional.dcm")
    low = seg_reading.read_segmentation(fractions(data, tmp_path / "a.dcm", 33, 49, 255))
    assert not low.data.any()
    assert low.facts[WITHOUT_VOXELS] == {low.labels[0].name: "none reaches one half: the highest value is 49 of 255"}
    small = seg_reading.read_segmentation(fractions(data, tmp_path / "b.dcm", 29, 49, 60))
    assert_array_equal(small.data, as_stored.data)
    assert small.notes[-1] == "no voxel lies wholly in a segment: the highest value is 49 of 60"
    assert not small.facts[WITHOUT_VOXELS]
    with pytest.raises(FormatError, match="holds 49, above its MaximumFractionalValue"):
        seg_reading.read_segmentation(fractions(data, tmp_path / "c.dcm", 20, 49, 40))


def test_without_a_maximum_one_value_is_binary_and_several_are_refused(data: Path, tmp_path: Path):
    as_stored = seg_reading.read_segmentation(data / "dicom/files/highdicom_seg_image_ct_true_fractional.dcm")
    image = seg_reading.read_segmentation(fractions(data, tmp_path / "a.dcm", 0, 3, None))
    assert_array_equal(image.data, as_stored.data)
    assert image.notes[0].startswith("fractional without a maximum, and of two values")
    with pytest.raises(FormatError, match="holds 17, 49 and states no MaximumFractionalValue"):
        seg_reading.read_segmentation(fractions(data, tmp_path / "b.dcm", 17, 49, None))


def test_a_segment_that_no_frame_shows_is_named(data: Path, tmp_path: Path):
    dataset = pydicom.dcmread(data / "dicom/files/dcmqi_seg_23x38x3.dcm")
    other = copy.deepcopy(dataset.SegmentSequence[0])
    other.SegmentNumber, other.SegmentLabel = 99, "spleen"
    dataset.SegmentSequence.append(other)
    image = seg_reading.read_segmentation(save(dataset, tmp_path / "two.dcm"))
    assert image.notes[-1] == "segment spleen is described, and no frame shows it"
    assert not image.facts[WITHOUT_VOXELS]


def test_a_segmentation_of_a_radiograph_lies_on_its_pixels(data: Path):
    path = data / "dicom/files/highdicom_seg_image_cr_binary.dcm"
    assert_array_equal(seg_reading.read_segmentation(path).data[0], pydicom.dcmread(path).pixel_array)
    with pytest.raises(GeometryError, match="16 x 16 pixels without position"):
        seg_reading.read_segmentation(path, on=Geometry.of_pixels((16, 17)))


def test_which_images_it_was_contoured_on_is_told(data: Path):
    facts = seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_23x38x3.dcm").facts
    sources = [pydicom.dcmread(p) for p in (data / "dicom/series/ct_23x38x3_with_seg").glob("*.dcm")]
    assert facts["source_series"] == (sources[0].SeriesInstanceUID,)
    assert set(facts["source_instances"]) == {source.SOPInstanceUID for source in sources}


def test_a_missing_plane_is_background(data: Path, tmp_path: Path):
    dataset = pydicom.dcmread(data / "dicom/files/dcmqi_seg_23x38x3.dcm")
    whole = seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_23x38x3.dcm")
    frames = np.stack([dataset.pixel_array[n] for n in (0, 2)])
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[n] for n in (0, 2)]
    dataset.NumberOfFrames = 2
    packed = np.packbits(frames, axis=None, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    thinned = seg_reading.read_segmentation(save(dataset, tmp_path / "two.dcm"))
    assert thinned.geometry.equals(whole.geometry)
    assert not thinned.data[..., 1].any()
    assert_array_equal(thinned.data[..., [0, 2]], whole.data[..., [0, 2]])


@pytest.mark.parametrize("coloured", [False, True])
def test_a_label_map_kind_brings_its_own_numbers(data: Path, tmp_path: Path, coloured: bool):
    files = sorted((data / "dicom/series/ct_23x38x3_with_seg").glob("*.dcm"))
    sources = sorted(map(pydicom.dcmread, files), key=lambda source: float(source.ImagePositionPatient[2]))
    truth = np.array([0, 3, 40, 250], np.uint8)[RNG.integers(0, 4, (3, 38, 23))]
    tissue = pydicom.sr.codedict.codes.SCT.Tissue
    described = [
        highdicom.seg.SegmentDescription(
            number,
            f"number {number}",
            tissue,
            tissue,
            "MANUAL",
            display_color=CIELabColor.from_rgb(number, 0, 0) if coloured else None,
        )
        for number in (3, 40, 250)
    ]
    made = highdicom.seg.Segmentation(
        sources, truth, "LABELMAP", described, "1.2.3", 1, "1.2.4", 1, "maker", "model", "1", "0"
    )
    image = seg_reading.read_segmentation(
        save(made, tmp_path / "map.dcm"), on=file_formats.read(files[0].parent).geometry
    )
    assert_array_equal(image.data[0], truth.T)
    assert [label.value for label in image.labels] == [3, 40, 250]


def test_label_map_frames_that_overlap_keep_every_segment(data: Path, tmp_path: Path):
    files = sorted((data / "dicom/series/ct_23x38x3_with_seg").glob("*.dcm"))
    sources = sorted(map(pydicom.dcmread, files), key=lambda source: float(source.ImagePositionPatient[2]))
    truth = RNG.integers(0, 4, (3, 38, 23)).astype(np.uint8)
    tissue = pydicom.sr.codedict.codes.SCT.Tissue
    described = [highdicom.seg.SegmentDescription(n, f"{n}", tissue, tissue, "MANUAL") for n in (1, 2, 3)]
    made = highdicom.seg.Segmentation(
        sources, truth, "LABELMAP", described, "1.2.3", 1, "1.2.4", 1, "maker", "model", "1", "0"
    )
    for n, groups in enumerate(made.PerFrameFunctionalGroupsSequence):  # the first two lie in one plane
        groups.PlanePositionSequence[0].ImagePositionPatient = sources[max(n, 1)].ImagePositionPatient
    frames = np.frombuffer(made.PixelData, np.uint8)[: truth.size].reshape(truth.shape)
    image = seg_reading.read_segmentation(
        save(made, tmp_path / "map.dcm"), on=file_formats.read(files[0].parent).geometry
    )
    for n, label in enumerate(image.labels):
        marked = np.stack([np.zeros_like(frames[0]), (frames[:2] == label.value).any(axis=0), frames[2] == label.value])
        assert_array_equal(image.data[n] == label.value, marked.T)


@pytest.mark.parametrize("kind", ["LABELMAP", "BINARY"])
def test_a_segment_of_number_0_is_no_background_and_gets_another_number(data: Path, tmp_path: Path, kind: str):
    files = sorted((data / "dicom/series/ct_23x38x3_with_seg").glob("*.dcm"))
    sources = sorted(map(pydicom.dcmread, files), key=lambda source: float(source.ImagePositionPatient[2]))
    truth = RNG.integers(0, 3, (3, 38, 23)).astype(np.uint8)
    tissue = pydicom.sr.codedict.codes.SCT.Tissue
    described = [
        highdicom.seg.SegmentDescription(n, name, tissue, tissue, "MANUAL") for n, name in ((1, "A"), (2, "B"))
    ]
    made = highdicom.seg.Segmentation(
        sources, truth, kind, described, "1.2.3", 1, "1.2.4", 1, "maker", "model", "1", "0"
    )
    segments = [segment for segment in made.SegmentSequence if segment.SegmentNumber]
    for number, segment in enumerate(segments):
        segment.SegmentNumber = number
    made.SegmentSequence = segments
    if kind == "LABELMAP":  # the background is what the padding value says
        stored = np.frombuffer(made.PixelData, np.uint8)
        made.PixelData, made.PixelPaddingValue = np.array([255, 0, 1], np.uint8)[stored].tobytes(), 255
    for groups in made.PerFrameFunctionalGroupsSequence if kind == "BINARY" else ():
        groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber -= 1
    image = seg_reading.read_segmentation(
        save(made, tmp_path / "map.dcm"), on=file_formats.read(files[0].parent).geometry
    )
    assert_array_equal(image.data[0], truth.T)
    assert [(label.value, label.name) for label in image.labels] == [(1, "A"), (2, "B")]
    assert image.notes == ("segments were numbered anew: one has the number 0",)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_another_grid_is_refused_with_the_distance(data: Path):
    grid = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg").geometry
    moved = np.array(grid.affine)
    moved[0, 3] += 0.2
    with pytest.raises(GeometryError, match=r"lies 0\.2 mm from the image's voxel centres"):
        seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_23x38x3.dcm", on=Geometry(grid.shape, moved))


def test_another_frame_of_reference_is_refused(data: Path):
    grid = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg").geometry
    other = Geometry(grid.shape, grid.affine, frame_of_reference="1.2.3")
    with pytest.raises(GeometryError, match="another frame of reference"):
        seg_reading.read_segmentation(data / "dicom/files/dcmqi_seg_23x38x3.dcm", on=other)


def test_a_segment_outside_the_image_is_refused(data: Path):
    grid = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg").geometry
    with pytest.raises(GeometryError, match="reaches out of the image"):
        seg_reading.read_segmentation(
            data / "dicom/files/dcmqi_seg_23x38x3.dcm", on=grid.crop((slice(0, 23), slice(0, 38), slice(0, 2)))
        )


def test_an_image_is_no_segmentation(data: Path):
    with pytest.raises(FormatError, match="is not a DICOM segmentation"):
        seg_reading.read_segmentation(data / "dicom/files/pydicom_CT_small.dcm")


def test_tiles_of_a_slide_are_refused(data: Path):
    with pytest.raises(FormatError, match="tiles of a slide"):
        seg_reading.read_segmentation(data / "dicom/files/highdicom_seg_image_sm_dots_tiled_full.dcm")


def test_an_undescribed_segment_is_refused(data: Path, tmp_path: Path):
    dataset = pydicom.dcmread(data / "dicom/files/dcmqi_seg_23x38x3.dcm")
    dataset.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 7
    with pytest.raises(FormatError, match=r"undescribed segments \[7\]"):
        seg_reading.read_segmentation(save(dataset, tmp_path / "seven.dcm"))


def test_a_segmentation_with_two_decimals_lies_on_its_oblique_image_and_has_a_grid_of_its_own():
    turn = np.radians(20)
    axes = (np.cos(turn), np.sin(turn), 0.0, 0.0, 0.0, -1.0)
    exact = Plane((-101.23456, 43.98765, 87.65432), axes, (0.7, 0.7))
    image = Geometry((40, 36, 6), slice_geometry.affine_of_slices(exact, exact.normal * 0.9))
    places = [np.array(exact.position) + exact.normal * 0.9 * n for n in range(6)]
    rounded = [Plane(tuple(np.round(place, 2).tolist()), axes, (0.7, 0.7), (0.01,) * 3) for place in places]
    for n, plane in enumerate(rounded):
        assert seg_planes.place_frame(plane, 36, 40, image, "here").origin.tolist() == [0, 0, n]
    own = seg_planes.grid_of_frames(rounded, 36, 40, (None, None), None, "here")
    assert own.shape == image.shape and own.apart(image) < 0.02
    moved = exact.at(places[2] + 0.05 * exact.along_row)
    with pytest.raises(GeometryError, match=r"0\.05 mm from the image's voxel centres"):
        seg_planes.place_frame(moved, 36, 40, image, "here")


def test_a_segmentation_with_one_decimal_has_an_even_grid_of_its_own():
    heights = [round(1.25 * n + 1e-9, 1) for n in (0, 1, 2, 5, 6)]
    planes = [Plane((0.0, 0.0, height), (1.0, 0, 0, 0, 1, 0), (1.0, 1.0), (0.1,) * 3) for height in heights]
    for stated in (1.25, None):
        own = seg_planes.grid_of_frames([*planes, *planes], 4, 4, (stated, 1.25), None, "here")  # of two segments
        assert own.shape == (4, 4, 7) and own.spacing == pytest.approx((1, 1, 7.5 / 6))


def test_planes_at_uneven_distances_are_refused_without_their_image(data: Path, tmp_path: Path):
    dataset = pydicom.dcmread(data / "dicom/files/dcmqi_seg_23x38x3.dcm")
    position = dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    position.ImagePositionPatient = [*position.ImagePositionPatient[:2], position.ImagePositionPatient[2] + 0.6]
    with pytest.raises(GeometryError, match="unevenly spaced"):
        seg_reading.read_segmentation(save(dataset, tmp_path / "uneven.dcm"))
