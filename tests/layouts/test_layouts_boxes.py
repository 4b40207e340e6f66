"""Boxes: Pascal VOC, COCO and tables, on the axes of their images; what is odd is noted, what cannot be is refused."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import real_data
from cohorts import picture, volume
from hilum.errors import DatasetError, UsageError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts import voc as layouts_voc
from hilum.layouts.layout import DatasetOptions
from written_dicom import write_slice

CR = pydicom.uid.ComputedRadiographyImageStorage
# A picture of 20 rows and 30 columns.
SHAPE = (20, 30)


def voc(
    path: Path,
    *objects: tuple[str, tuple[float, ...]],
    size: tuple[int, int] | None = (30, 20),
    extra: str = "",
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    stated = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.write_text(f"<annotation><filename>{path.stem}.png</filename>{stated}{objects}</annotation>")
    return path


def coco(path: Path, images: dict[str, list[tuple[str, list[float]]]], **of_each) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = sorted({name for boxes in images.values() for name, _ in boxes}) or ["cell"]
    record = {
        "images": [{"id": n, "file_name": name, "width": 30, "height": 20} for n, name in enumerate(images)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": 100 * n + m, "image_id": n, "category_id": names.index(name), "bbox": box, **of_each}
            for n, boxes in enumerate(images.values())
            for m, (name, box) in enumerate(boxes)
        ],
    }
    path.write_text(json.dumps(record))
    return path


def table(path: Path, *rows: str, head: str = "image,label,x0,y0,x1,y1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def only(root: Path, **options):
    [case] = dataset_layouts.read_dataset(root, DatasetOptions(**options))
    return case.references["boxes"]


def test_the_same_box_in_three_layouts_is_the_same_box_with_rows_first(tmp_path):
    for name in ("voc", "coco", "table"):
        picture(tmp_path / name / "a.png", shape=SHAPE)
    # Columns 3 to 9 and rows 5 to 6, counted from 0: seven columns and two rows.
    voc(tmp_path / "voc" / "a.xml", ("cell", (4, 6, 10, 7)))
    coco(tmp_path / "coco" / "boxes.json", {"a.png": [("cell", [3, 5, 7, 2])]})
    table(tmp_path / "table" / "boxes.csv", "a.png,cell,3,5,10,7")
    for name in ("voc", "coco", "table"):
        boxes = only(tmp_path / name)
        assert_array_equal(boxes.corners, [[5, 3, 7, 10]], err_msg=name)
        assert boxes.names == ("cell",)
        assert boxes.notes == ()


def test_an_image_with_an_annotation_without_objects_is_known_to_hold_none_and_one_without_is_left_out(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png", shape=SHAPE)
    voc(tmp_path / "a.xml", ("cell", (1, 1, 5, 5)))
    voc(tmp_path / "b.xml")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["a", "b"]
    assert [len(case.references["boxes"]) for case in dataset] == [1, 0]
    assert "without a label" in dataset.problems[0].what
    assert dataset.problems[0].cases == ("c",)


def test_boxes_cross_processes_and_a_changed_annotation_is_another_case(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    coco(tmp_path / "a_boxes.json", {"a.png": [("cell", [3, 5, 7, 2])]})
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert len(pickle.loads(pickle.dumps(case)).references["boxes"]) == 1  # noqa: S301 - our own
    coco(tmp_path / "a_boxes.json", {"a.png": [("cell", [3, 5, 7, 3])]})
    [other] = dataset_layouts.read_dataset(tmp_path)
    assert hashing.content_hash(case) != hashing.content_hash(other)


def test_what_another_image_of_the_same_file_holds_does_not_make_a_case_another_one(tmp_path):
    hashes = []
    for box in ([0, 0, 2, 2], [0, 0, 3, 3]):
        for name in "ab":
            picture(tmp_path / f"{name}.png", shape=SHAPE)
        coco(tmp_path / "boxes.json", {"a.png": [("cell", [3, 5, 7, 2])], "b.png": [("cell", box)]})
        hashes.append([hashing.content_hash(case) for case in dataset_layouts.read_dataset(tmp_path)])
    assert hashes[0][0] == hashes[1][0]
    assert hashes[0][1] != hashes[1][1]


def test_a_box_without_extent_or_twice_or_a_little_outside_is_noted_and_the_others_stay(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    voc(
        tmp_path / "a.xml",
        ("cell", (5, 5, 5, 5)),
        ("cell", (2, 2, 8, 8)),
        ("cell", (2, 2, 8, 8)),
        ("clump", (2, 2, 8, 8)),
        ("cell", (0, 0, 4, 4)),
        ("cell", (25, 15, 31, 20)),
    )
    boxes = only(tmp_path)
    assert boxes.names == ("cell", "clump", "cell", "cell")
    assert_array_equal(boxes.corners, [[1, 1, 8, 8], [1, 1, 8, 8], [0, 0, 4, 4], [14, 24, 20, 30]])
    assert [note.partition(" (")[0] for note in boxes.notes] == ["object 1", "object 3", "object 5", "object 6"]
    assert "no extent" in boxes.notes[0]
    assert "twice" in boxes.notes[1]
    assert all("cut back" in note for note in boxes.notes[2:])


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((8, 2, 2, 8), "object 1 .cell. from .* ends before it starts"),
        ((2, 2, 40, 8), "lies outside the image of .30, 20."),
        ((2, -5, 8, 8), "lies outside"),
        ((31.5, 2, 32, 8), "lies outside"),
        ((2, "nan", 8, 8), "is not a box"),
        ((2, "two", 8, 8), "'two' as its ymin"),
    ],
)
def test_a_box_that_cannot_be_is_refused_by_file_and_box(tmp_path, box, problem):
    picture(tmp_path / "a.png", shape=SHAPE)
    voc(tmp_path / "a.xml", ("cell", box))
    with pytest.raises(DatasetError, match=problem) as refused:
        only(tmp_path)
    assert refused.value.where.endswith("a.xml")


@pytest.mark.parametrize(
    ("name", "box", "place"),
    [
        ("", (11, 3, 14, 8), (2, 10, 8, 14)),
        ("cell", (11, "two", 14, 8), (0, 0, *SHAPE)),
        ("cell", (11, "nan", 14, 8), (0, 0, *SHAPE)),
        ("cell", (14, 2, 10, 8), (2, 10, 8, 14)),
        ("cell", (24, 2, 90, 8), (1, 23, 8, 30)),
        ("cell", (80, 2, 90, 8), (0, 0, *SHAPE)),
    ],
)
def test_the_place_of_a_box_that_cannot_be_read_is_unknown_and_the_others_stay(tmp_path, name, box, place):
    picture(tmp_path / "a.png", shape=SHAPE)
    voc(tmp_path / "a.xml", ("cell", (2, 2, 8, 8)), (name, box))
    boxes = only(tmp_path)
    assert boxes.ignored.tolist() == [False, True]
    assert boxes.corners.tolist() == [[1, 1, 8, 8], list(place)]
    assert "object 2" in boxes.notes[0] and "its place is unknown" in boxes.notes[0]


def test_an_image_of_another_size_than_its_annotation_says_is_refused(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    voc(tmp_path / "a.xml", ("cell", (1, 1, 5, 5)), size=(20, 30))
    with pytest.raises(DatasetError, match="and the image has 30 x 20"):
        only(tmp_path)
    voc(tmp_path / "a.xml", ("cell", (1, 1, 5, 5)), size=None)
    assert len(only(tmp_path)) == 1


def test_what_is_difficult_or_a_crowd_is_marked(tmp_path):
    for name in ("voc", "coco"):
        picture(tmp_path / name / "a.png", shape=SHAPE)
    voc(tmp_path / "voc" / "a.xml", ("cell", (1, 1, 5, 5)), extra="<difficult>1</difficult>")
    coco(tmp_path / "coco" / "boxes.json", {"a.png": [("cell", [1, 1, 5, 5])]}, iscrowd=1)
    assert all(only(tmp_path / name).ignored.tolist() == [True] for name in ("voc", "coco"))


DTD = '<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "{}">]><annotation>&a;</annotation>'


@pytest.mark.parametrize("entity", ["lol", "file:///etc/passwd"])
def test_xml_with_a_document_type_is_refused_before_an_entity_is_made(tmp_path, entity):
    path = tmp_path / "a.xml"
    path.write_text(DTD.format(entity))
    with pytest.raises(DatasetError, match="DOCTYPE"):
        layouts_voc.parse_xml(path)


@pytest.mark.parametrize("text", ["", "<annotation>", "<annotation></other>", "no xml", "\0"])
def test_damaged_xml_is_refused_by_its_name(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DatasetError, match="cannot be read") as refused:
        layouts_voc.parse_xml(path)
    assert refused.value.where == str(path)


def voc_folders(root: Path, **lists: str) -> Path:
    for name in "abcd":
        picture(root / "JPEGImages" / f"{name}.png", shape=SHAPE)
        picture(root / "SegmentationClass" / f"{name}.png", shape=SHAPE)
        voc(root / "Annotations" / f"{name}.xml", ("cell", (1, 1, 5, 5)))
    for name, ids in lists.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{one}\n" for one in ids))
    return root


def test_the_lists_of_imagesets_are_the_sets_own_split_and_label_maps_are_no_images(tmp_path):
    dataset = dataset_layouts.read_dataset(voc_folders(tmp_path, train="a", val="b", trainval="abc", test="d"))
    assert dataset.splits == {"a": "train", "b": "val", "c": "train", "d": "test"}
    assert len(dataset) == 4
    assert "ImageSets/Main" in dataset.layout


def test_an_image_in_two_parts_of_the_split_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="lists a, which is in"):
        dataset_layouts.read_dataset(voc_folders(tmp_path, train="ab", test="ad"))
    with pytest.raises(DatasetError, match="in test too"):
        dataset_layouts.read_dataset(voc_folders(tmp_path / "two", trainval="ab", test="ad"))


def test_the_folders_of_a_split_are_one_as_well(tmp_path):
    for part in ("train", "test"):
        picture(tmp_path / part / f"{part}1.png", shape=SHAPE)
        voc(tmp_path / part / f"{part}1.xml", ("cell", (1, 1, 5, 5)))
    assert dataset_layouts.read_dataset(tmp_path).splits == {"train1": "train", "test1": "test"}


def test_an_annotation_whose_image_is_not_there_is_named(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    voc(tmp_path / "a.xml", ("cell", (1, 1, 5, 5)))
    voc(tmp_path / "b.xml", ("cell", (1, 1, 5, 5)))
    [problem] = dataset_layouts.read_dataset(tmp_path).problems
    assert "has no image" in problem.what
    assert problem.cases == ("b",)


def test_numbers_as_classes_get_their_names_and_an_unnamed_one_is_refused(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    voc(tmp_path / "a.xml", ("0", (1, 1, 5, 5)), ("1", (1, 1, 8, 5)))
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=cell,1=clump"))
    assert [label.name for label in dataset.classes["boxes"]] == ["cell", "clump"]
    assert dataset.cases[0].references["boxes"].names == ("cell", "clump")
    with pytest.raises(UsageError, match=r"does not name .*1"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=cell"))


def test_files_of_coco_are_the_parts_of_a_split_by_their_names(tmp_path):
    for part in ("train2017", "val2017"):
        picture(tmp_path / part / "a.png", shape=SHAPE)
        coco(tmp_path / "annotations" / f"instances_{part}.json", {"a.png": [("cell", [1, 1, 5, 5])]})
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(dataset.splits.values()) == ["train", "val"]
    assert len(dataset) == 2
    assert "COCO: 2 boxes on 2 images" in dataset.layout


def test_coco_that_names_what_it_does_not_list_or_an_image_twice_is_refused(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    path = coco(tmp_path / "boxes.json", {"a.png": [("cell", [1, 1, 5, 5])]})
    whole = json.loads(path.read_text())
    for key, problem in (("image_id", " is of image 7, which"), ("category_id", ": its category 7")):
        path.write_text(json.dumps(whole | {"annotations": [whole["annotations"][0] | {key: 7}]}))
        with pytest.raises(DatasetError, match=f"annotation 0{problem} is not listed"):
            dataset_layouts.read_dataset(tmp_path)
    path.write_text(json.dumps(whole | {"images": whole["images"] * 2}))
    with pytest.raises(DatasetError, match="one number"):
        dataset_layouts.read_dataset(tmp_path)
    path.write_text(json.dumps(whole | {"annotations": [{"id": 1}]}))
    with pytest.raises(DatasetError, match="annotation 1 is of image without a number"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_row_with_nothing_but_the_image_says_that_nothing_is_there(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png", shape=SHAPE)
    table(tmp_path / "boxes.csv", "a.png,cell,1,1,5,5", "a.png,cell,2,2,9,9", "b.png,,,,,")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: len(case.references["boxes"]) for case in dataset} == {"a": 2, "b": 0}


def test_a_table_says_who_and_in_which_part_and_must_not_contradict_itself(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png", shape=SHAPE)
    head = "image,label,xmin,ymin,xmax,ymax,patient,split"
    rows = ["a.png,cell,1,1,5,5,p1,train", "a.png,cell,2,2,9,9,p1,train", "b.png,cell,2,2,9,9,p2,test"]
    path = table(tmp_path / "boxes.csv", *rows, head=head)
    for root in (tmp_path, path):
        dataset = dataset_layouts.read_dataset(root)
        assert [case.patient for case in dataset] == ["p1", "p2"]
        assert dataset.splits == {"a": "train", "b": "test"}
    table(path, *rows, "b.png,cell,2,2,9,8,p1,test", head=head)
    with pytest.raises(DatasetError, match=r"b\.png is of patient p1 and p2"):
        dataset_layouts.read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("row", "problem"), [("a.png,cell,1,1,5,", "row 3 has no corner"), ("a.png,,1,1,5,5", "row 3 has no label")]
)
def test_a_row_that_lacks_a_part_of_its_box_is_refused(tmp_path, row, problem):
    picture(tmp_path / "a.png", shape=SHAPE)
    table(tmp_path / "boxes.csv", "a.png,cell,1,1,5,5", row)
    with pytest.raises(DatasetError, match=problem):
        dataset_layouts.read_dataset(tmp_path)


def test_columns_of_other_names_are_given_with_the_layout(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    table(tmp_path / "boxes.csv", "a.png,cell,1,1,5,5", head="image,label,ax,ay,bx,by")
    names = {"x0": "ax", "y0": "ay", "x1": "bx", "y1": "by"}
    assert_array_equal(only(tmp_path, layout="box_table", column=names).corners, [[1, 1, 5, 5]])
    with pytest.raises(DatasetError, match="no column for x0"):
        only(tmp_path, layout="box_table")


def test_boxes_of_a_volume_lie_on_its_axes_as_they_stand(tmp_path):
    volume(tmp_path / "a.nii.gz", np.zeros((8, 9, 10), np.uint8))
    head = "image,label,x0,y0,z0,x1,y1,z1"
    table(tmp_path / "boxes.csv", "a.nii.gz,nodule,1,2,3,4,6,8", head=head)
    assert_array_equal(only(tmp_path).corners, [[1, 2, 3, 4, 6, 8]])
    table(tmp_path / "boxes.csv", "a.nii.gz,nodule,1,2,4,6")
    (tmp_path / "boxes.csv").write_text("image,label,x0,y0,x1,y1\na.nii.gz,nodule,1,2,4,6\n")
    with pytest.raises(DatasetError, match="2 axes"):
        only(tmp_path)


EDGES_OF_TABLES = {
    "image,label,x0,y0,x1,y1": "3,5,10,7",
    "filename,class,xmin,ymin,xmax,ymax": "3,5,10,7",
    "image_id,class_name,x_min,y_min,x_max,y_max": "3,5,10,7",
    "Image,Label,x1,y1,x2,y2": "3,5,10,7",
    "image,label,left,top,right,bottom": "3,5,10,7",
    "image,label,xmin,ymin,width,height": "3,5,7,2",
    "image,label,width,height,xmin,ymin,xmax,ymax": "30,20,3,5,10,7",  # the size of the image, as in TensorFlow's
}


@pytest.mark.parametrize("head", EDGES_OF_TABLES)
@pytest.mark.parametrize("name", ["a.png", "a"])
def test_edges_have_the_names_that_tables_give_them_and_images_may_lack_their_suffix(tmp_path, head, name):
    picture(tmp_path / "images" / "a.png", shape=SHAPE)
    table(tmp_path / "boxes.csv", f"{name},cell,{EDGES_OF_TABLES[head]}", head=head)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert_array_equal(dataset.cases[0].references["boxes"].corners, [[5, 3, 7, 10]])
    assert dataset.cases[0].covariates == {}


def test_a_corner_with_a_size_may_be_the_centre_and_is_asked_about(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    rows = ["a.png,RBC,0,0,2,2", "a.png,WBC,1,1,2,2"]
    table(tmp_path / "boxes.csv", *rows, head="filename,class,x,y,width,height")
    with pytest.raises(DatasetError, match="may be a corner or the centre") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "--layout box_table --column x0=x,y0=y" in refused.value.remedy
    options = DatasetOptions(layout="box_table", column={"x0": "x", "y0": "y"})
    [case] = dataset_layouts.read_dataset(tmp_path, options)
    assert_array_equal(case.references["boxes"].corners, [[0, 0, 2, 2], [1, 1, 3, 3]])


def test_a_label_that_never_has_a_box_says_that_nothing_is_there_and_images_are_known_by_their_names(tmp_path):
    """As in challenges on radiographs, where the patient's column names the image."""
    for name in "abc":
        picture(tmp_path / f"{name}.png", shape=SHAPE)
    rows = ["a,3,5,7,2,1", "a,1,1,2,2,1", "b,,,,,0", "c,,,,,0"]
    table(tmp_path / "labels.csv", *rows, head="patientId,x,y,width,height,Target")
    table(tmp_path / "details.csv", "a,Opacity", "b,Normal", "c,Other", head="patientId,class")
    options = DatasetOptions(layout="box_table", column={"x0": "x", "y0": "y"})
    dataset = dataset_layouts.read_dataset(tmp_path, options)
    assert [len(case.references["boxes"]) for case in dataset] == [2, 0, 0]
    assert [label.name for label in dataset.classes["boxes"]] == ["1"]
    (tmp_path / "details.csv").unlink()
    table(tmp_path / "more.csv", *rows, "a,,,,,1", head="patientId,x,y,width,height,Target")
    with pytest.raises(UsageError, match="2 tables of boxes"):
        dataset_layouts.read_dataset(tmp_path, options)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(DatasetError, match="row 6 has no corner"):
        dataset_layouts.read_dataset(tmp_path, options)


@pytest.mark.parametrize("head", ["patientId,x0,y0,x1,y1,Target", "image_id,x_min,y_min,x_max,y_max,class_name"])
def test_a_table_may_name_radiographs_of_dicom_whose_patients_stay_hidden(tmp_path, head):
    (tmp_path / "train").mkdir()
    for n in range(4):
        pixels = np.full(SHAPE, n, np.uint16)
        identity = {"PatientID": f"ZAPHOD{n // 2}", "SeriesInstanceUID": f"1.2.{n}", "StudyInstanceUID": f"1.3.{n}"}
        write_slice(tmp_path / "train" / f"x{n}.dcm", pixels, sop_class=CR, position=None, Modality="CR", **identity)
    table(tmp_path / "boxes.csv", "x0,3,5,10,7,1", "x0,1,1,2,2,1", "x1,,,,,0", "x2,3,5,10,7,1", head=head)
    dataset = dataset_layouts.read_dataset(tmp_path)
    by_file = {case.files[0].stem: case for case in dataset}
    assert {name: len(case.references["boxes"]) for name, case in by_file.items()} == {"x0": 2, "x1": 0, "x2": 1}
    boxes = by_file["x2"].references["boxes"]
    assert_array_equal(boxes.corners[0][:4], [5, 3, 7, 10] if boxes.corners.shape[1] == 4 else [3, 5, 0, 10])
    assert by_file["x0"].patient == by_file["x1"].patient != by_file["x2"].patient
    assert "ZAPHOD" not in str([dataset.patients, *(case.id for case in dataset), *(case.patient for case in dataset)])


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_balls_in_mm_along_dicoms_axes_become_the_boxes_around_them(tmp_path, signs):
    """As in LUNA16, whichever way the axes of the volume run."""
    spacing, origin = np.array([0.5, 0.75, 2.0]), np.array([-100.0, 40.0, -7.0])
    affine = np.diag([*(np.array(signs) * spacing), 1.0])
    affine[:3, 3] = origin
    (tmp_path / "subset0").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 40, 20), np.int16), affine), tmp_path / "subset0" / "1.2.3.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 40, 20), np.int16), affine), tmp_path / "subset0" / "1.2.4.nii.gz")
    voxel = np.array([20, 10, 8])
    x, y, z = origin + np.array(signs) * spacing * voxel
    head = "seriesuid,coordX,coordY,coordZ,diameter_mm"
    table(tmp_path / "annotations.csv", f"1.2.3,{-x},{-y},{z},6.0", "1.2.4,,,,", head=head)
    dataset = dataset_layouts.read_dataset(tmp_path)
    half = 3.0 / spacing
    boxes, nothing = (case.references["boxes"] for case in dataset)
    assert_allclose(boxes.corners, [[*(voxel + 0.5 - half), *(voxel + 0.5 + half)]])
    assert boxes.names == ("nodule",)
    assert len(nothing) == 0
    table(tmp_path / "annotations.csv", f"1.2.3,{-x},{-y},{z},", head=head)
    with pytest.raises(DatasetError, match="row 2 has no whole ball"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_ball_in_the_first_slices_of_a_scan_is_cut_back_where_they_begin(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 40, 20), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    head = "seriesuid,coordX,coordY,coordZ,diameter_mm"
    table(tmp_path / "annotations.csv", "a,-20,-20,2,12", head=head)
    boxes = only(tmp_path)
    assert_allclose(boxes.corners, [[14.5, 14.5, 0, 26.5, 26.5, 8.5]])
    [note] = boxes.notes
    assert "was cut back" in note
    table(tmp_path / "annotations.csv", "a,-20,-20,-3,12", head=head)
    with pytest.raises(DatasetError, match="lies outside the image"):
        only(tmp_path)


def test_balls_in_mm_on_a_picture_are_refused(tmp_path):
    picture(tmp_path / "a.png", shape=SHAPE)
    table(tmp_path / "annotations.csv", "a,5,5,5,2", head="seriesuid,coordX,coordY,coordZ,diameter_mm")
    with pytest.raises(DatasetError, match="does not say where it lies"):
        only(tmp_path)


@pytest.mark.parametrize(
    ("folder", "expected"),
    real_data.facts(
        shipped=("278 boxes on 16 images", {"train": 11, "val": 3, "test": 2}),
        corpus=("4888 boxes on 364 images", {"train": 205, "val": 87, "test": 72}),
    ),
)
def test_bccd_is_read_with_its_split_and_its_boxes_without_extent_are_named(folder, expected):
    dataset = dataset_layouts.read_dataset(folder / "bccd")
    boxes, sizes_of_parts = expected
    assert boxes in dataset.layout
    assert Counter(dataset.splits.values()) == sizes_of_parts
    assert {label.name for label in dataset.classes["boxes"]} == {"RBC", "WBC", "Platelets"}
    cases = {case.id: case for case in dataset}
    for name, box in (("BloodImage_00338", "(RBC) has no extent"), ("BloodImage_00343", "(RBC) has no extent")):
        [note] = cases[name].references["boxes"].notes
        assert box in note
    first = cases["BloodImage_00001"].references["boxes"]
    assert (first.low >= 0).all()
    assert (first.high <= [480, 640]).all()
