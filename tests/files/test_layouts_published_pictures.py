"""Folders of pictures as published sets have them: parts are no classes, and a number that comes again is a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohorts import picture
from isocenter.errors import DatasetError
from isocenter.files import DatasetOptions, read_dataset


def write(path: Path, header: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n")


def classes_of(dataset) -> dict[str, str]:
    return {case.id: case.references["class"] for case in dataset}


@pytest.mark.parametrize(
    "parts",
    [("boneage-training-dataset", "boneage-test-dataset"), ("Training_Set", "Evaluation_Set"), ("a. train", "b. eval")],
)
def test_the_parts_of_a_set_are_no_classes(tmp_path, parts):
    for part in parts:
        for n in range(3):
            picture(tmp_path / part / "inside" / f"{part[0]}{n}.png")
    with pytest.raises(DatasetError, match="no labels"):
        read_dataset(tmp_path)


def test_a_sample_of_what_to_submit_holds_no_labels(tmp_path):
    for part, begin in (("train", "a"), ("test", "z")):
        for n in range(4):
            picture(tmp_path / part / f"{begin}{n}f.png")
    write(tmp_path / "train_labels.csv", "id,label", *(f"a{n}f,{n % 2}" for n in range(4)))
    write(tmp_path / "sample_submission.csv", "id,label", *(f"z{n}f,0" for n in range(4)))
    assert classes_of(read_dataset(tmp_path)) == {f"a{n}f": str(n % 2) for n in range(4)}


def test_a_number_that_comes_again_is_a_person(tmp_path):
    for n in range(4):
        for side in ("left", "right"):
            picture(tmp_path / "Images" / f"{n}_{side}.png")
    rows = (f"{n},{60 + n},{n % 2},{n}_{side}.png" for n in range(4) for side in ("left", "right"))
    write(tmp_path / "full.csv", "ID,Patient Age,label,filename", *rows)
    dataset = read_dataset(tmp_path)
    assert (len(dataset), len({case.patient for case in dataset})) == (8, 4)
    assert "column ID" in dataset.patients
    for n in range(42):
        picture(tmp_path / "sites" / f"{n}.png")
    write(tmp_path / "sites" / "full.csv", "id,label,filename", *(f"{n % 2},{n % 3},{n}.png" for n in range(42)))
    assert len({case.patient for case in read_dataset(tmp_path / "sites")}) == 42


def test_a_table_that_names_none_of_the_images_does_not_hide_their_classes(tmp_path):
    for part in ("TRAIN", "TEST"):
        for name in ("EOSINOPHIL", "LYMPHOCYTE"):
            for n in range(3):
                picture(tmp_path / "images" / part / name / f"_{n}_{n * 11}.png")
    write(tmp_path / "labels.csv", ",Image,Category", "0,1,EOSINOPHIL", "1,2,LYMPHOCYTE")
    dataset = read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["class"]] == ["EOSINOPHIL", "LYMPHOCYTE"]
    assert sorted(set(dataset.splits.values())) == ["test", "train"]


def test_images_and_masks_of_two_parts_may_have_equal_names(tmp_path):
    for part in ("trainval", "test"):
        for n in range(3):
            picture(tmp_path / f"{part}-image" / f"000{n}.png")
            picture(tmp_path / f"{part}-mask" / f"000{n}.png", 255)
    assert sorted(read_dataset(tmp_path).splits.values()) == ["test"] * 3 + ["train"] * 3


def test_a_folder_around_all_whose_name_says_segmentation_holds_more_than_masks(tmp_path):
    for part in ("Train", "Test"):
        for name in ("COVID", "Normal"):
            for n in range(2):
                place = tmp_path / "Lung Segmentation Data" / part / name
                picture(place / "images" / f"{name}_{part}{n}.png")
                picture(place / "lung masks" / f"{name}_{part}{n}.png", 255)
    dataset = read_dataset(tmp_path)
    assert dataset.kinds == {"class", "mask"}
    assert len(dataset) == 8


def test_anno_marks_a_mask(tmp_path):
    for n in range(3):
        picture(tmp_path / f"train_{n}.png", n)
        picture(tmp_path / f"train_{n}_anno.png", 255)
    assert read_dataset(tmp_path).kinds == {"mask"}


def test_folders_of_words_inside_the_classes_are_named(tmp_path):
    for organ in ("lung", "colon"):
        for kind in ("aca", "n"):
            for n in range(2):
                picture(tmp_path / f"{organ}_image_sets" / f"{organ}_{kind}" / f"{organ}{kind}{n}.png")
    problems = [problem.what for problem in read_dataset(tmp_path).problems]
    assert problems == ["the folders colon_aca, colon_n, lung_aca, lung_n inside the classes are not read"]


def test_a_table_of_labels_whose_columns_name_no_image_gets_a_warning(tmp_path):
    for n in range(3):
        picture(tmp_path / f"ID0{n}.png")
    write(
        tmp_path / "train.csv",
        "Patient,Weeks,FVC",
        *(f"ID0{n},{week},{2000 + week}" for n in range(3) for week in (1, 2)),
    )
    dataset = read_dataset(tmp_path, DatasetOptions(column={"value": "FVC"}))
    assert not any(case.images for case in dataset)
    assert [p.what for p in dataset.problems] == ["no column of train.csv names the images next to it (3 files)"]


def test_the_column_that_an_error_proposes_is_no_side_or_sex(tmp_path):
    for n in range(6):
        picture(tmp_path / f"i{n}.png")
    rows = (f"i{n},{'LR'[n % 2]},{n % 2},{n % 3}" for n in range(6))
    write(tmp_path / "train.csv", "image_id,laterality,sex,birads", *rows)
    with pytest.raises(DatasetError) as caught:
        read_dataset(tmp_path)
    assert "--column label=birads for classes" in caught.value.remedy
