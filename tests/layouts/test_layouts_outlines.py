"""Outlines of LabelMe, COCO and YOLO: label maps, maps of objects and boxes of what was outlined."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from cohorts import picture
from hilum.errors import DatasetError, UsageError
from hilum.files import polygon
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import annotated_outlines
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Outline
from hilum.layouts.layout import DatasetOptions
from hilum.values.voxel_images import WITHOUT_VOXELS

# A picture of 20 rows and 30 columns; a disc of the rows 5 to 14 and the columns 3 to 12, and a cup in its middle.
SHAPE = (20, 30)
DISC, CUP = [[3, 5], [13, 5], [13, 15], [3, 15]], [[6, 8], [10, 8], [10, 12], [6, 12]]
NESTED = np.zeros(SHAPE, int)
NESTED[5:15, 3:13], NESTED[8:12, 6:10] = 2, 1  # numbered in the order of the names: cup, disc


def shape(label: str, points, kind: str = "polygon", **also) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **also}


def labelme(root: Path, by_image: dict[str, list[dict] | None], place: str = "") -> Path:
    for name, shapes in by_image.items():
        picture(root / f"{name}.png", shape=SHAPE)
        if shapes is not None:
            path = root / place / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = {"imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
            record = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\{name}.png", **size}
            path.write_text(json.dumps(record))
    return root


def coco(root: Path, *segmentations, names=("cup", "disc"), **of_each) -> Path:
    """One image, and a segmentation for each name, with the box of all of it."""
    picture(root / "a.png", shape=SHAPE)
    record = {
        "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": n % len(names), "bbox": [3, 5, 10, 10], "segmentation": one}
            | of_each
            for n, one in enumerate(segmentations)
        ],
    }
    (root / "outlines.json").write_text(json.dumps(record))
    return root


def flat(corners) -> list[float]:
    return [number for corner in corners for number in corner]


def yolo(root: Path, *lines: tuple[int, list], names: str = "names: [cup, disc]") -> Path:
    picture(root / "images" / "a.png", shape=SHAPE)
    (root / "labels").mkdir()
    shares = [
        [number, *(f"{n / whole:.8f}" for n, whole in zip(flat(c), [30, 20] * 9, strict=False))] for number, c in lines
    ]
    (root / "labels" / "a.txt").write_text("\n".join(" ".join(map(str, line)) for line in shares))
    if names:
        (root / "data.yaml").write_text(names)
    return root


def label_map(root: Path, **options):
    case = dataset_layouts.read_dataset(root, DatasetOptions(kinds=frozenset({"mask"}), **options)).cases[0]
    return case.references["mask"]


CORNERS = st.tuples(*[st.integers(-16, 176).map(lambda n: n / 8)] * 2)


@given(st.lists(CORNERS, min_size=3, max_size=3))
def test_a_pixel_is_in_a_triangle_where_its_centre_is_as_matplotlib_has_it(ring):
    """On eighths, so that no rounding decides whether a centre lies on an edge; such a centre may be in or out."""
    rows, columns = 18, 20
    centres = np.array([(x + 0.5, y + 0.5) for y in range(rows) for x in range(columns)])
    edges = np.array([*ring, ring[0]])
    along, off = np.diff(edges, axis=0)[:, None], centres - edges[:-1, None]
    clear = (along[..., 0] * off[..., 1] != along[..., 1] * off[..., 0]).all(axis=0)
    found = polygon.inside_polygon(np.array(ring) - 0.5, (rows, columns)).ravel()
    expected = Polygon(edges, closed=True).contains_points(centres)
    assert_array_equal(found[clear], expected[clear])


def test_edges_on_whole_numbers_hold_the_pixels_between_them():
    expected = np.zeros(SHAPE, bool)
    expected[5:15, 3:13] = True
    (rows, columns), pixels = annotated_outlines.cover_outline(Outline((tuple(map(tuple, DISC)),)), SHAPE)
    assert (rows, columns) == (slice(5, 15), slice(3, 13))
    assert pixels.all()
    both = annotated_outlines.cover_outline(
        Outline(tuple(tuple(map(tuple, one)) for one in (DISC, [[20, 0], [22, 0], [22, 1], [20, 1]]))), SHAPE
    )
    assert np.count_nonzero(both[1]) == 102


@pytest.mark.parametrize("place", ["", "annotations"])
def test_labelme_is_one_label_map_with_the_smaller_outline_above_the_larger(tmp_path, place):
    labelme(tmp_path, {"a": [shape("cup", CUP), shape("disc", DISC)], "b": [], "bare": None}, place)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["a", "b"]
    assert [(label.value, label.name) for label in dataset.classes["mask"]] == [(1, "cup"), (2, "disc")]
    first, second = dataset
    assert any(problem.cases == ("bare",) for problem in dataset.problems)
    assert_array_equal(first.references["mask"].data[0], NESTED)
    assert first.references["mask"].geometry.equals(first.images["image"].geometry)
    assert "16 pixels, which are those of the smaller" in first.references["mask"].notes[0]
    assert not second.references["mask"].data.any()
    assert any("--task detection or --task instances" in problem.remedy for problem in dataset.problems)


def test_the_same_outlines_of_coco_and_yolo_are_the_same_map(tmp_path):
    coco(tmp_path / "coco", [flat(CUP)], [flat(DISC)])
    yolo(tmp_path / "yolo", (0, CUP), (1, DISC))
    for name in ("coco", "yolo"):
        assert_array_equal(label_map(tmp_path / name).data[0], NESTED)
    assert list(dataset_layouts.read_dataset(tmp_path / "coco").cases[0].references) == ["boxes"]
    assert list(dataset_layouts.read_dataset(tmp_path / "yolo").cases[0].references) == ["mask"]


def test_outlines_of_one_group_are_one_object_and_each_other_is_one_of_its_own(tmp_path):
    left, right = [[1, 1], [4, 1], [4, 4], [1, 4]], [[6, 1], [9, 1], [9, 4], [6, 4]]
    parts = [shape("cell", left, group_id=7), shape("cell", right, group_id=7), shape("cell", DISC)]
    labelme(tmp_path, {"a": parts})
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(kinds=frozenset({"instances"})))
    objects = case.references["instances"].data[0]
    assert set(np.unique(objects)) == {0, 1, 2}
    assert_array_equal(objects[1:4, 1:9] == 1, np.repeat([[True] * 3 + [False] * 2 + [True] * 3], 3, axis=0))
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(kinds=frozenset({"boxes"})))
    assert_allclose(case.references["boxes"].corners, [[1, 1, 4, 9], [5, 3, 15, 13]])


def test_rectangles_circles_and_stored_masks_are_outlines_too_and_rectangles_alone_are_boxes(tmp_path):
    stored = io.BytesIO()
    PIL.Image.fromarray(np.array([[True, False, True]] * 2)).save(stored, "PNG")
    packed = base64.b64encode(stored.getvalue()).decode()
    shapes = [
        shape("box", [[2, 1], [5, 3]], "rectangle"),
        shape("round", [[20.5, 10.5], [24.8, 10.5]], "circle"),
        shape("stored", [[8, 15], [10, 16]], "mask", mask=packed),
    ]
    labelme(tmp_path / "all", {"a": shapes})
    labels = label_map(tmp_path / "all").data[0]
    assert_array_equal(np.argwhere(labels == 1), [[row, column] for row in (1, 2) for column in (2, 3, 4)])
    ys, xs = np.mgrid[:20, :30]
    assert_array_equal(labels == 2, np.hypot(xs - 20, ys - 10) < 4.25)
    assert_array_equal(np.argwhere(labels == 3), [[15, 8], [15, 10], [16, 8], [16, 10]])
    labelme(tmp_path / "boxes", {"a": shapes[:1]})
    [case] = dataset_layouts.read_dataset(tmp_path / "boxes")
    assert_allclose(case.references["boxes"].corners, [[1, 2, 3, 5]])


def test_points_and_lines_cover_nothing_and_are_named(tmp_path):
    labelme(tmp_path, {"a": [shape("disc", DISC), shape("fovea", [[4, 4]], "point")]})
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["mask"]] == ["disc"]
    assert any("points or lines" in problem.what and problem.cases == ("a",) for problem in dataset.problems)


def packed(runs: list[int]) -> str:
    """Runs as letters, written after the description of the format."""
    letters = ""
    for place, run in enumerate(runs):
        left, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            bits, left = left & 31, left >> 5
            more = left != (-1 if bits & 16 else 0)
            letters += chr(48 + bits + (32 if more else 0))
    return letters


@given(st.lists(st.integers(0, 90), min_size=4, max_size=12), st.booleans())
def test_runs_of_coco_go_down_the_columns_as_numbers_or_letters(tmp_path_factory, runs, letters):
    total = int(np.sum(runs))
    runs = [*runs, 600 - total] if total < 600 else [0, 600]
    expected = np.repeat(np.arange(len(runs)) % 2, runs).reshape(30, 20).T
    root = tmp_path_factory.mktemp("runs")
    coco(root, {"size": [20, 30], "counts": packed(runs) if letters else runs}, names=("cell",))
    assert_array_equal(label_map(root).data[0], expected)


def test_labels_choose_among_outlines_and_nest_them(tmp_path):
    coco(tmp_path, [flat(CUP)], [flat(DISC)])
    chosen = label_map(tmp_path, labels="7=disc").data[0]
    assert_array_equal(chosen == 7, NESTED > 0)
    nested = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1+2=disc,2=cup", kinds=frozenset({"mask"})))
    assert dict(nested.regions) == {"disc": (1, 2), "cup": (2,)}
    assert_array_equal(nested.cases[0].references["mask"].data[0], np.array([0, 2, 1])[NESTED])
    with pytest.raises(UsageError, match="nobody annotated macula"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=disc,2=macula", kinds=frozenset({"mask"})))


def test_numbers_of_yolo_get_their_names_and_ignored_outlines_are_so(tmp_path):
    yolo(tmp_path / "given", (0, CUP), (1, DISC), names="")
    options = DatasetOptions(labels="0=cup,1=disc", kinds=frozenset({"mask"}))
    assert [
        (one.value, one.name) for one in dataset_layouts.read_dataset(tmp_path / "given", options).classes["mask"]
    ] == [
        (1, "cup"),
        (2, "disc"),
    ]
    labelme(tmp_path / "ignored", {"a": [shape("__ignore__", CUP), shape("disc", DISC), shape("_background_", CUP)]})
    dataset = dataset_layouts.read_dataset(tmp_path / "ignored")
    assert [(one.value, one.name) for one in dataset.classes["mask"]] == [(1, "disc"), (2, "ignore")]
    assert_array_equal(dataset.cases[0].references["mask"].data[0], np.array([0, 2, 1])[NESTED])


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ([shape("disc", [[1, 1], [4, 4]])], "fewer than three corners"),
        ([shape("disc", DISC, "ellipsoid")], "of the kind 'ellipsoid'"),
        ([shape("disc", [[1, 1], [4, 4], ["x", 2]])], "shape 1: could not convert"),
        ([shape("disc", [[1, 1], [4, 4]], "mask", mask="!!")], "mask that cannot be read"),
        ([{"points": DISC, "shape_type": "polygon"}], "it lacks 'label'"),
    ],
)
def test_shapes_of_which_none_is_an_outline_are_refused_by_their_file(tmp_path, shapes, problem):
    labelme(tmp_path, {"a": shapes})
    with pytest.raises(DatasetError, match=problem) as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert refused.value.where.endswith("a.json")


NOWHERE = (slice(None), slice(None))
UPPER = (slice(0, 4), slice(14, 22))


@pytest.mark.parametrize(
    ("odd", "place"),
    [
        (shape("disc", [[14, 0], [22, 4]]), UPPER),
        (shape("disc", [[14, 0]]), NOWHERE),
        (shape("disc", [[14, 0], [22, 4], [14, float("nan")]]), NOWHERE),
        (shape("disc", [[14, -9], [22, -9], [22, 4], [14, 4]]), UPPER),
        (shape("disc", [[40, 5], [50, 5], [50, 15]]), NOWHERE),
        (shape("disc", [[14, 0], [22, 4]], "ellipsoid"), UPPER),
        (shape("disc", [[14, 0], [22, 4]], "mask", mask="!!"), UPPER),
        ({"points": [[14, 0], [22, 4], [14, 4]], "shape_type": "polygon"}, UPPER),
        ("disc", NOWHERE),
    ],
)
def test_the_place_of_a_shape_of_labelme_that_cannot_be_read_is_unknown_and_the_others_stay(tmp_path, odd, place):
    labelme(tmp_path, {"a": [shape("cup", CUP), odd], "b": [shape("disc", DISC)]})
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(kinds=frozenset({"mask"})))
    [ignored] = [label for label in dataset.classes["mask"] if label.is_ignored]
    expected = np.zeros(SHAPE, int)
    expected[place] = ignored.value
    expected[NESTED == 1] = 1
    assert_array_equal(dataset.cases[0].references["mask"].data[0], expected)
    assert_array_equal(dataset.cases[1].references["mask"].data[0] != 0, NESTED != 0)
    assert any("its place is unknown" in note and "2" in note for note in dataset.cases[0].references["mask"].notes)


def test_an_outline_outside_its_image_or_of_another_size_is_an_error_of_its_case(tmp_path):
    labelme(tmp_path / "outside", {"a": [shape("disc", [[40, 5], [50, 5], [50, 15]])]})
    with pytest.raises(DatasetError, match=r"shape 1 .disc. from .* lies outside the image"):
        label_map(tmp_path / "outside").data  # noqa: B018 - read on demand
    labelme(tmp_path / "size", {"a": [shape("disc", DISC)]})
    picture(tmp_path / "size" / "a.png", shape=(40, 60))
    with pytest.raises(DatasetError, match="of an image of 30 x 20 pixels"):
        label_map(tmp_path / "size").data  # noqa: B018
    coco(tmp_path / "runs", {"size": [20, 30], "counts": [5, 5]}, names=("cell",))
    with pytest.raises(DatasetError, match="runs of 10 pixels for 30 x 20"):
        label_map(tmp_path / "runs").data  # noqa: B018
    for nothing in ([], {"size": [20, 30], "counts": []}):
        coco(tmp_path / "none", [flat(CUP)], nothing)
        with pytest.raises(DatasetError, match="has a box and no outline"):
            label_map(tmp_path / "none").data  # noqa: B018


@pytest.mark.parametrize(
    ("damaged", "place"),
    [
        ({"segmentation": [[1, 2, 3]], "bbox": [10, 5, 8, 6]}, (slice(5, 11), slice(10, 18))),
        ({"segmentation": {"size": [20, 30], "counts": [5, 5]}, "bbox": [10, 5, 8, 6]}, (slice(5, 11), slice(10, 18))),
        ({"segmentation": [["x"]], "bbox": "none"}, (slice(None), slice(None))),
        ({"category_id": 9, "bbox": [10, 5, 8, 6]}, (slice(5, 11), slice(10, 18))),
    ],
)
def test_the_place_of_an_object_that_cannot_be_read_is_unknown_and_the_others_stay(tmp_path, damaged, place):
    whole = label_map(coco(tmp_path / "whole", [flat(CUP)], names=("cup",))).data[0]
    coco(tmp_path / "odd", [flat(CUP)], [flat(DISC)])
    [file] = (tmp_path / "odd").glob("*.json")
    record = json.loads(file.read_text())
    record["annotations"][1].update(damaged)
    file.write_text(json.dumps(record))
    dataset = dataset_layouts.read_dataset(tmp_path / "odd", DatasetOptions(kinds=frozenset({"mask"})))
    mask = dataset.cases[0].references["mask"]
    [ignored] = [label for label in dataset.classes["mask"] if label.is_ignored]
    expected = np.zeros_like(whole)
    expected[place] = ignored.value
    assert_array_equal(mask.data[0], np.where(whole > 0, whole, expected))
    assert any("place is unknown" in note for note in mask.notes)
    objects = dataset_layouts.read_dataset(tmp_path / "odd", DatasetOptions(kinds=frozenset({"instances"})))
    with pytest.raises(DatasetError, match="a map of objects cannot say that a place is unknown"):
        objects.cases[0].references["instances"].data  # noqa: B018
    if "segmentation" not in damaged:
        boxes = dataset_layouts.read_dataset(tmp_path / "odd", DatasetOptions(kinds=frozenset({"boxes"}))).cases[0]
        assert boxes.references["boxes"].ignored.tolist() == [False, True]
        assert boxes.references["boxes"].corners[1].tolist() == [5, 10, 11, 18]


def test_real_nuclei_as_runs_of_coco_are_the_objects_of_their_own_masks(data, tmp_path):
    options = DatasetOptions(kinds=frozenset({"instances"}))
    own = min(dataset_layouts.read_dataset(data / "dsb2018", options), key=lambda case: len(case.files))
    objects = own.references["instances"].data[0]
    rows, columns = objects.shape
    segmentations = []
    for number in range(1, objects.max() + 1):
        changes = np.flatnonzero(np.diff((objects == number).T.ravel(), prepend=False, append=False))
        runs = np.diff([0, *changes, objects.size]).tolist()
        segmentations.append({"size": [rows, columns], "counts": packed(runs)})
    coco(tmp_path, *segmentations, names=("nucleus",))
    record = json.loads((tmp_path / "outlines.json").read_text())
    record["images"][0] |= {"height": rows, "width": columns}
    (tmp_path / "outlines.json").write_text(json.dumps(record))
    PIL.Image.fromarray(np.zeros((rows, columns), np.uint8)).save(tmp_path / "a.png")
    [case] = dataset_layouts.read_dataset(tmp_path, options)
    found = case.references["instances"].data[0]
    assert_array_equal(found, objects)


def test_a_set_of_outlines_is_checked_in_one_command(tmp_path):
    labelme(tmp_path, {f"case{n}": [shape("cup", CUP), shape("disc", DISC)] for n in range(6)})
    found = hilum.check(tmp_path)
    assert found.dataset.kinds == {"mask"}
    assert not [problem for problem in found.problems if problem.severity == "error"]


@given(
    st.integers(1, 6).flatmap(lambda wide: st.lists(st.lists(st.booleans(), min_size=wide, max_size=wide), min_size=1)),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 2),
)
def test_a_stored_mask_lies_where_it_is_said_to(pixels, x, y, after):
    stored = np.array(pixels)
    whole = np.pad(stored, ((y, after), (x, after)))
    outline = AnnotatedBox.of_pixels("disc", stored, (x, y), whole.shape[::-1], "shape 1").outline
    assert outline is not None and sum(outline.runs) == whole.size
    assert_array_equal(np.repeat(np.arange(len(outline.runs)) % 2, outline.runs).reshape(whole.T.shape).T, whole)


def test_of_a_stored_mask_no_image_is_made_of_the_size_that_the_file_states():
    tracemalloc.start()
    disc = AnnotatedBox.of_pixels("disc", np.ones((2, 3), bool), (5, 7), (10_000, 10_000), "shape 1")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert disc.outline is not None
    assert disc.outline.runs[:2] == (50_007, 2)
    assert most < 2**20


@pytest.mark.parametrize(
    "change", [('"width": 30', '"width": 1e999'), ('"counts": "3"', f'"counts": "{"o" * 10_000}"')]
)
def test_numbers_of_coco_that_no_image_has_are_refused_by_the_file(tmp_path, change):
    text = (coco(tmp_path, {"size": [20, 30], "counts": "3"}, names=("cell",)) / "outlines.json").read_text()
    (tmp_path / "outlines.json").write_text(text.replace(*change))
    assert change[0] in text
    with pytest.raises(DatasetError, match=r"no annotation can be read|is not a list of boxes") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert refused.value.where.endswith("outlines.json")


SPECK = [[20.6, 5.6], [20.9, 5.6], [20.9, 5.9]]


@pytest.mark.parametrize(
    ("cup", "why"),
    [(SPECK, "its outlines hold the centre of none"), (DISC, "other outlines lie over all of it")],
)
@pytest.mark.parametrize("form", ["labelme", "coco", "yolo"])
def test_a_structure_that_is_outlined_and_has_no_pixel_is_named(tmp_path, form, cup, why):
    match form:
        case "labelme":
            labelme(tmp_path, {"a": [shape("cup", cup), shape("disc", DISC)]})
        case "coco":
            coco(tmp_path, [flat(cup)], [flat(DISC)])
        case _:
            yolo(tmp_path, (0, cup), (1, DISC))
    assert label_map(tmp_path).facts[WITHOUT_VOXELS] == {"cup": why}


def test_an_outline_that_is_traced_twice_holds_what_it_holds_once(tmp_path):
    once = label_map(labelme(tmp_path / "once", {"a": [shape("cup", CUP)]}))
    twice = label_map(labelme(tmp_path / "twice", {"a": [shape("cup", CUP * 2)]}))
    assert_array_equal(twice.data, once.data)
    assert not twice.facts[WITHOUT_VOXELS]


def test_a_size_without_end_in_a_file_of_labelme_is_refused_by_the_file(tmp_path):
    path = labelme(tmp_path, {"a": [shape("disc", DISC)]}) / "a.json"
    path.write_text(path.read_text().replace('"imageWidth": 30', '"imageWidth": 1e999'))
    with pytest.raises(DatasetError, match="is not a file of outlines of LabelMe"):
        dataset_layouts.read_dataset(tmp_path)


def test_an_outline_of_very_many_edges_is_filled_edge_after_edge(monkeypatch):
    ring = np.random.default_rng(0).uniform(-3, 24, (200, 2))
    at_once = polygon.inside_polygon(ring, SHAPE)
    monkeypatch.setattr("hilum.files.polygon.PASSED_AT_ONCE", 30)
    assert_array_equal(polygon.inside_polygon(ring, SHAPE), at_once)
    tracemalloc.start()
    monkeypatch.setattr("hilum.files.polygon.PASSED_AT_ONCE", 10_000)
    polygon.inside_polygon(np.array([(15.0, 20.0 * (number % 2)) for number in range(50_000)]), SHAPE)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 * 2**20  # all at once take some 40 bytes for each of a million rows that are passed


def geojson(root: Path, *features: dict) -> Path:
    picture(root / "a.png", shape=SHAPE)
    (root / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return root


def feature(kind: str, coordinates, classification=None, **properties) -> dict:
    properties = {"objectType": "annotation", "classification": classification or {"name": "disc"}} | properties
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


@pytest.mark.parametrize(("suffix", "labels"), [("png", None), ("png", "1=disc,2=ignore"), ("tif", "1=disc,2=ignore")])
def test_the_place_of_an_outline_of_geojson_beyond_its_picture_is_unknown(tmp_path, suffix, labels):
    columns, rows = SHAPE[1], SHAPE[0]
    beyond = [[columns - 2, rows - 3], [columns + 9, rows - 3], [columns + 9, rows], [columns - 2, rows]]
    root = geojson(tmp_path, feature("Polygon", [CLOSED_DISC]), feature("Polygon", [beyond]))
    PIL.Image.open(root / "a.png").save(root / f"b.{suffix}")
    (root / "a.png").unlink()
    (root / f"b.{suffix}").rename(root / f"a.{suffix}")
    dataset = dataset_layouts.read_dataset(root, DatasetOptions(labels=labels, kinds=frozenset({"mask"})))
    pixels = dataset.cases[0].references["mask"].data[0]
    assert (pixels[rows - 3 :, columns - 2 :] == 2).all()
    assert np.count_nonzero(pixels == 2) == 6
    assert np.count_nonzero(pixels == 1) > 0
    assert [label.is_ignored for label in dataset.classes["mask"]] == [False, True]


CLOSED_DISC, CLOSED_CUP = [*DISC, DISC[0]], [*CUP, CUP[0]]


@pytest.mark.parametrize("hole", [CLOSED_CUP, CLOSED_CUP[::-1], CUP])
def test_a_hole_of_geojson_is_no_part_of_its_polygon_whichever_way_it_runs(tmp_path, hole):
    pixels = label_map(geojson(tmp_path, feature("Polygon", [CLOSED_DISC, hole]))).data[0]
    assert_array_equal(pixels != 0, NESTED == 2)


def test_a_hole_is_cut_out_of_its_own_polygon_alone(tmp_path):
    # The second polygon fills the hole of the first one.
    pixels = label_map(geojson(tmp_path, feature("MultiPolygon", [[CLOSED_DISC, CLOSED_CUP], [CLOSED_CUP]]))).data[0]
    assert_array_equal(pixels != 0, NESTED != 0)


@pytest.mark.parametrize("corners", [DISC, DISC[:3]])
def test_a_ring_that_does_not_repeat_its_first_corner_keeps_its_last_one(tmp_path, corners):
    open_ring = label_map(geojson(tmp_path / "open", feature("Polygon", [corners])))
    closed_ring = label_map(geojson(tmp_path / "closed", feature("Polygon", [[*corners, corners[0]]])))
    assert_array_equal(open_ring.data, closed_ring.data)


@pytest.mark.parametrize("key", ["names", None])
def test_a_class_as_a_list_of_names_is_the_name_that_qupath_shows(tmp_path, key):
    stated = [["cup", "positive"], ["cup", "negative"]]
    first, second = ({key: names, "color": [1, 2, 3]} if key else names for names in stated)
    features = feature("Polygon", [CLOSED_DISC], first), feature("Polygon", [CLOSED_CUP], second)
    mask = label_map(geojson(tmp_path, *features))
    assert {label.name for label in mask.labels} == {"cup: positive", "cup: negative"}


def test_objects_below_an_object_are_read_too(tmp_path):
    grandchild = feature("Polygon", [CLOSED_CUP], {"name": "cup"})
    child = feature("Polygon", [CLOSED_DISC], childObjects=[grandchild])
    parent = feature(
        "Polygon", [[[0, 0], [30, 0], [30, 20], [0, 20], [0, 0]]], {"name": "tissue"}, childObjects=[child]
    )
    mask = label_map(geojson(tmp_path, parent))
    by_name = {label.name: mask.data[0] == label.value for label in mask.labels}
    assert_array_equal(by_name["cup"], NESTED == 1)
    assert_array_equal(by_name["disc"], NESTED == 2)
    assert_array_equal(by_name["tissue"], NESTED == 0)


def test_what_geojson_states_and_is_not_read_is_named_by_its_kind(tmp_path):
    cell = feature("Polygon", [CLOSED_DISC], {"name": "cell"}) | {
        "nucleusGeometry": {"type": "Polygon", "coordinates": [CLOSED_CUP]}
    }
    nowhere = feature("Polygon", [], {"name": "cell"}) | {"geometry": None}
    deeper = feature("Polygon", [CLOSED_CUP], {"name": "cell"})
    deeper["geometry"]["plane"] = {"c": -1, "z": 2, "t": 0}
    geojson(tmp_path, cell, nowhere, deeper)
    assert_array_equal(label_map(tmp_path).data[0] != 0, NESTED != 0)
    problems = dataset_layouts.read_dataset(tmp_path).problems
    found = {problem.what: problem.cases for problem in problems if problem.severity == "note"}
    assert found["1 file states outlines of nuclei within cells, which is not read"] == ("a",)
    assert found["1 file states an outline in a further plane of a stack, which is not read"] == ("a",)
    assert found["1 file states an object without a place, which is not read"] == ("a",)


@pytest.mark.parametrize(
    ("odd", "place"),
    [
        (feature("Polygon", [[[14, 0], [22, 4], [14, 0]]]), UPPER),
        (feature("Cloud", [[[14, 0], [22, 4], [14, 4]]]), NOWHERE),
        (feature("Polygon", [[[14, 0], ["x", 4], [14, 4]]]), NOWHERE),
        ({"type": "Feature", "properties": {}}, NOWHERE),
        ("disc", NOWHERE),
    ],
)
def test_the_place_of_a_feature_of_geojson_that_cannot_be_read_is_unknown_and_the_others_stay(tmp_path, odd, place):
    geojson(tmp_path, feature("Polygon", [CLOSED_CUP]), odd)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(kinds=frozenset({"mask"})))
    [ignored] = [label for label in dataset.classes["mask"] if label.is_ignored]
    pixels = dataset.cases[0].references["mask"].data[0]
    expected = np.zeros(SHAPE, bool)
    expected[place] = True
    assert_array_equal(pixels == ignored.value, expected & (NESTED != 1))
    assert np.count_nonzero(NESTED == 1) == np.count_nonzero((pixels != 0) & (pixels != ignored.value))
    [problem] = [one for one in dataset.problems if one.severity == "warning"]
    assert "feature 2" in problem.what and problem.cases == ("a",)
