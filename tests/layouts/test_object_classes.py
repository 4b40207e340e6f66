"""Classes of single objects: in a table or a map beside their map, in class folders, in outlines; what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest

import hilum
from hilum.errors import DatasetError
from hilum.files.dicom.writing import seg, sr
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.layouts import dataset_layouts, dataset_table
from hilum.layouts.cases import dicom_masks
from hilum.layouts.layout import DatasetOptions
from hilum.runtime import result_codes
from hilum.values import Code, Finding, Image, Label
from hilum.values.finding import CodedName
from written_dicom import write_slice

NUMBERS = np.zeros((12, 16), np.uint8)
NUMBERS[1:5, 1:5], NUMBERS[1:5, 8:12], NUMBERS[7:11, 3:7] = 1, 2, 3
KINDS = {1: "round", 2: "long", 3: "round"}
OBJECTS = frozenset({"instances"})


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array.astype(np.uint8)).save(path)


def maps_of_numbers(root: Path, count: int = 2, folder: str = "labels") -> Path:
    for n in range(count):
        save(100 * (NUMBERS > 0) + n, root / "images" / f"{n:02}.png")
        save(NUMBERS, root / folder / f"{n:02}.png")
    return root


def with_table(root: Path, rows: list[tuple[str, int, str]]) -> Path:
    lines = ["case,object,label", *(f"{case},{number},{label}" for case, number, label in rows)]
    (root / "objects.csv").write_text("\n".join(lines))
    return root


ROWS = [(f"{n:02}", number, kind) for n in range(2) for number, kind in KINDS.items()]


def kinds_in(path: Path, **options: object) -> tuple[list[str], list[dict[int, str]]]:
    """The names of the declared classes, and {object: class} of each case."""
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(**options))
    maps = [case.references["instances"] for case in dataset]
    return [label.name for label in dataset.classes["instances"]], [
        {label.value: label.kind for label in one.labels if (one.data == label.value).any()} for one in maps
    ]


def by_table(root: Path) -> Path:
    return with_table(maps_of_numbers(root), ROWS)


def by_folders(root: Path) -> Path:
    for case in ("a", "b"):
        save(100 * (NUMBERS > 0) + (case == "b"), root / case / "images" / f"{case}.png")
        for number, kind in KINDS.items():
            save(255 * (number == NUMBERS), root / case / "masks" / kind / f"{number}.png")
    return root


def by_outlines(root: Path) -> Path:
    boxes = {1: (1, 1), 2: (8, 1), 3: (3, 7)}
    for n in range(2):
        save(100 * (NUMBERS > 0) + n, root / "images" / f"{n:02}.png")
        shapes = [
            {"label": KINDS[m], "points": [[x, y], [x + 4, y], [x + 4, y + 4], [x, y + 4]], "shape_type": "polygon"}
            for m, (x, y) in boxes.items()
        ]
        record = {"imagePath": f"{n:02}.png", "imageHeight": 12, "imageWidth": 16, "shapes": shapes, "version": "5"}
        (root / "images" / f"{n:02}.json").write_text(json.dumps(record))
    return root


@pytest.mark.parametrize("made", [by_table, by_folders, by_outlines])
def test_each_way_gives_every_object_its_class_and_dataset_csv_keeps_it(made, tmp_path):
    root = made(tmp_path / "data")
    names, kinds = kinds_in(root, kinds=OBJECTS)
    assert sorted(names) == ["long", "round"]
    assert all(sorted(one.values()) == ["long", "round", "round"] for one in kinds)
    dataset = dataset_layouts.read_dataset(root, DatasetOptions(kinds=OBJECTS))
    (tmp_path / "table").mkdir()
    dataset_table.write_dataset_table(dataset, tmp_path / "table")
    assert kinds_in(tmp_path / "table" / "dataset.csv", kinds=OBJECTS) == (names, kinds)


def test_maps_of_classes_lie_beside_those_of_numbers_and_labels_name_them(tmp_path):
    root = maps_of_numbers(tmp_path, folder="masks")
    for n in range(2):
        save(np.select([NUMBERS == 2, NUMBERS > 0], [1, 2]), root / "classes" / f"{n:02}.png")
    names, kinds = kinds_in(root, labels="1=long,2=round")
    assert names == ["long", "round"]
    assert kinds == [KINDS, KINDS]
    with pytest.raises(DatasetError, match="have no names"):
        dataset_layouts.read_dataset(root, DatasetOptions())


def test_labels_name_numbers_of_a_table(tmp_path):
    rows = [(case, number, "0" if kind == "long" else "1") for case, number, kind in ROWS]
    names, kinds = kinds_in(with_table(maps_of_numbers(tmp_path), rows), labels="0=long,1=round")
    assert names == ["long", "round"]
    assert kinds == [KINDS, KINDS]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (ROWS[1:], "the objects 1 of 00.png have no class"),
        ([*ROWS, ("00", 1, "long")], "object 1 of 00 has two classes, round and long"),
        ([*ROWS, ("00", 7, "long")], "names the objects 7 of 00, which are not in 00.png"),
    ],
    ids=["without a class", "of two classes", "not in the map"],
)
def test_a_table_that_disagrees_with_a_map_leaves_out_that_case_alone(rows, fault, tmp_path):
    root = with_table(maps_of_numbers(tmp_path), rows)
    dataset = dataset_layouts.read_dataset(root)
    good, bad = (next(case for case in dataset if case.id == name) for name in ("01", "00"))
    with pytest.raises(DatasetError, match=fault):
        _ = bad.references["instances"]
    assert len(good.references["instances"].labels) == 3


def test_the_case_is_named_by_check_and_the_others_go_on(tmp_path):
    found = hilum.check(with_table(maps_of_numbers(tmp_path), ROWS[1:]), threads=1)
    [problem] = [one for one in found.problems if "have no class" in one.what]
    assert problem.cases == ("00",)


def test_a_line_without_an_object_is_refused_by_its_number(tmp_path):
    root = with_table(maps_of_numbers(tmp_path), ROWS)
    (root / "objects.csv").write_text("case,object,label\n00,one,round\n")
    with pytest.raises(DatasetError, match="line 2"):
        dataset_layouts.read_dataset(root)
    (root / "objects.csv").write_text("case,label\n00,round\n")
    with pytest.raises(DatasetError, match="no column object"):
        dataset_layouts.read_dataset(root)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ((slice(1, 5), slice(1, 3), 1), "object 1 of 00.png has two classes"),
        ((slice(1, 5), slice(1, 3), 0), "object 1 has voxels without a class"),
        ((slice(0, 1), slice(0, 3), 2), "class 2 lies outside objects"),
        ((slice(1, 5), slice(1, 5), 9), "holds the class 9"),
    ],
)
def test_a_map_of_classes_that_disagrees_with_the_objects_is_refused(changed, fault, tmp_path):
    rows, columns, value = changed
    root, kinds = maps_of_numbers(tmp_path), np.select([NUMBERS == 2, NUMBERS > 0], [1, 2])
    for n in range(2):
        save(kinds, root / "classes" / f"{n:02}.png")
    kinds[rows, columns] = value
    save(kinds, root / "classes" / "00.png")
    dataset = dataset_layouts.read_dataset(root, DatasetOptions(labels="1=long,2=round"))
    with pytest.raises(DatasetError, match=fault):
        _ = next(case for case in dataset if case.id == "00").references["instances"]


def test_masks_inside_and_outside_of_class_folders_are_refused(tmp_path):
    root = by_folders(tmp_path)
    save(255 * (NUMBERS == 1), root / "a" / "masks" / "9.png")
    with pytest.raises(DatasetError, match="others in none"):
        dataset_layouts.read_dataset(root)


def test_check_counts_the_objects_of_each_class_and_names_one_that_nobody_annotated(tmp_path):
    root = with_table(maps_of_numbers(tmp_path / "data"), ROWS)
    tiny = NUMBERS.copy()
    tiny[11, 15] = 4
    save(tiny, root / "labels" / "01.png")
    with_table(root, [*ROWS, ("01", 4, "round")])
    found = hilum.check(root, threads=1)
    assert found.facts["objects by class"] == "long 2, round 5 (1 of less than a tenth of their median size)"
    with_table(root, [(case, number, "long") for case, number, _ in [*ROWS, ("01", 4, "")]])
    problems = [one.what for one in hilum.check(root, labels="0=long,1=round", threads=1).problems]
    assert "no object of the cases that train is of the class round" in problems


def smear_of_dicom(root: Path, labels: tuple[Label, ...]) -> Path:
    """A series of four slices, and the segmentation that we write of objects in it: a segment an object."""
    root.mkdir(exist_ok=True)
    for n in range(4):
        pixels = (100 * (NUMBERS > 0) + n).astype("i2")
        write_slice(root / f"{n}.dcm", pixels, position=(0.0, 0.0, float(n)), InstanceNumber=n + 1)
    source = source_of(root)
    numbers = np.repeat(NUMBERS.T[:, :, None], 4, axis=2)
    seg.write_segmentation(numbers, labels, source, root / "objects.dcm", algorithm_name="tests")
    return root


def source_of(root: Path) -> Image:
    [image] = dataset_layouts.read_dataset(root, DatasetOptions(references=False))
    return image.images["image"]


NUCLEUS = Code("SCT", "84640000", "Nucleus")
OWN = tuple(replace(Label.of_object(n, kind, (0, 158, 115)), code=NUCLEUS) for n, kind in KINDS.items())


def test_a_segmentation_with_a_segment_an_object_states_classes_by_the_names_of_its_segments(tmp_path):
    root = smear_of_dicom(tmp_path / "data", OWN)
    names, [kinds] = kinds_in(root, kinds=OBJECTS)
    assert names == ["long", "round"]
    assert kinds == KINDS
    dataset = dataset_layouts.read_dataset(root, DatasetOptions(kinds=OBJECTS))
    (tmp_path / "table").mkdir()
    dataset_table.write_dataset_table(dataset, tmp_path / "table")
    assert kinds_in(tmp_path / "table" / "dataset.csv", kinds=OBJECTS) == (names, [kinds])
    assert dataset_layouts.read_dataset(root).kinds == {"mask"}


def test_segments_of_one_name_are_objects_of_one_class(tmp_path):
    root = smear_of_dicom(tmp_path, tuple(Label(n, "cell") for n in KINDS))
    names, [kinds] = kinds_in(root, kinds=OBJECTS)
    assert (names, kinds) == (["cell"], dict.fromkeys(KINDS, "cell"))


def test_a_report_states_the_class_of_each_object_at_its_segment(tmp_path):
    root = smear_of_dicom(tmp_path / "data", OWN)
    source, path = source_of(root), tmp_path / "report.dcm"
    found = [Finding(one.name, 16.0, "mm³", 0.9, group=one.name, label=one.value, kind=one.kind) for one in OWN]
    coded = result_codes.coded_findings(found, {"long": CodedName((NUCLEUS,))})
    sr.write_report(Result(source, "tests", findings=coded, segmentations={root / "objects.dcm": OWN}), path)
    text = str(pydicom.dcmread(path))
    assert text.count("Code Meaning                        LO: 'round'") == 2
    assert "'Nucleus'" in text
    assert [label.code for label in result_codes.coded_labels(OWN[:2], {"round": CodedName((NUCLEUS,))})] == [
        NUCLEUS
    ] * 2


@pytest.mark.parametrize(
    ("segment", "name"),
    [("cell 12", "cell"), ("cell_12", "cell"), ("cell #12", "cell"), ("CD4", "CD4"), ("grade", "grade")],
)
def test_the_class_of_a_segment_is_its_name_without_a_number_that_stands_apart(segment, name):
    assert dicom_masks.class_of_segment(segment) == name
