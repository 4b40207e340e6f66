"""Files of annotators that list many images: CVAT's XML and the JSON of VGG Image Annotator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cohorts import picture
from hilum.errors import DatasetError, FormatError
from hilum.layouts import dataset_layouts, dataset_table
from hilum.layouts.layout import DatasetOptions
from hilum.values.voxel_images import WITHOUT_VOXELS

SIZE = (20, 24)  # rows, columns
MASK = DatasetOptions(kinds=frozenset({"mask"}))
BOXES = DatasetOptions(kinds=frozenset({"boxes"}))


def images(root: Path, count: int = 3) -> None:
    for n in range(count):
        picture(root / "images" / f"x{n}.png", n, SIZE)


def cvat(root: Path, *shapes: str, others: str = "") -> Path:
    images(root)
    first = f'<image id="0" name="x0.png" width="24" height="20">{"".join(shapes)}</image>'
    rest = "".join(f'<image id="{n}" name="x{n}.png" width="24" height="20"></image>' for n in (1, 2))
    (root / "annotations.xml").write_text(
        f"<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>{first}{rest}{others}</annotations>"
    )
    return root


def via(root: Path, *regions: dict, project: bool = True) -> Path:
    images(root)
    named = {f"x{n}.png": regions if n == 0 else () for n in range(3)}
    entries = {
        f"{name}123": {"filename": name, "size": 123, "regions": list(own), "file_attributes": {}}
        for name, own in named.items()
    }
    record = {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}} if project else entries
    (root / "project.json").write_text(json.dumps(record))
    return root


def region(name: str, label: object = "cyst", **shape: object) -> dict:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": {"kind": label}}


def label_map(dataset) -> np.ndarray:
    """(rows, columns) of the first case's mask."""
    return dataset.cases[0].references["mask"].data[0]


def rectangle(rows: slice, columns: slice) -> np.ndarray:
    pixels = np.zeros(SIZE, bool)
    pixels[rows, columns] = True
    return pixels


BOX = '<box label="cyst" xtl="3.0" ytl="5.0" xbr="10.0" ybr="7.0" occluded="0"></box>'
POLYGON = '<polygon label="cyst" points="3,5;10,5;10,7;3,7"></polygon>'
# Two rows of seven pixels, of which the first two of the second row are outside.
RUNS = '<mask label="cyst" rle="0, 7, 2, 5" left="3" top="5" width="7" height="2"></mask>'


@pytest.mark.parametrize("shape", [BOX, POLYGON])
def test_a_shape_of_cvat_covers_the_pixels_whose_centres_it_holds(tmp_path, shape):
    dataset = dataset_layouts.read_dataset(cvat(tmp_path, shape), MASK)
    assert (len(dataset), dataset.kinds) == (3, {"mask"})
    assert (label_map(dataset) == rectangle(slice(5, 7), slice(3, 10))).all()
    assert not dataset.cases[1].references["mask"].data.any()
    [corners] = dataset_layouts.read_dataset(tmp_path, BOXES).cases[0].references["boxes"].corners
    assert corners.tolist() == [5, 3, 7, 10]  # rows first, as the image


def test_boxes_alone_are_boxes_and_anything_else_is_an_outline(tmp_path):
    assert dataset_layouts.read_dataset(cvat(tmp_path / "boxes", BOX)).kinds == {"boxes"}
    assert dataset_layouts.read_dataset(cvat(tmp_path / "outlines", BOX, POLYGON)).kinds == {"mask"}


def test_runs_of_cvat_go_along_the_rows_of_their_box(tmp_path):
    expected = rectangle(slice(5, 7), slice(3, 10))
    expected[6, 3:5] = False
    assert (label_map(dataset_layouts.read_dataset(cvat(tmp_path, RUNS))) == expected).all()


def test_a_box_that_is_turned_by_a_right_angle_stands_upright(tmp_path):
    turned = BOX.replace("occluded", 'rotation="90" occluded').replace('xbr="10.0"', 'xbr="9.0"')
    # 6 x 2 around (6, 6) becomes 2 x 6.
    assert (
        label_map(dataset_layouts.read_dataset(cvat(tmp_path, turned), MASK)) == rectangle(slice(3, 9), slice(5, 7))
    ).all()


def test_the_area_of_an_ellipse_is_that_of_its_radii(tmp_path):
    shape = '<ellipse label="cyst" cx="12" cy="10" rx="9" ry="6"></ellipse>'
    dataset = dataset_layouts.read_dataset(cvat(tmp_path / "cvat", shape))
    assert label_map(dataset).sum() == pytest.approx(np.pi * 9 * 6, rel=0.03)
    same = dataset_layouts.read_dataset(via(tmp_path / "via", region("ellipse", cx=12, cy=10, rx=9, ry=6)))
    assert (label_map(same) == label_map(dataset)).all()


def test_shapes_of_one_group_are_one_object(tmp_path):
    apart = [POLYGON.replace("points", f'group_id="{group}" points') for group in (1, 1, 2)]
    apart[1] = apart[1].replace("3,5;10,5;10,7;3,7", "12,5;15,5;15,7;12,7")
    apart[2] = apart[2].replace("3,5;10,5;10,7;3,7", "12,10;15,10;15,12;12,12")
    dataset = dataset_layouts.read_dataset(cvat(tmp_path, *apart), DatasetOptions(kinds=frozenset({"instances"})))
    assert dataset.cases[0].references["instances"].data.max() == 2


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ('<polygon label="cyst" points="3,5;10"></polygon>', "image x0.png"),
        ('<polygon label="cyst" points="3,5;10,5"></polygon>', "fewer than three corners"),
        (RUNS.replace("0, 7", "0, 9"), "has runs of 16 pixels"),
        (RUNS.replace('left="3"', 'left="20"'), "beyond the image"),
        ('<cloud label="cyst"></cloud>', "of the kind 'cloud'"),
        ('<polygon points="3,5;10,5;9,9"></polygon>', "'label'"),
    ],
)
def test_a_file_of_cvat_without_a_shape_that_can_be_read_is_refused_by_its_first_one(tmp_path, shape, problem):
    with pytest.raises(DatasetError, match=problem):
        dataset_layouts.read_dataset(cvat(tmp_path, shape))


def test_points_are_left_out_with_a_warning_and_a_clip_that_states_no_length_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="the number of frames"):
        dataset_layouts.read_dataset(cvat(tmp_path / "clip", others='<track id="0" label="cyst"></track>'))
    dataset = dataset_layouts.read_dataset(
        cvat(tmp_path / "points", POLYGON, '<points label="cyst" points="3,5"></points>')
    )
    [warning] = [problem for problem in dataset.problems if problem.severity == "warning"]
    assert "covers nothing" in warning.what


def test_a_subset_of_cvat_is_a_part(tmp_path):
    root = cvat(tmp_path, POLYGON)
    text = (root / "annotations.xml").read_text()
    text = text.replace('id="0"', 'id="0" subset="Train"').replace('id="1"', 'id="1" subset="Test"')
    (root / "annotations.xml").write_text(text)
    assert dataset_layouts.read_dataset(root).splits == {"x0": "train", "x1": "test"}


@pytest.mark.parametrize("project", [True, False])
def test_regions_of_via_become_label_maps(tmp_path, project):
    polygon = region("polygon", all_points_x=[3, 10, 10, 3], all_points_y=[5, 5, 7, 7])
    dataset = dataset_layouts.read_dataset(via(tmp_path, polygon, project=project))
    assert [label.name for label in dataset.classes["mask"]] == ["cyst"]
    assert (label_map(dataset) == rectangle(slice(5, 7), slice(3, 10))).all()
    [corners] = dataset_layouts.read_dataset(tmp_path, BOXES).cases[0].references["boxes"].corners
    assert corners.tolist() == [5, 3, 7, 10]  # rows first, as the image


def test_a_structure_that_is_contoured_and_has_no_pixel_is_named(tmp_path):
    speck = '<polygon label="clip" points="12.6,5.6;12.9,5.6;12.9,5.9"></polygon>'
    point = region("polygon", "clip", all_points_x=[12.6, 12.9, 12.9], all_points_y=[5.6, 5.6, 5.9])
    polygon = region("polygon", all_points_x=[3, 10, 10, 3], all_points_y=[5, 5, 7, 7])
    for root in (cvat(tmp_path / "cvat", POLYGON, speck), via(tmp_path / "via", polygon, point)):
        mask = dataset_layouts.read_dataset(root, MASK).cases[0].references["mask"]
        assert mask.facts[WITHOUT_VOXELS] == {"clip": "its outlines hold the centre of none"}
        assert sorted(np.unique(mask.data)) == [0, 2]


def test_rectangles_of_via_are_boxes_and_a_tick_names_their_class(tmp_path):
    box = region("rect", {"cyst": True, "tumour": False}, x=3, y=5, width=7, height=2)
    dataset = dataset_layouts.read_dataset(via(tmp_path, box))
    assert dataset.kinds == {"boxes"}
    assert dataset.cases[0].references["boxes"].names == ("cyst",)


def test_regions_without_attributes_are_of_one_class(tmp_path):
    circle = {"shape_attributes": {"name": "circle", "cx": 10, "cy": 10, "r": 5}, "region_attributes": {}}
    dataset = dataset_layouts.read_dataset(via(tmp_path, circle))
    assert [label.name for label in dataset.classes["mask"]] == ["object"]
    assert label_map(dataset).sum() == pytest.approx(np.pi * 25, rel=0.05)


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        (
            [{**region("rect", x=1, y=1, width=3, height=3), "region_attributes": {"a": "x", "b": "y"}}],
            "attributes a, b",
        ),
        ([region("rect", x=1, y=1, width=3)], "region 1 of x0.png: it lacks 'height'"),
        ([region("rect", "", x=1, y=1, width=3, height=3)], "region 1 of x0.png: it has no kind"),
        ([region("polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2])], "corners at 3 places across and 2 down"),
        ([region("star", x=1)], "of the kind 'star'"),
        ([["rect", 1, 1, 3, 3]], "region 1 of x0.png: something in it is of another kind"),
        (
            [{**region("rect", x=1, y=1, width=3, height=3), "region_attributes": ["cyst"]}],
            "region 1 of x0.png: its attributes are no names",
        ),
    ],
)
def test_a_file_of_via_without_a_region_that_can_be_read_is_refused_by_its_first_one(tmp_path, regions, problem):
    with pytest.raises(DatasetError, match=problem):
        dataset_layouts.read_dataset(via(tmp_path, *regions))


@pytest.mark.parametrize(
    ("odd", "place"),
    [
        (region("polygon", all_points_x=[12, 18], all_points_y=[10, 16]), (slice(10, 16), slice(12, 18))),
        (region("polygon", all_points_x=[12], all_points_y=[10]), (slice(None), slice(None))),
        (region("rect", "", x=12, y=10, width=6, height=6), (slice(10, 16), slice(12, 18))),
        (region("polygon", all_points_x=[12, 18, float("nan")], all_points_y=[10, 16, 4]), (slice(None), slice(None))),
        (region("rect", x=-3, y=10, width=6, height=6), (slice(10, 16), slice(0, 3))),
        # VIA does not state how large the picture is: its header does.
        (region("rect", x=20, y=10, width=8, height=6), (slice(10, 16), slice(20, None))),
        (["rect"], (slice(None), slice(None))),
    ],
)
def test_the_place_of_a_region_of_via_that_cannot_be_read_is_unknown_and_the_others_stay(tmp_path, odd, place):
    good = region("polygon", all_points_x=[3, 10, 10, 3], all_points_y=[5, 5, 7, 7])
    dataset = dataset_layouts.read_dataset(via(tmp_path, good, odd), MASK)
    expected = np.zeros(SIZE, int)
    expected[place] = 2
    expected[5:7, 3:10] = 1
    assert (label_map(dataset) == expected).all()
    assert [label.is_ignored for label in dataset.classes["mask"]] == [False, True]
    boxes = dataset_layouts.read_dataset(tmp_path, BOXES).cases[0].references["boxes"]
    assert boxes.ignored.tolist() == [False, True]


def test_a_file_that_lists_an_image_that_is_not_there_names_it(tmp_path):
    root = via(tmp_path, region("circle", cx=10, cy=10, r=5))
    (root / "images" / "x2.png").unlink()
    dataset = dataset_layouts.read_dataset(root)
    assert [problem.cases for problem in dataset.problems if problem.severity == "error"] == [("x2.png",)]


def test_runs_of_cvat_that_are_far_more_than_the_file_can_state_are_refused_by_name(tmp_path):
    large = RUNS.replace("0, 7, 2, 5", f"0, {10**12}").replace('"7"', f'"{10**6}"').replace('"2"', f'"{10**6}"')
    with pytest.raises(FormatError, match="which may be an attack") as refused:
        dataset_layouts.read_dataset(cvat(tmp_path, large))
    assert refused.value.where.endswith("annotations.xml")


def cvat_project(root: Path, subsets: str) -> Path:
    """A CVAT project whose tasks all have an image called x.png, with a box of its task's size."""
    xml = '<?xml version="1.0"?><annotations>'
    for task, subset in enumerate(subsets):
        picture(root / "images" / subset / "x.png", task, shape=(32, 32))
        box = f'<box label="lesion" xtl="4" ytl="4" xbr="{9 + task}" ybr="9"/>'
        name = f'name="x.png" subset="{subset}" task_id="{task}" width="32" height="32"'
        xml += f'<image id="{task}" {name}>{box}<box label="lesion" xtl="4" ytl="low"/></image>'
    (root / "annotations.xml").write_text(xml + "</annotations>")
    return root


def test_a_subset_of_cvat_says_which_of_several_images_of_one_name_is_meant(tmp_path):
    for data in (cvat_project(tmp_path, "ABC"), tmp_path / "own" / "dataset.csv"):
        dataset = dataset_layouts.read_dataset(data)
        sizes = {case.files[0].parent.name: case.references["boxes"].corners[0].tolist() for case in dataset}
        assert sizes == {name: [4, 4, 9, 9 + n] for n, name in enumerate("ABC")}
        if data == tmp_path:
            [odd] = [one for one in dataset.problems if "cannot be read" in one.what]
            assert "3 annotations" in odd.what and "image x.png, box 2: could not" in odd.what and len(odd.cases) == 3
            (tmp_path / "own").mkdir()
            dataset_table.write_dataset_table(dataset, tmp_path / "own")


def test_images_that_several_tasks_of_cvat_list_are_refused_with_their_number_and_the_tasks(tmp_path):
    with pytest.raises(DatasetError, match=r"1 image is listed more than once \(x.png\), by task 0 of .*, task 1 of"):
        dataset_layouts.read_dataset(cvat_project(tmp_path, "AA"))


def coco_list(root: Path, name: str, **further: object) -> Path:
    picture(root / "images" / "x.png", 1, shape=(20, 20))
    own = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 5, 4], **further}
    content = {
        "images": [{"id": 1, "file_name": "x.png", "width": 20, "height": 20}],
        "annotations": [own],
        "categories": [{"id": 1, "name": "lesion"}],
    }
    (root / name).write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("further", [{"keypoints": [5, 5, 2]}, {"segments_info": []}, {"caption": "a lesion"}])
def test_lists_of_other_things_beside_instances_are_named_and_not_read(tmp_path, further):
    coco_list(coco_list(tmp_path, "instances.json"), "others.json", **further)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset.cases[0].references["boxes"]) == 1
    assert [one.what for one in dataset.problems if "others.json" in one.what] != []


def test_two_lists_of_instances_of_one_image_are_refused_by_their_names(tmp_path):
    with pytest.raises(DatasetError, match=r"listed more than once \(x.png\), by a.json, b.json"):
        dataset_layouts.read_dataset(coco_list(coco_list(tmp_path, "a.json"), "b.json"))


def test_panoptic_segments_alone_are_refused_as_such(tmp_path):
    with pytest.raises(DatasetError, match="holds panoptic segments"):
        dataset_layouts.read_dataset(coco_list(tmp_path, "panoptic.json", segments_info=[]))


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"bbox": [1, 2, 3]}, "annotation 9: its box is not four numbers"),
        ({"bbox": None}, "annotation 9: something in it is of another kind"),
        ({"bbox": [1, 2, 3, 4], "category_id": 7}, "annotation 9: its category 7 is not listed"),
        ({}, "annotation 9: it lacks 'bbox'"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "annotation 9: its outline has 5 numbers"),
        ({"bbox": [1, 2, 3, 4], "image_id": 5}, "annotation 9"),
    ],
)
def test_one_odd_annotation_leaves_out_one_annotation_and_makes_its_place_unknown(tmp_path, odd, why):
    record = json.loads((coco_list(tmp_path, "list.json") / "list.json").read_text())
    record["annotations"].append({"id": 9, "image_id": 1, "category_id": 1, **odd})
    (tmp_path / "list.json").write_text(json.dumps(record))
    dataset = dataset_layouts.read_dataset(tmp_path)
    boxes = dataset.cases[0].references["boxes"]
    assert boxes.ignored.tolist() == [False] + [True] * ("image_id" not in odd)
    [problem] = [one for one in dataset.problems if "annotation" in one.what]
    assert why in problem.what and problem.severity == "warning"
