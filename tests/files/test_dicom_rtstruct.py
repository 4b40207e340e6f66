"""RT structure sets: a voxel belongs to a region when its centre lies inside the contours."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from numpy.testing import assert_array_equal

from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats, polygon
from hilum.files.dicom.reading import rtstruct_reading
from hilum.values import Code, Geometry
from hilum.values.voxel_images import WITHOUT_VOXELS
from written_dicom import Contour, sequence, structure_set

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Columns run left, rows run back, as in an axial CT; 2 x 1 mm pixels, 3 mm slices.
GRID = Geometry((12, 10, 4), LPS @ np.array([[2.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]), "1.2.3.3")


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        yield


def rectangle(column: tuple[float, float], row: tuple[float, float], depth: float, grid: Geometry = GRID) -> Contour:
    """Corners given in voxels, as LPS mm."""
    index = [
        (c, r, depth) for c, r in zip((column[0], column[1], column[1], column[0]), np.repeat(row, 2), strict=True)
    ]
    return [tuple(point) for point in (grid.to_world(np.array(index)) @ LPS[:3, :3]).tolist()]


# -- real data --------------------------------------------------------------------------------------------------------


# The grid and the images of the series on which the real structure sets lie: only the larger corpus holds its pixels.
PHANTOM = Geometry(
    (512, 512, 2),
    np.array([[-0.488281, 0, 0, 125], [0, -0.488281, 0, 125], [0, 0, 5, 60], [0, 0, 0, 1]]),
    "1.2.840.113619.2.405.3.84541899.902.1605198123.912.6060.1",
)
PHANTOM_IMAGES = (
    "2.16.840.1.114362.1.11940992.23790159890.563423471.893.87",
    "2.16.840.1.114362.1.11940992.23790159890.563423471.985.89",
)


def test_the_grid_and_the_images_of_the_phantom_are_those_of_its_series(corpus: Path):
    source = file_formats.read(corpus / "dicom/series/ct_phantom_with_rtstruct")
    assert source.geometry.equals(PHANTOM)
    assert source.geometry.frame_of_reference == PHANTOM.frame_of_reference
    assert source.source is not None
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in source.source.paths]
    assert tuple(header.SOPInstanceUID for header in headers) == PHANTOM_IMAGES


def test_a_real_structure_set_covers_the_area_of_its_contours(data: Path):
    path = data / "dicom/files/rtutils_rtstruct_phantom.dcm"
    image = rtstruct_reading.rasterise_regions(path, PHANTOM, PHANTOM_IMAGES)
    areas = []
    for contour in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        x, y, _ = np.array(contour.ContourData, dtype=float).reshape(-1, 3).T
        areas.append(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
    spacing = PHANTOM.steps
    assert image.data[0, :, :, 0].sum() * spacing[0] * spacing[1] == pytest.approx(
        areas[0] - areas[1], rel=0.03
    )  # the second is a hole
    assert not image.data[0, :, :, 1].any()
    assert (image.labels[0].name, image.labels[0].colour) == ("ROI-1", (162, 136, 95))


def test_a_frame_of_reference_of_its_own_is_taken_only_where_the_files_are_named(data: Path):
    path = data / "dicom/files/rtutils_rtstruct_phantom.dcm"
    assert "names the image's files" in rtstruct_reading.rasterise_regions(path, PHANTOM, PHANTOM_IMAGES).notes[0]
    with pytest.raises(GeometryError, match="another frame of reference"):
        rtstruct_reading.rasterise_regions(path, PHANTOM)


def test_a_structure_set_of_other_images_is_refused(data: Path):
    path = data / "dicom/broken/rtutils_rtstruct_invalid_reference.dcm"
    with pytest.raises(GeometryError, match="refers to 1 of 3 images that are not in the series"):
        rtstruct_reading.rasterise_regions(path, PHANTOM, PHANTOM_IMAGES)
    with pytest.raises(GeometryError, match="ROI-1 lies 5 mm off the nearest slice"):
        rtstruct_reading.rasterise_regions(path, PHANTOM)


def test_a_structure_set_without_preamble_tells_its_references(data: Path):
    named = rtstruct_reading.referenced_images(data / "dicom/broken/pydicom_rtstruct_no_preamble.dcm")
    assert named.frames_of_reference == {"1.2.826.0.1.3680043.8.498.2010020400001.2"}
    assert named.series == {"1.2.826.0.1.3680043.8.498.2010020400001.2.1.1"}


# -- geometry ---------------------------------------------------------------------------------------------------------


def test_a_rectangle_fills_the_voxels_whose_centres_it_holds(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1.6, 5.4), (2.5, 6.5), 2)]})
    image = rtstruct_reading.rasterise_regions(path, GRID)
    truth = np.zeros(GRID.shape, np.uint8)
    truth[2:6, 3:7, 2] = 1
    assert_array_equal(image.data[0], truth)
    assert image.geometry is GRID


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_contour_inside_another_is_a_hole(tmp_path: Path, kind: str):
    contours = [rectangle((0.5, 9.5), (0.5, 8.5), 1), rectangle((2.5, 5.5), (2.5, 5.5), 1)]
    image = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "rt.dcm", {"ring": contours}, kind), GRID)
    truth = np.zeros(GRID.shape, np.uint8)
    truth[1:10, 1:9, 1] = 1
    truth[3:6, 3:6, 1] = 0
    assert_array_equal(image.data[0], truth)


def test_contours_that_are_equal_or_overlap_in_part_are_united_and_it_is_said(tmp_path: Path):
    box, other = rectangle((0.5, 4.5), (0.5, 4.5), 1), rectangle((2.5, 6.5), (2.5, 6.5), 1)
    hole, apart = rectangle((1.5, 2.5), (1.5, 2.5), 1), rectangle((7.5, 9.5), (0.5, 1.5), 1)
    path = structure_set(tmp_path / "rt.dcm", {"GTV": [box, other, box[::-1], hole, apart]})
    image = rtstruct_reading.rasterise_regions(path, GRID)
    truth = np.zeros(GRID.shape, np.uint8)
    truth[1:5, 1:5, 1] = truth[3:7, 3:7, 1] = truth[8:10, 1, 1] = 1
    truth[2, 2, 1] = 0
    assert_array_equal(image.data[0], truth)
    assert image.notes == ("contours of GTV that are equal or overlap in part are united on 1 slice",)
    once = structure_set(tmp_path / "xor.dcm", {"GTV": [box, other, box[::-1]]}, "CLOSEDPLANAR_XOR")
    truth = np.zeros(GRID.shape, np.uint8)
    truth[3:7, 3:7, 1] = 1
    assert_array_equal(rtstruct_reading.rasterise_regions(once, GRID).data[0], truth)
    assert not rtstruct_reading.rasterise_regions(once, GRID).notes


boxes = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(boxes, min_size=1, max_size=6))
def test_contours_lie_in_what_they_enclose_and_nested_ones_are_combined_by_exclusive_or(corners):
    masks = []
    for left, top, right, bottom in corners:
        masks.append(np.zeros((10, 10), bool))
        masks[-1][left : right + 1, top : bottom + 1] = True
    marked, is_united = rtstruct_reading.inside_contours(masks)
    assert not (marked & ~np.logical_or.reduce(masks)).any()
    if not is_united:
        assert_array_equal(marked, np.logical_xor.reduce(masks))
    assert_array_equal(marked, rtstruct_reading.inside_contours(masks[::-1])[0])


def test_a_keyhole_is_a_hole(tmp_path: Path):
    outer, inner = rectangle((0.5, 9.5), (0.5, 8.5), 1), rectangle((2.5, 5.5), (2.5, 5.5), 1)
    keyhole = [*outer, outer[0], inner[0], *inner[::-1], outer[0]]
    ring = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "a.dcm", {"ring": [outer, inner]}), GRID)
    assert_array_equal(
        rtstruct_reading.rasterise_regions(structure_set(tmp_path / "b.dcm", {"ring": [keyhole]}), GRID).data, ring.data
    )


def test_a_keyhole_is_a_hole_whichever_direction_it_takes_and_however_often(tmp_path: Path):
    outer, inner = rectangle((0.5, 9.5), (0.5, 8.5), 1), rectangle((2.5, 5.5), (2.5, 5.5), 1)
    along = [*outer, outer[0], *inner, inner[0]]
    against = [*outer, outer[0], inner[0], *inner[::-1]]
    ring = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "a.dcm", {"ring": [outer, inner]}), GRID)
    for number, keyhole in enumerate((along, against, against * 2)):
        path = structure_set(tmp_path / f"{number}.dcm", {"ring": [keyhole]})
        assert_array_equal(rtstruct_reading.rasterise_regions(path, GRID).data, ring.data)


@pytest.mark.parametrize("times", [2, 3])
def test_a_contour_that_is_traced_several_times_holds_what_it_holds_once(tmp_path: Path, times: int):
    box = rectangle((1.6, 5.4), (2.5, 6.5), 2)
    once = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "a.dcm", {"GTV": [box]}), GRID)
    often = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "b.dcm", {"GTV": [box * times]}), GRID)
    assert_array_equal(often.data, once.data)
    assert not often.facts[WITHOUT_VOXELS]


def test_where_the_end_of_a_contour_runs_over_its_start_it_is_filled(tmp_path: Path):
    left, top, right, bottom = 0.5, 0.5, 8.5, 6.5
    pen = [(left, top), (right, top), (right, bottom), (left, bottom), (left, 2.5), (6.5, 2.5), (6.5, 4.5), (left, 4.5)]
    contour = [tuple(p) for p in (GRID.to_world(np.array([(x, y, 1) for x, y in pen])) @ LPS[:3, :3]).tolist()]
    image = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "rt.dcm", {"GTV": [contour]}), GRID)
    truth = np.zeros(GRID.shape, np.uint8)
    truth[1:9, 1:7, 1] = 1
    assert_array_equal(image.data[0], truth)


def test_regions_without_a_voxel_are_named(tmp_path: Path):
    box = rectangle((1.6, 5.4), (2.5, 6.5), 2)
    speck, thin = rectangle((7.1, 7.4), (2.1, 2.4), 2), rectangle((1, 5), (2.2, 2.8), 1)
    regions = {"body": [box], "dot": [speck], "line": [thin, thin], "back": [[*box, *box[::-1]]], "two": [box[:2]]}
    image = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "rt.dcm", regions), GRID)
    assert image.facts[WITHOUT_VOXELS] == dict.fromkeys(
        ["dot", "line", "back", "two"], "its contours hold the centre of none"
    )


# -- slices between ---------------------------------------------------------------------------------------------------

CUBES = Geometry((12, 12, 9), LPS @ np.diag([1.0, 1.0, 3.0, 1.0]), "1.2.3.3")


def squares(halves: dict[int, float]) -> list[Contour]:
    """{slice: half the side} about the middle between the voxels 5 and 6."""
    return [rectangle((5.5 - half, 5.5 + half), (5.5 - half, 5.5 + half), n, CUBES) for n, half in halves.items()]


def areas(image: Any) -> list[int]:
    """Voxels on each slice."""
    return (image.data[0] != 0).sum(axis=(0, 1)).tolist()


@pytest.mark.parametrize(
    ("halves", "expected", "notes"),
    [
        (
            {2: 2, 4: 2, 6: 2},
            [0, 0, 16, 16, 16, 16, 16, 0, 0],
            ["GTV is interpolated on 2 slices between contoured ones"],
        ),
        ({1: 1, 3: 3}, [0, 4, 16, 36, 0, 0, 0, 0, 0], ["GTV is interpolated on 1 slice between contoured ones"]),
        # A quarter of the way corners of 4 x 4 are sqrt(2) outside of the small square and 4 inside of the large one.
        ({0: 1, 4: 5}, [4, 12, 36, 64, 100, 0, 0, 0, 0], ["GTV is interpolated on 3 slices between contoured ones"]),
        (
            {0: 2, 1: 2, 2: 2, 4: 2, 8: 2},
            [16, 16, 16, 16, 16, 0, 0, 0, 16],
            [
                "GTV is interpolated on 1 slice between contoured ones",
                "GTV is not interpolated on 3 slices: the gap is far wider than others",
            ],
        ),
        ({2: 2, 3: 1, 4: 2}, [0, 0, 16, 4, 16, 0, 0, 0, 0], []),
    ],
)
def test_slices_between_contoured_ones_are_interpolated_where_that_is_asked_for(
    tmp_path: Path, halves, expected, notes
):
    path = structure_set(tmp_path / "rt.dcm", {"GTV": squares(halves)})
    filled, plain = (
        rtstruct_reading.rasterise_regions(path, CUBES, fill_contours=True),
        rtstruct_reading.rasterise_regions(path, CUBES),
    )
    assert (areas(filled), list(filled.notes)) == (expected, notes)
    assert (areas(plain), plain.notes) == ([4 * halves.get(n, 0) ** 2 for n in range(9)], ())


# -- regions of one number --------------------------------------------------------------------------------------------


def renumbered(path: Path, numbers: list[int], referenced: list[int]) -> Path:
    """The structure set with other numbers in its descriptions, and in its contours."""
    dataset = pydicom.dcmread(path)
    for one, number in zip(dataset.StructureSetROISequence, numbers, strict=False):
        one.ROINumber = number
    for one, number in zip(dataset.ROIContourSequence, referenced, strict=False):
        one.ReferencedROINumber = number
    dataset.save_as(path)
    return path


THREE = {"GTV": [rectangle((0.5, 2.5), (0.5, 2.5), 1)], "body": [rectangle((3.5, 5.5), (0.5, 3.5), 1)]}
THREE["lung"] = [rectangle((6.5, 8.5), (0.5, 5.5), 1)]


def test_regions_of_one_number_are_distinguished_by_their_order(tmp_path: Path):
    image = rtstruct_reading.rasterise_regions(
        renumbered(structure_set(tmp_path / "rt.dcm", THREE), [1, 2, 1], [1, 2, 1]), GRID
    )
    counts = {label.name: int((image.data == label.value).sum()) for label in image.labels}
    assert counts == {"GTV": 4, "lung": 10, "body": 6}
    assert image.notes[0] == "several regions have the number 1: their order says whose contours are whose"


@pytest.mark.parametrize("referenced", [[2, 1, 1], [1, 2, 2], [1, 1, 2]])
def test_regions_of_one_number_in_another_order_than_their_contours_are_refused(tmp_path: Path, referenced):
    path = renumbered(structure_set(tmp_path / "rt.dcm", THREE), [1, 2, 1], referenced)
    with pytest.raises(FormatError, match=r"2 regions have the number 1 \(GTV, lung\)"):
        rtstruct_reading.rasterise_regions(path, GRID)


def test_several_items_of_contours_of_one_region_are_that_region(tmp_path: Path):
    path = renumbered(structure_set(tmp_path / "rt.dcm", THREE), [1, 2, 3], [1, 2, 1])
    image = rtstruct_reading.rasterise_regions(path, GRID)
    assert [(label.name, int((image.data == label.value).sum())) for label in image.labels] == [
        ("GTV", 14),
        ("body", 6),
    ]


def test_regions_that_overlap_are_one_channel_each(tmp_path: Path):
    regions = {"body": [rectangle((0.5, 9.5), (0.5, 8.5), 1)], "organ": [rectangle((2.5, 5.5), (2.5, 5.5), 1)]}
    image = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "rt.dcm", regions), GRID)
    assert image.channels == ("body", "organ")
    assert [(image.data[n] == n + 1).sum() for n in range(2)] == [72, 9]
    assert [label.colour for label in image.labels] == [(10, 20, 30), (20, 20, 30)]


def test_regions_side_by_side_share_no_voxel(tmp_path: Path):
    regions = {"left": [rectangle((1, 4), (1, 5), 1)], "right": [rectangle((4, 8), (1, 5), 1)]}
    image = rtstruct_reading.rasterise_regions(structure_set(tmp_path / "rt.dcm", regions), GRID)
    assert image.channels == ("regions",)
    assert [(image.data == n).sum() for n in (1, 2)] == [3 * 4, 4 * 4]


@given(st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 12)), min_size=3, max_size=9))
def test_any_polygon_winds_around_the_centres_that_matplotlib_finds_inside(points: list[tuple[float, float]]):
    x, y = np.round(np.array(points), 2).T + 0.005003  # off the centres, where rules differ
    columns, rows = np.meshgrid(np.arange(12), np.arange(10))
    ours = polygon.winding_numbers(np.c_[x, y], (10, 12))
    # matplotlib says what lies in a triangle; a polygon winds as all triangles from its first corner do together.
    turns = np.zeros((10, 12), int)
    for n in range(1, len(x) - 1):
        corners = np.array([(x[0], y[0]), (x[n], y[n]), (x[n + 1], y[n + 1])])
        inside = Outline([*corners, corners[0]], closed=True).contains_points(np.c_[columns.ravel(), rows.ravel()])
        direction = np.sign(np.linalg.det([corners[1] - corners[0], corners[2] - corners[0]])).astype(int)
        turns += direction * inside.reshape(10, 12)
    near = np.abs(_distances(x, y, columns, rows)) < 1e-3
    assert_array_equal(np.abs(ours)[~near], np.abs(turns)[~near])


def _distances(x: Any, y: Any, columns: Any, rows: Any) -> Any:
    """To the nearest edge of the polygon or of the fan of triangles over it."""
    nearest = np.full(columns.shape, np.inf)
    pairs = [(n, (n + 1) % len(x)) for n in range(len(x))] + [(0, n) for n in range(1, len(x))]
    for a, b in pairs:
        edge = np.array([x[b] - x[a], y[b] - y[a]])
        to = np.stack([columns - x[a], rows - y[a]], axis=-1)
        along = np.clip(to @ edge / max(edge @ edge, 1e-12), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(to - along[..., None] * edge, axis=-1))
    return nearest


@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(0, 0.5))
def test_on_an_oblique_or_sheared_grid_the_same_voxels_are_marked(a: float, b: float, shear: float):
    cross = np.array([[0, -a, b], [a, 0, -0.3], [-b, 0.3, 0]])
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.solve(np.eye(3) + cross, np.eye(3) - cross) @ np.array(
        [[2.0, 0, 0], [0, 1.5, shear], [0, 0, 3]]
    )
    grid = Geometry(GRID.shape, affine, "1.2.3.3")

    with TemporaryDirectory() as folder:
        path = structure_set(Path(folder) / "rt.dcm", {"box": [rectangle((1.6, 5.4), (2.5, 6.5), 2, grid)]})
        truth = np.zeros(GRID.shape, np.uint8)
        truth[2:6, 3:7, 2] = 1
        assert_array_equal(rtstruct_reading.rasterise_regions(path, grid).data[0], truth)


# -- what else stands in it -------------------------------------------------------------------------------------------


def test_points_are_passed_over_and_it_is_said(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1.6, 5.4), (2.5, 6.5), 2)]})
    dataset = pydicom.dcmread(path)
    dataset.StructureSetROISequence += sequence(ROINumber=2, ROIName="isocentre")
    dataset.ROIContourSequence += sequence(
        ReferencedROINumber=2, ContourSequence=sequence(ContourGeometricType="POINT", ContourData=["1", "2", "3"])
    )
    dataset.save_as(path)
    image = rtstruct_reading.rasterise_regions(path, GRID)
    assert [label.name for label in image.labels] == ["box"]
    assert image.notes == ("region isocentre has no closed contour",)


def test_contours_of_one_or_two_points_bound_nothing_and_it_is_said(tmp_path: Path):
    whole = rectangle((1.6, 5.4), (2.5, 6.5), 2)
    image = rtstruct_reading.rasterise_regions(
        structure_set(tmp_path / "rt.dcm", {"box": [whole, whole[:2], whole[:1]]}), GRID
    )
    assert_array_equal(
        image.data, rtstruct_reading.rasterise_regions(structure_set(tmp_path / "one.dcm", {"box": [whole]}), GRID).data
    )
    assert image.notes == ("2 contours of box with fewer than 3 points bound nothing",)


def test_the_code_of_a_region_is_kept(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1.6, 5.4), (2.5, 6.5), 2)]})
    dataset = pydicom.dcmread(path)
    code = sequence(CodeValue="10200004", CodingSchemeDesignator="SCT", CodeMeaning="Liver")
    dataset.RTROIObservationsSequence = sequence(ReferencedROINumber=1, RTROIIdentificationCodeSequence=code)
    dataset.save_as(path)
    assert rtstruct_reading.rasterise_regions(path, GRID).labels[0].code == Code("SCT", "10200004", "Liver")


@pytest.mark.parametrize(("depth", "distance"), [(1.4, "1.2"), (4.0, "3"), (-2.0, "6")])
def test_a_contour_off_the_slices_is_refused_with_its_distance(tmp_path: Path, depth: float, distance: str):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1, 5), (2, 6), depth)]})
    with pytest.raises(GeometryError, match=f"box lies {distance} mm off the nearest slice"):
        rtstruct_reading.rasterise_regions(path, GRID)


def test_a_contour_across_the_slices_is_refused(tmp_path: Path):
    sagittal = [(20.0, 22.0, 30.0), (20.0, 26.0, 30.0), (20.0, 26.0, 39.0), (20.0, 22.0, 39.0)]
    with pytest.raises(GeometryError, match="off the nearest slice"):
        rtstruct_reading.rasterise_regions(structure_set(tmp_path / "rt.dcm", {"box": [sagittal]}), GRID)


def test_another_frame_of_reference_is_refused(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1, 5), (2, 6), 1)]}, frame_of_reference="1.2.3.5")
    with pytest.raises(GeometryError, match="another frame of reference"):
        rtstruct_reading.rasterise_regions(path, GRID)


def test_a_picture_without_positions_is_refused(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1, 5), (2, 6), 1)]})
    with pytest.raises(GeometryError, match="need an image with positions"):
        rtstruct_reading.rasterise_regions(path, Geometry.of_pixels((12, 10)))


def test_only_points_are_no_label_map(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"dot": [[(1.0, 2.0, 3.0)]]}, kind="POINT")
    with pytest.raises(FormatError, match="no closed contour"):
        rtstruct_reading.rasterise_regions(path, GRID)


def test_half_a_point_is_refused(tmp_path: Path):
    path = structure_set(tmp_path / "rt.dcm", {"box": [rectangle((1, 5), (2, 6), 1)]})
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1"] * 10
    dataset.save_as(path)
    with pytest.raises(FormatError, match="a contour of box has 10 numbers"):
        rtstruct_reading.rasterise_regions(path, GRID)


def test_an_image_is_no_structure_set(data: Path):
    with pytest.raises(FormatError, match="not an RT structure set"):
        rtstruct_reading.rasterise_regions(data / "dicom/files/pydicom_CT_small.dcm", GRID)
