"""A column that says which part of the data a row belongs to: every word counts, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohorts import classed, picture
from hilum.errors import DatasetError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions


def labelled(folder: Path, words: tuple[str, ...], column: str = "split") -> Path:
    """A table of pictures with a class and a word each."""
    for n in range(len(words)):
        picture(folder / f"{n}.png", n)
    rows = (f"{n}.png,{'ab'[n % 2]},{word}" for n, word in enumerate(words))
    (folder / "set.csv").write_text("\n".join([f"image,label,{column}", *rows]))
    return folder


def test_a_word_that_names_no_part_is_refused_with_its_column(tmp_path):
    labelled(tmp_path, ("train", "val", "holdout", "train"))
    with pytest.raises(DatasetError, match=r"set.csv: column split says holdout") as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "train, val, calibration or test" in refused.value.remedy


def test_a_column_called_split_with_numbers_is_refused(tmp_path):
    labelled(tmp_path, ("0", "1", "2", "0"))
    with pytest.raises(DatasetError, match="column split says 0, 1, 2"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_blank_cell_names_no_part(tmp_path):
    labelled(tmp_path, ("train", "", "Test", " val "))
    assert dataset_layouts.read_dataset(tmp_path).splits == {"0": "train", "2": "test", "3": "val"}


def test_a_subset_that_means_something_else_is_a_covariate(tmp_path):
    labelled(tmp_path, ("A", "B", "A", "B"), column="subset")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.splits == {}
    assert [case.covariates["subset"] for case in dataset] == ["A", "B", "A", "B"]
    with pytest.raises(DatasetError, match="column subset says A, B"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"split": "subset"}))


def masked(folder: Path, rows: str) -> Path:
    """Pictures of two people with masks, and a table next to them."""
    for name in ("ann_1", "ann_2", "ben_1"):
        picture(folder / "images" / f"{name}.png")
        picture(folder / "masks" / f"{name}.png", 255)
    (folder / "people.csv").write_text(rows)
    return folder


def test_parts_are_stated_for_patients_too(tmp_path):
    dataset = dataset_layouts.read_dataset(masked(tmp_path, "patient,age,split\nann,61,train\nben,47,test"))
    assert dataset.splits == {"ann_1": "train", "ann_2": "train", "ben_1": "test"}
    assert dataset.cases[0].covariates == {"age": 61}


@pytest.mark.parametrize(
    "rows", ["patient,split\nann,train\nben,locked", "case,split\nann_1,train\nann_2,train\nben_1,locked"]
)
def test_a_table_next_to_the_images_is_as_strict(tmp_path, rows):
    with pytest.raises(DatasetError, match="column split says locked"):
        dataset_layouts.read_dataset(masked(tmp_path, rows))


def test_a_table_of_boxes_is_as_strict(tmp_path):
    rows = []
    for n, word in enumerate(("train", "val", "test", "held out")):
        picture(tmp_path / f"{n}.png", n)
        rows.append(f"{n}.png,cell,1,1,3,3,{word}")
    (tmp_path / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1,split", *rows]))
    with pytest.raises(DatasetError, match="column split says held out"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_column_of_folds_is_no_covariate_and_the_note_says_how_to_test_on_one(tmp_path):
    dataset = dataset_layouts.read_dataset(labelled(tmp_path, ("0", "1", "2", "0"), column="fold"))
    assert (dataset.splits, dataset.cases[0].covariates) == ({}, {})
    [note] = dataset.problems
    assert note.what == "set.csv has a column fold"
    assert "columns case and split" in note.remedy


def test_folds_next_to_images_and_masks_are_noted_too(tmp_path):
    dataset = dataset_layouts.read_dataset(masked(tmp_path, "patient,age,Fold\nann,61,0\nben,47,1"))
    assert [one.what for one in dataset.problems] == ["people.csv has a column Fold"]
    assert [case.covariates for case in dataset] == [{"age": 61}, {"age": 61}, {"age": 47}]
    (tmp_path / "people.csv").unlink()
    (tmp_path / "splits_final.json").write_text('[{"train": ["ann_1"], "val": ["ben_1"]}]')
    assert [one.what for one in dataset_layouts.read_dataset(tmp_path).problems] == [
        "splits_final.json states the folds of nnU-Net"
    ]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Training Data", "Testing Data"),
        ("a. Training Set", "b. Testing Set"),
        ("trainset", "testset"),
        ("stage1_train", "stage1_test"),
        ("train", "test_data"),
    ],
)
def test_folders_whose_names_hold_the_word_of_a_part_are_that_part_and_no_class(tmp_path, train, test):
    for name in (train, test):
        classed(tmp_path / "classes" / name)
        for n in range(3):
            picture(tmp_path / "pairs" / name / "images" / f"{name[0]}{n}.png", n)
            picture(tmp_path / "pairs" / name / "masks" / f"{name[0]}{n}.png", 255)
    for kind in ("classes", "pairs"):
        dataset = dataset_layouts.read_dataset(tmp_path / kind)
        parts = {case.id: case.files[0].relative_to(tmp_path / kind).parts[0] for case in dataset}
        assert dataset.splits == {name: "test" if part == test else "train" for name, part in parts.items()}
    assert {label.name for label in dataset_layouts.read_dataset(tmp_path / "classes").classes["class"]} == {
        "benign",
        "malignant",
    }
    assert dataset_layouts.read_dataset(tmp_path / "pairs").kinds == {"mask"}


@pytest.mark.parametrize(
    "names", [("train_images", "train_masks"), ("stress_test", "rest"), ("train_alpha", "test_beta")]
)
def test_folders_of_one_kind_of_file_or_of_unlike_names_are_no_parts(tmp_path, names):
    for name in names:
        for n in range(3):
            picture(tmp_path / name / f"{n}.png", 255)
    assert not dataset_layouts.read_dataset(tmp_path).splits


def listed_images(root: Path, **lists: list[str]) -> Path:
    """Six images with masks, and text files of names."""
    for n in range(6):
        picture(root / "images" / f"p{n}.png", n)
        picture(root / "masks" / f"p{n}.png", n % 2)
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    "lists",
    [
        {"train": ["p0", "p1", "p2"], "val": ["p3"], "test": ["p4", "p5"]},
        {"train": ["images/p0.png", "p1.png", "p2.png 1"], "valid": ["p3.png"], "test": ["images/p4", "p5"]},
        {"train_list": ["p0", "p1", "p2"], "trainval_list": ["p0", "p1", "p2", "p3"], "val_list": ["p3"],
         "test_list": ["p4", "p5", "p77"]},
    ],
)  # fmt: skip
def test_text_files_of_names_state_the_parts(tmp_path, lists):
    dataset = dataset_layouts.read_dataset(listed_images(tmp_path, **lists))
    assert dataset.splits == {"p0": "train", "p1": "train", "p2": "train", "p3": "val", "p4": "test", "p5": "test"}
    assert "parts as in test" in dataset.layout


def test_lists_for_training_and_validation_together_leave_the_choice(tmp_path):
    """As in NIH's chest radiographs."""
    lists = {"train_val_list": ["p0.png", "p1.png", "p2.png", "p3.png"], "test_list": ["p4.png", "p5.png"]}
    assert set(dataset_layouts.read_dataset(listed_images(tmp_path, **lists)).splits.values()) == {"train", "test"}


def test_a_list_may_name_patients_by_their_folders(tmp_path):
    for n in range(6):
        picture(tmp_path / f"patient{n // 2}" / f"image{n}.png", n)
        picture(tmp_path / f"patient{n // 2}" / f"image{n}_mask.png", 1)
    (tmp_path / "train.txt").write_text("patient0\npatient2\n")
    (tmp_path / "test.txt").write_text("patient1\n")
    splits = dataset_layouts.read_dataset(tmp_path).splits
    assert [splits[name] for name in sorted(splits)] == ["train", "train", "test", "test", "train", "train"]


def test_a_case_in_two_lists_is_refused_and_one_in_none_is_said(tmp_path):
    both = listed_images(tmp_path / "a", train=["p0", "p1", "p2", "p3"], test=["p3", "p4", "p5"])
    with pytest.raises(DatasetError, match=r"p3, which .*txt lists too"):
        dataset_layouts.read_dataset(both)
    dataset = dataset_layouts.read_dataset(listed_images(tmp_path / "b", train=["p0", "p1"], test=["p3", "p4", "p5"]))
    assert dataset.splits == {}
    assert ("the parts of test.txt, train.txt are not used", "1 case is in none of them") in {
        (problem.what, problem.why) for problem in dataset.problems
    }


def test_lists_of_several_folds_state_no_part(tmp_path):
    folds = {f"train_{n}": [f"p{k}" for k in range(6) if k % 2 != n] for n in range(2)}
    folds |= {f"test_{n}": [f"p{k}" for k in range(6) if k % 2 == n] for n in range(2)}
    assert dataset_layouts.read_dataset(listed_images(tmp_path, **folds)).splits == {}
