"""Boxes of YOLO: shares of the image's width and height, in a text file of the image's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import trained
from cohorts import paired, picture
from hilum.errors import DatasetError, UsageError
from hilum.layouts import dataset_layouts, dataset_table
from hilum.layouts.layout import DatasetOptions

# A picture of 20 rows and 30 columns, and a box of the rows 5 to 7 and the columns 3 to 12.
SHAPE, BOX, EDGES = (20, 30), "0 0.25 0.3 0.3 0.1", [5, 3, 7, 12]


def yolo(root: Path, texts: dict[str, str | None], names: str = "") -> Path:
    for name, text in texts.items():
        picture(root / "images" / f"{name}.png", shape=SHAPE)
        if text is not None:
            path = root / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if names:
        (root / "data.yaml").write_text(names)
    return root


def test_shares_become_edges_in_voxels_rows_first(tmp_path):
    dataset = dataset_layouts.read_dataset(
        yolo(tmp_path, {"a": BOX, "b": f"{BOX}\n1 0.5 0.5 1 1\n", "c": ""}, "names: [red, white]")
    )
    boxes = [case.references["boxes"] for case in dataset]
    assert_allclose(boxes[0].corners, [EDGES])
    assert_allclose(boxes[1].corners, [EDGES, [0, 0, 20, 30]])
    assert [one.names for one in boxes] == [("red",), ("red", "white"), ()]
    assert [label.name for label in dataset.classes["boxes"]] == ["red", "white"]


@pytest.mark.parametrize("names", ["names:\n  0: red\n  1: white\n", "names: ['red', 'white']\nnc: 2\ntrain: images\n"])
def test_names_are_a_list_or_a_table(tmp_path, names):
    assert dataset_layouts.read_dataset(yolo(tmp_path, {"a": BOX}, names)).cases[0].references["boxes"].names == (
        "red",
    )


def test_names_may_stand_line_by_line_or_be_given_and_none_is_invented(tmp_path):
    yolo(tmp_path, {"a": BOX, "b": "2 0.5 0.5 0.2 0.2"})
    assert [label.name for label in dataset_layouts.read_dataset(tmp_path).classes["boxes"]] == ["0", "2"]
    named = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=red,2=white"))
    assert [label.name for label in named.classes["boxes"]] == ["red", "white"]
    (tmp_path / "classes.txt").write_text("red\nwhite\nplatelet\n")
    assert [label.name for label in dataset_layouts.read_dataset(tmp_path).classes["boxes"]] == ["red", "platelet"]
    with pytest.raises(UsageError, match="does not name 0, 2"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=red"))


def test_names_of_none_of_the_annotated_classes_are_refused(tmp_path):
    yolo(tmp_path, {"a": "4 0.5 0.5 0.2 0.2", "b": "2 0.5 0.5 0.2 0.2"}, "names: [red, white]")
    with pytest.raises(DatasetError, match="gives no name to class 2, 4"):
        dataset_layouts.read_dataset(tmp_path)


def test_the_place_of_an_object_without_the_name_of_its_class_is_unknown_and_the_others_stay(tmp_path):
    yolo(tmp_path / "set", {"a": BOX, "b": f"7 0.5 0.5 0.2 0.2\n{BOX}\n"}, "names: [red, white]")
    dataset = dataset_layouts.read_dataset(tmp_path / "set")
    (tmp_path / "own").mkdir()
    dataset_table.write_dataset_table(dataset, tmp_path / "own")
    for read in (dataset, dataset_layouts.read_dataset(tmp_path / "own" / "dataset.csv")):
        first, second = (case.references["boxes"] for case in read)
        assert_allclose(first.corners, [EDGES])
        assert_allclose(second.corners, [EDGES, [8, 12, 12, 18]])
        assert second.ignored.tolist() == [False, True]
    [problem] = [one for one in dataset.problems if "cannot be read" in one.what]
    assert "b.txt" in problem.what
    assert "line 1: class 7 has no name" in problem.what
    assert problem.cases == ("b",)


def test_parts_are_folders_and_a_picture_without_a_file_is_not_labelled(tmp_path):
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        picture(tmp_path / "images" / part / f"{name}.png", shape=SHAPE)
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / f"{name}.txt").write_text(BOX)
    picture(tmp_path / "images" / "train" / "bare.png", shape=SHAPE)
    (tmp_path / "labels" / "train" / "lost.txt").write_text(BOX)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dict(dataset.splits) == {"a": "train", "b": "val", "c": "test"}
    assert {problem.cases for problem in dataset.problems} == {("bare",), ("lost",)}


def test_texts_may_lie_beside_their_images(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    (tmp_path / "a.txt").write_text(BOX)
    (tmp_path / "readme.txt").write_text("boxes of cells")
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert_allclose(case.references["boxes"].corners, [EDGES])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{BOX}\nnothing here", "line 2 is not a class number with a box"),
        (
            "0 0.1 0.1 0.9 0.1 0.97",
            "line 1: 6 numbers, a box has 5, and an outline an odd number of them: a score",
        ),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9 0.97", "line 1: 8 numbers"),
        (f"{BOX}\n0 0.5 0.5 0.1", "line 2 is not a class number"),
        ("-1 0.5 0.5 0.1 0.1", "line 1 is not a class number"),
        (f"{BOX}\n0 0.9 0.5 0.4 0.1", "line 2 reaches from"),
    ],
)
def test_the_place_of_a_line_that_is_no_box_is_unknown_and_the_others_stay(tmp_path, text, problem):
    yolo(tmp_path, {"a": BOX, "b": text})
    first, second = (case.references["boxes"] for case in dataset_layouts.read_dataset(tmp_path))
    assert first.ignored.tolist() == [False]
    assert second.ignored.tolist() == [False] * (BOX in text) + [True]
    # Shares beyond the image say where the rest of it lies.
    assert_allclose(second.corners[-1], [9, 21, 11, 30] if "reaches" in problem else [0, 0, *SHAPE])
    assert any(problem in note and "its place is unknown" in note for note in second.notes)


def test_texts_without_a_line_that_is_a_box_are_refused_by_file_and_line(tmp_path):
    yolo(tmp_path, {"a": "0 0.1 0.1 0.9 0.1 0.97", "b": ""})
    with pytest.raises(DatasetError, match="no annotation can be read: line 1: 6 numbers") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert str(refused.value.where).endswith("a.txt")


@pytest.mark.parametrize("box", ["0 0.9 0.5 0.4 0.1", "0 15 10 4 4", "0 0.5 -0.2 0.1 0.1"])
def test_a_box_beyond_its_image_is_an_error_of_its_case(tmp_path, box):
    dataset = dataset_layouts.read_dataset(yolo(tmp_path, {"a": BOX, "b": box}))
    assert dataset.cases[0].references["boxes"].names == ("0",)
    with pytest.raises(DatasetError, match="line 1 reaches from"):
        _ = dataset.cases[1].references["boxes"]


def test_rounded_edges_are_cut_back_to_the_image(tmp_path):
    [case] = dataset_layouts.read_dataset(yolo(tmp_path, {"a": "0 0.8335 0.5 0.334 1.0005"}))
    assert_allclose(case.references["boxes"].corners, [[0, 19.995, 20, 30]], atol=0.02)


def test_masks_and_other_texts_are_no_boxes(tmp_path):
    paired(tmp_path)
    (tmp_path / "labels" / "x0.txt").write_text("annotated by two people")
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"mask"}


def test_damaged_names_and_endless_files_are_refused(tmp_path):
    yolo(tmp_path, {"a": BOX}, "names: [red, 'white")
    with pytest.raises(DatasetError, match="is not YAML"):
        dataset_layouts.read_dataset(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "labels" / "a.txt").write_text(f"{BOX}\n" * 60000)
    with pytest.raises(DatasetError, match="larger than any list of boxes"):
        dataset_layouts.read_dataset(tmp_path)


@given(
    boxes=st.lists(
        st.tuples(st.integers(0, 25), st.integers(0, 15), st.integers(1, 4), st.integers(1, 4)), max_size=5, unique=True
    )
)
def test_any_box_comes_back(tmp_path_factory, boxes):
    place = tmp_path_factory.mktemp("yolo")
    lines = [f"0 {(x + w / 2) / 30:.6f} {(y + h / 2) / 20:.6f} {w / 30:.6f} {h / 20:.6f}" for x, y, w, h in boxes]
    yolo(place, {"a": "\n".join(lines), "b": BOX})
    found = dataset_layouts.read_dataset(place).cases[0].references["boxes"].corners
    assert_allclose(found, np.array([[y, x, y + h, x + w] for x, y, w, h in boxes]).reshape(-1, 4), atol=1e-3)


def test_bccd_as_yolo_has_the_boxes_of_its_own_files(data, tmp_path):
    theirs = dataset_layouts.read_dataset(data / "bccd")
    names = [label.name for label in theirs.classes["boxes"]]
    for case in theirs.cases[:12]:
        image, boxes = case.images["image"], case.references["boxes"]
        rows, columns = image.geometry.shape
        picture(tmp_path / "images" / f"{case.id}.png", shape=(rows, columns))
        low, high = boxes.corners[:, 1::-1] / [columns, rows], boxes.corners[:, :1:-1] / [columns, rows]
        shares = np.hstack([(low + high) / 2, high - low]).tolist()
        lines = [
            f"{names.index(name)} {' '.join(map(str, share))}" for name, share in zip(boxes.names, shares, strict=True)
        ]
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{case.id}.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text(f"names: {names}")
    for own, their in zip(dataset_layouts.read_dataset(tmp_path), theirs.cases[:12], strict=True):
        assert own.references["boxes"].names == their.references["boxes"].names
        assert_allclose(own.references["boxes"].corners, their.references["boxes"].corners, atol=1e-6)


def quads(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """(4, 2) corners of tilted quadrangles in shares, anywhere in the image."""
    shape = np.array([[-1, -0.8], [1, -1], [0.9, 0.8], [-0.9, 1]])
    return [rng.uniform(0.2, 0.8, 2) + rng.uniform(0.02, 0.15, 2) * shape for _ in range(count)]


def boxed(points: np.ndarray, visible: str = "") -> str:
    """A line with the box around points, and the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    shares = " ".join(f"{share:.6f}" for share in (*(low + high) / 2, *high - low))
    return f"0 {shares} " + " ".join(f"{x:.6f} {y:.6f}{visible}" for x, y in points)


def test_keypoints_are_left_out_and_their_boxes_are_read(tmp_path):
    corners = np.array([[0.2, 0.3], [0.5, 0.3], [0.5, 0.7], [0.2, 0.7]])
    names = "names: [vertebra]\nkpt_shape: [4, 2]\ntrain: images\n"
    dataset = dataset_layouts.read_dataset(yolo(tmp_path, {f"v{n}": boxed(corners) for n in range(12)}, names))
    assert dataset.kinds == {"boxes"}
    assert dataset.cases[0].references["boxes"].lengths.tolist() == [pytest.approx([8, 9], abs=1e-3)]
    [note] = [one.what for one in dataset.problems if "keypoints" in one.what]
    assert note == "12 boxes have 4 keypoints each (kpt_shape [4, 2]), which are left out"


@pytest.mark.parametrize("visible", ["", " 2"])
def test_keypoints_that_no_file_states_are_refused_and_outlines_are_not(tmp_path, visible):
    boxes = quads(np.random.default_rng(0), 8)
    shape = "[4, 3]" if visible else "[4, 2]"
    place = yolo(tmp_path / "points", {f"x{n}": boxed(one, visible) for n, one in enumerate(boxes)})
    with pytest.raises(DatasetError, match="every line has a box and 4 points in it") as refused:
        dataset_layouts.read_dataset(place)
    assert f"kpt_shape: {shape}" in refused.value.remedy
    (place / "data.yaml").write_text(f"kpt_shape: {shape}\n")
    assert dataset_layouts.read_dataset(place).kinds == {"boxes"}
    (place / "data.yaml").write_text("kpt_shape: null\n")
    if not visible:
        assert dataset_layouts.read_dataset(place).kinds == {"mask"}


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_outlines_of_four_corners_are_no_keypoints(tmp_path_factory, seed, count):
    boxes = quads(np.random.default_rng(seed), count)
    lines = ["0 " + " ".join(f"{share:.6f}" for share in one.ravel()) for one in boxes]
    place = yolo(tmp_path_factory.mktemp("quads"), {"a": "\n".join(lines)})
    assert dataset_layouts.read_dataset(place).kinds == {"mask"}


@pytest.mark.parametrize(
    "lines",
    [
        ["0 0.25 0.3 0.3 0.1 0.91 1", "0 0.25 0.3 0.3 0.1 0.88 2"],  # score and track
        ["0 0.25 0.3 0.3 0.1 0.91 1"] * 3,
        ["0 0.1 0.1 0.9 0.1 0.5 0.9 0.91 7"],  # of an outline
    ],
)
def test_predictions_of_a_tracker_are_no_references(tmp_path, lines):
    with pytest.raises(DatasetError, match=r"line 1 ends in the number of a track.*no references"):
        dataset_layouts.read_dataset(yolo(tmp_path, {"a": "\n".join(lines)}))


@pytest.mark.parametrize(
    ("text", "names", "problem"),
    [
        ("0 0.25 0.3 0.3 0.1 0.2 0.3", "kpt_shape: [4, 2]", r"7 numbers, a box has 5, and with kpt_shape \[4, 2\] 13"),
        ("0 0.25 0.3 0.3 0.1 0.2 0.3 0.97", "kpt_shape: [1, 2]", "a score or a track may be one too many"),
        (BOX, "kpt_shape: many", "kpt_shape is 'many'"),
        ("0 100 200 150 220 130 240", "", "reaches from"),
    ],
)
def test_what_does_not_fit_the_stated_keypoints_is_refused(tmp_path, text, names, problem):
    with pytest.raises(DatasetError, match=problem):
        _ = dataset_layouts.read_dataset(yolo(tmp_path, {"a": text}, names)).cases[0].references["mask"]


def test_a_triangle_that_ends_at_the_border_is_an_outline(tmp_path):
    assert dataset_layouts.read_dataset(yolo(tmp_path, {"a": "0 0.1 0.1 0.9 0.1 0.5 1"})).kinds == {"mask"}


@pytest.mark.whole
def test_a_detector_trains_on_them(tmp_path):
    place, rng = yolo(tmp_path / "data", {f"x{n}": BOX if n % 3 else "" for n in range(20)}), np.random.default_rng(0)
    for n in range(20):
        PIL.Image.fromarray(rng.integers(0, 255, SHAPE, np.uint8)).save(place / "images" / f"x{n}.png")
    run = trained.detecting(place, tmp_path / "run", assignments=trained.TWO_STEPS)
    assert (run.out / "report.html").is_file()
