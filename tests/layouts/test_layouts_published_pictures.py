"""Folders of pictures as published sets have them: parts are no classes, and a number that comes again is a person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from cohorts import picture
from hilum.errors import DatasetError, FormatError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions


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
        dataset_layouts.read_dataset(tmp_path)


def test_a_sample_of_what_to_submit_holds_no_labels(tmp_path):
    for part, begin in (("train", "a"), ("test", "z")):
        for n in range(4):
            picture(tmp_path / part / f"{begin}{n}f.png")
    write(tmp_path / "train_labels.csv", "id,label", *(f"a{n}f,{n % 2}" for n in range(4)))
    write(tmp_path / "sample_submission.csv", "id,label", *(f"z{n}f,0" for n in range(4)))
    assert classes_of(dataset_layouts.read_dataset(tmp_path)) == {f"a{n}f": str(n % 2) for n in range(4)}


def test_a_number_that_comes_again_is_a_person(tmp_path):
    for n in range(4):
        for side in ("left", "right"):
            picture(tmp_path / "Images" / f"{n}_{side}.png")
    rows = (f"{n},{60 + n},{n % 2},{n}_{side}.png" for n in range(4) for side in ("left", "right"))
    write(tmp_path / "full.csv", "ID,Patient Age,label,filename", *rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), len({case.patient for case in dataset})) == (8, 4)
    assert "column ID" in dataset.patients
    for n in range(42):
        picture(tmp_path / "sites" / f"{n}.png")
    write(tmp_path / "sites" / "full.csv", "id,label,filename", *(f"{n % 2},{n % 3},{n}.png" for n in range(42)))
    assert len({case.patient for case in dataset_layouts.read_dataset(tmp_path / "sites")}) == 42


def test_a_table_that_names_none_of_the_images_does_not_hide_their_classes(tmp_path):
    for part in ("TRAIN", "TEST"):
        for name in ("EOSINOPHIL", "LYMPHOCYTE"):
            for n in range(3):
                picture(tmp_path / "images" / part / name / f"_{n}_{n * 11}.png")
    write(tmp_path / "labels.csv", ",Image,Category", "0,1,EOSINOPHIL", "1,2,LYMPHOCYTE")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["class"]] == ["EOSINOPHIL", "LYMPHOCYTE"]
    assert sorted(set(dataset.splits.values())) == ["test", "train"]


def test_images_and_masks_of_two_parts_may_have_equal_names(tmp_path):
    for part in ("trainval", "test"):
        for n in range(3):
            picture(tmp_path / f"{part}-image" / f"000{n}.png")
            picture(tmp_path / f"{part}-mask" / f"000{n}.png", 255)
    assert sorted(dataset_layouts.read_dataset(tmp_path).splits.values()) == ["test"] * 3 + ["train"] * 3


def test_a_folder_around_all_whose_name_says_segmentation_holds_more_than_masks(tmp_path):
    for part in ("Train", "Test"):
        for name in ("COVID", "Normal"):
            for n in range(2):
                place = tmp_path / "Lung Segmentation Data" / part / name
                picture(place / "images" / f"{name}_{part}{n}.png")
                picture(place / "lung masks" / f"{name}_{part}{n}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"class", "mask"}
    assert len(dataset) == 8


def test_anno_marks_a_mask(tmp_path):
    for n in range(3):
        picture(tmp_path / f"train_{n}.png", n)
        picture(tmp_path / f"train_{n}_anno.png", 255)
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"mask"}


def test_folders_of_words_inside_the_classes_are_named(tmp_path):
    for organ in ("lung", "colon"):
        for kind in ("aca", "n"):
            for n in range(2):
                picture(tmp_path / f"{organ}_image_sets" / f"{organ}_{kind}" / f"{organ}{kind}{n}.png")
    problems = [problem.what for problem in dataset_layouts.read_dataset(tmp_path).problems]
    assert problems == ["the folders colon_aca, colon_n, lung_aca, lung_n inside the classes are not read"]


def test_a_table_of_labels_whose_columns_name_no_image_gets_a_warning(tmp_path):
    for n in range(3):
        picture(tmp_path / f"ID0{n}.png")
    write(
        tmp_path / "train.csv",
        "Patient,Weeks,FVC",
        *(f"ID0{n},{week},{2000 + week}" for n in range(3) for week in (1, 2)),
    )
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"value": "FVC"}))
    assert not any(case.images for case in dataset)
    assert [p.what for p in dataset.problems] == ["no column of train.csv names the images next to it (3 files)"]


def test_the_column_that_an_error_proposes_is_no_side_or_sex(tmp_path):
    for n in range(6):
        picture(tmp_path / f"i{n}.png")
    rows = (f"i{n},{'LR'[n % 2]},{n % 2},{n % 3}" for n in range(6))
    write(tmp_path / "train.csv", "image_id,laterality,sex,birads", *rows)
    with pytest.raises(DatasetError) as caught:
        dataset_layouts.read_dataset(tmp_path)
    assert "--column label=birads for classes" in caught.value.remedy


def contour(path: Path, *rows: int) -> None:
    """A mask that is 255 in these of its four rows."""
    voxels = np.zeros((4, 5), np.uint8)
    voxels[list(rows)] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(voxels).save(path)


def test_several_folders_of_masks_hold_structures_and_no_pieces_of_one_mask(tmp_path):
    """As in COVID-QU-Ex, where each image has a mask of the lungs and one of the infection."""
    for n in range(3):
        picture(tmp_path / "apart" / "images" / f"x{n}.png", n)
        contour(tmp_path / "apart" / "lung masks" / f"x{n}.png", 0, 1)
        contour(tmp_path / "apart" / "heart masks" / f"x{n}.png", 3)
    dataset = dataset_layouts.read_dataset(tmp_path / "apart")
    assert [label.name for label in dataset.classes["mask"]] == ["heart", "lung"]
    assert [case.references["mask"].data[0, :, 0].tolist() for case in dataset] == [[2, 2, 0, 1]] * 3
    for n in range(3):
        picture(tmp_path / "inside" / "images" / f"x{n}.png", n)
        contour(tmp_path / "inside" / "label" / f"x{n}.png", 0)
        contour(tmp_path / "inside" / "mask" / f"x{n}.png", 0, 1, 2)
    inside = dataset_layouts.read_dataset(tmp_path / "inside").cases[0]
    with pytest.raises(FormatError, match="lie in other structures too"):
        _ = inside.references["mask"]
    chosen = dataset_layouts.read_dataset(tmp_path / "inside", DatasetOptions(labels="1=label"))
    assert chosen.cases[0].references["mask"].data[0, :, 0].tolist() == [1, 0, 0, 0]


def test_images_of_one_folder_of_masks_may_lie_in_several(tmp_path):
    for n in range(6):
        picture(tmp_path / f"volume_pt{n // 2}" / f"volume-{n}.png", n)
        picture(tmp_path / "segmentations" / f"segmentation-{n}.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(int(case.images["image"].data.max()) for case in dataset) == list(range(6))
    assert dataset.kinds == {"mask"}


def test_images_of_one_name_in_two_folders_have_the_masks_of_their_own(tmp_path):
    for n, side in enumerate(("left", "right")):
        for case in range(3):
            picture(tmp_path / f"{side}_images" / f"{case}.png", 10 * n + case)
            contour(tmp_path / f"{side}_masks" / f"{case}.png", 2 * n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {
        int(case.images["image"].data.max()): case.references["mask"].data[0, :, 0].tolist() for case in dataset
    } == {10 * n + case: [1 - n, 0, n, 0] for n in range(2) for case in range(3)}
    for path in sorted((tmp_path / "left_masks").iterdir()):
        path.rename(path.parent.parent / "right_masks" / f"other_{path.name}")
    with pytest.raises(DatasetError, match="two images are called"):
        dataset_layouts.read_dataset(tmp_path)


def test_any_word_may_stand_before_the_number_with_which_a_mask_begins(tmp_path):
    """As in BUS-BRA."""
    for n in range(4):
        picture(tmp_path / "Images" / f"bus_{n:04d}-l.png", n)
        contour(tmp_path / "Masks" / f"mask_{n:04d}-l.png", n)
    masks = [case.references["mask"].data[0, :, 0].tolist() for case in dataset_layouts.read_dataset(tmp_path)]
    assert masks == [[int(n == row) for row in range(4)] for n in range(4)]


def test_of_tables_with_labels_that_which_can_name_images_is_read(tmp_path):
    """As in HAM10000, beside tables of the pixels of small copies."""
    for n in range(6):
        picture(tmp_path / "HAM10000_images_part_1" / f"ISIC_{n}.jpg", n)
    write(
        tmp_path / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx",
        *(f"H{n // 2},ISIC_{n},{'nv' if n < 4 else 'mel'}" for n in range(6)),
    )
    for name in ("hmnist_28_28_L", "hmnist_8_8_L"):
        write(tmp_path / f"{name}.csv", "pixel0000,pixel0001,label", *(f"{n},{2 * n},{n % 2}" for n in range(6)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.references["class"] for case in dataset] == ["nv"] * 4 + ["mel"] * 2


def test_masks_may_begin_with_the_word_for_them(tmp_path):
    """As in QaTa-COV19."""
    for part, numbers in (("Train Set", range(3)), ("Test Set", range(3, 5))):
        for n in numbers:
            picture(tmp_path / part / "Images" / f"covid_x{n}a.png", n)
            picture(tmp_path / part / "Ground-truths" / f"mask_covid_x{n}a.png", 255)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds) == (5, {"mask"})
    assert [*dataset.splits.values()].count("test") == 2


def test_a_folder_beside_images_and_masks_whose_names_are_in_neither_may_be_a_class_or_only_noted(tmp_path):
    """As in the lungs of Shenzhen and Montgomery on Kaggle: CXR_png/, masks/ and test/."""
    for n in range(3):
        picture(tmp_path / "CXR_png" / f"CHNCXR_{n:04d}_0.png", n)
        picture(tmp_path / "masks" / f"CHNCXR_{n:04d}_0_mask.png", 255)
        picture(tmp_path / "test" / f"MCUCXR_{n:04d}_1.png", 9)
    with pytest.raises(DatasetError, match="can be read in 2 ways"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="image_folders"))
    assert (len(dataset), dataset.kinds) == (3, {"mask"})
    assert [problem.what for problem in dataset.problems] == ["3 images lie outside the folders of images and masks"]


def test_a_folder_with_the_word_for_masks_in_its_name_is_no_class_beside_one_without(tmp_path):
    """As in ISIC 2018, whose attributes lie in Task2_Training_GroundTruth_v3."""
    for n in range(3):
        picture(tmp_path / "Task1-2_Training_Input" / f"ISIC_{n}.png", n)
        for name in ("globules", "streaks"):
            picture(tmp_path / "Task2_Training_GroundTruth_v3" / f"ISIC_{n}_attribute_{name}.png", 255)
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_masks_of_one_structure_in_one_image_and_of_another_in_another_are_not_one_class(tmp_path):
    """As in Prostate158: a tumour on one contrast, the anatomy on the other."""
    for name in ("a_liver_mask", "b_spleen_mask"):
        picture(tmp_path / f"{name[0]}.png")
        picture(tmp_path / f"{name}.png", 255)
    with pytest.raises(DatasetError, match="lack masks of some of liver, spleen"):
        dataset_layouts.read_dataset(tmp_path)


def test_images_that_are_there_in_two_formats_are_refused(tmp_path):
    """As in CVC-ClinicDB, where each would train and test."""
    for kind in ("PNG", "TIF"):
        for n in range(3):
            picture(tmp_path / kind / "Original" / f"{n}.{kind.lower()}", n)
            picture(tmp_path / kind / "Ground Truth" / f"{n}.{kind.lower()}", 255)
    with pytest.raises(DatasetError, match="PNG, TIF hold images in several formats"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path / "PNG")) == 3


def test_folders_of_images_that_a_table_in_another_folder_labels_are_no_classes(tmp_path):
    """As in Derm7pt, beside a further table of numbers."""
    for name in ("FAL", "NEL"):
        for n in range(3):
            picture(tmp_path / "images" / name / f"{name}{n}.jpg", n)
    write(tmp_path / "meta" / "meta.csv", "case_num,diagnosis,derm", *(f"{n},nevus,NEL/NEL{n}.jpg" for n in range(3)))
    write(tmp_path / "meta" / "train_indexes.csv", "indexes", "0", "1")
    with pytest.raises(DatasetError, match=r"tables are meta/meta\.csv"):
        dataset_layouts.read_dataset(tmp_path)
