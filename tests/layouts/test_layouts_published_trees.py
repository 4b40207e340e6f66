"""Trees of published sets and of clinicians' own folders, by their exact names: labels, people and parts are theirs."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import SimpleITK

from cohorts import picture, table, volume
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions

SHAPE = (5, 6, 7)


def scan(path: Path, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> None:
    volume(path, np.random.default_rng(seed).normal(100, 30, shape).astype(np.int16))


def label_map(path: Path, *values: int, shape: tuple[int, ...] = SHAPE) -> None:
    voxels = np.zeros(shape, np.uint8)
    for place, value in enumerate(values or (1,)):
        voxels[place, 1:4, 2:5] = value
    volume(path, voxels)


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)).save(path)


def mask(path: Path, column: int = 0) -> None:
    pixels = np.zeros((4, 5), np.uint8)
    pixels[:, column] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def values_of(case) -> list[int]:
    return np.unique(case.references["mask"].data).tolist()


# Masks


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("a.png", ("a_gt.png", "a_seg.png")),
        ("images/a.png", ("masks/human/first/a.png", "masks/network/first/a.png")),
        ("images/a.png", ("masks/a.png", "masks/a_mask.png")),
        (
            "sub-01/anat/sub-01_T1w.png",
            tuple(f"derivatives/contoured/sub-01/anat/sub-01_desc-{n}_mask.png" for n in "mn"),
        ),
    ],
)
def test_masks_that_are_no_pieces_of_one_are_not_united(tmp_path, image, masks):
    picture(tmp_path / image)
    for column, name in enumerate(masks):
        mask(tmp_path / name, column)
    [case] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(FormatError, match="differ in more than a number"):
        _ = case.references["mask"]


def test_a_label_map_beside_the_mask_is_no_image_of_the_case(tmp_path):
    for n in range(1, 4):
        case = tmp_path / f"IBSR_0{n}"
        scan(case / f"IBSR_0{n}_ana.nii.gz", n)
        label_map(case / f"IBSR_0{n}_segTRI_ana.nii.gz", 1, 2, 3)
        label_map(case / f"IBSR_0{n}_seg.nii.gz", 1, 2)
    with pytest.raises(DatasetError, match=r"segTRI_ana .*label map"):
        dataset_layouts.read_dataset(tmp_path)


def test_two_label_maps_that_no_name_marks_are_asked_about(tmp_path):
    for n in range(1, 4):
        for kind in ("T1", "T1_IR", "T2_FLAIR"):
            scan(tmp_path / "TrainingData" / str(n) / f"{kind}.nii", n)
        for kind in ("LabelsForTesting", "LabelsForTraining"):
            label_map(tmp_path / "TrainingData" / str(n) / f"{kind}.nii", 1, 2, 3)
    with pytest.raises(DatasetError, match="LabelsForTesting, LabelsForTraining are label maps"):
        dataset_layouts.read_dataset(tmp_path)


def test_the_one_mask_of_a_case_may_be_called_otherwise(tmp_path):
    for n in range(353, 358):
        for kind in ("flair", "t1", "t1ce", "t2"):
            scan(tmp_path / f"BraTS20_Training_{n}" / f"BraTS20_Training_{n}_{kind}.nii", n)
        name = "W39_1998.09.19_Segm" if n == 355 else f"BraTS20_Training_{n}_seg"
        label_map(tmp_path / f"BraTS20_Training_{n}" / f"{name}.nii", 1, 2, 4)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [values_of(case) for case in dataset] == [[0, 1, 2, 4]] * 5
    assert any("W39_1998.09.19_Segm" in problem.what for problem in dataset.problems)


def test_a_structure_of_0_changes_places_with_the_background_that_is_declared(tmp_path):
    pixels = np.full((4, 5), 255, np.uint8)
    pixels[1:4, 1:4], pixels[2, 2] = 128, 0
    for n in range(3):
        picture(tmp_path / "images" / f"g{n}.png", n)
        (tmp_path / "masks").mkdir(exist_ok=True)
        PIL.Image.fromarray(pixels).save(tmp_path / "masks" / f"g{n}.bmp")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=cup,128=rim,255=background"))
    assert [(label.value, label.name) for label in dataset.classes["mask"]] == [(128, "rim"), (255, "cup")]
    mask = dataset.cases[0].references["mask"]
    assert np.array_equal(mask.data[0], np.select([pixels == 0, pixels == 255], [255, 0], 128))
    assert hashing.content_hash(dataset.cases[0]) != hashing.content_hash(
        dataset_layouts.read_dataset(tmp_path).cases[0]
    )
    with pytest.raises(UsageError, match=r"0 is the background of masks, and cannot be cup.*0=cup,255=background"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=cup,128=rim"))
    with pytest.raises(FormatError, match=r"--labels 0=NAME,\.\.\.,255=background"):
        _ = dataset_layouts.read_dataset(tmp_path).cases[0].references["mask"]


def test_lungs_beside_scans_are_not_scans_with_nodules(tmp_path):
    for n in range(2):
        for folder in ("subset0", "seg-lungs-LUNA16"):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = SimpleITK.GetImageFromArray(np.zeros((8, 8, 8), np.int16))
            SimpleITK.WriteImage(image, tmp_path / folder / f"1.3.6.{n}.mhd")
    table(tmp_path / "annotations.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm", ["1.3.6.0,3,3,3,2"])
    table(tmp_path / "candidates.csv", "seriesuid,coordX,coordY,coordZ,class", ["1.3.6.0,3,3,3,0"])
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert case.files[0].parent.name == "subset0"


# Parts


def test_parts_may_lie_deep(tmp_path):
    above = tmp_path / "A. Segmentation"
    for n, part in ((1, "a. Training Set"), (2, "a. Training Set"), (55, "b. Testing Set")):
        picture(above / "1. Original Images" / part / f"IDRiD_{n:02}.jpg")
        mask(above / "2. All Segmentation Groundtruths" / part / "1. Microaneurysms" / f"IDRiD_{n:02}_MA.tif")
        mask(above / "2. All Segmentation Groundtruths" / part / "5. Optic Disc" / f"IDRiD_{n:02}_OD.tif", 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.splits == {"IDRiD_01": "train", "IDRiD_02": "train", "IDRiD_55": "test"}


def test_a_labelled_test_part_of_the_decathlon_is_one_and_pairs_that_are_not_listed_are_named(tmp_path):
    for part, numbers in (("Tr", (1, 2, 7)), ("Ts", (3,))):
        for n in numbers:
            scan(tmp_path / f"images{part}" / f"word_{n}.nii.gz", n)
            label_map(tmp_path / f"labels{part}" / f"word_{n}.nii.gz")
    entries = {
        part: [{"image": f"./images{part}/word_{n}.nii.gz", "label": f"./labels{part}/word_{n}.nii.gz"} for n in own]
        for part, own in (("Tr", (1, 2)), ("Ts", (3,)))
    }
    described = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    text = json.dumps(described | {"training": entries["Tr"], "test": entries["Ts"]})
    (tmp_path / "dataset.json").write_text(text)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["word_1", "word_2", "word_3"]
    assert dataset.splits == {"word_3": "test"}
    assert [problem.cases for problem in dataset.problems] == [("imagesTr/word_7",)]


def test_images_of_one_name_in_two_parts_have_the_rows_of_their_own(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for n in range(count):
            picture(tmp_path / part / f"IDRiD_00{n}.jpg", n)
        rows = [f"IDRiD_00{n},{(n + (part == 'test')) % 2}" for n in range(count)]
        table(tmp_path / f"{part}.csv", "image,label", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    stated = {case.id: (dataset.splits[case.id], case.references["class"]) for case in dataset}
    assert stated["train-IDRiD_000"] == ("train", "0")
    assert stated["test-IDRiD_000"] == ("test", "1")
    assert len(stated) == 6


LONG = "adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib"


def test_a_class_that_parts_call_differently_is_one(tmp_path):
    for part, names in (
        ("train", (LONG, "normal")),
        ("valid", (LONG, "Normal")),
        ("test", ("adenocarcinoma", "normal")),
    ):
        for name in names:
            for n in range(2):
                picture(tmp_path / part / name / f"{part}{name[:2]}{n}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["class"]] == ["adenocarcinoma", "normal"]
    assert {case.references["class"] for case in dataset} == {"adenocarcinoma", "normal"}
    assert any(LONG in problem.what for problem in dataset.problems)


def test_classes_of_one_part_stay_apart(tmp_path):
    for part in ("train", "test"):
        for name in ("glioma", "glioma_grade_4"):
            for n in range(2):
                picture(tmp_path / part / name / f"{part}{n}.png", n)
    assert len(dataset_layouts.read_dataset(tmp_path).classes["class"]) == 2


# People


def test_visits_in_folders_of_people_are_no_images_of_a_class(tmp_path):
    for person in ("Abel", "Berg", "Cohn", "Dorn", "Ebel"):
        for visit in ("pre", "post"):
            scan(tmp_path / person / visit / "image.nii.gz")
            label_map(tmp_path / person / visit / "mask.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert len({case.patient for case in dataset}) == 5


@pytest.mark.parametrize("folders", [("LabeledData", "UnlabeledData"), ("1-200", "201-400")])
def test_folders_that_part_a_set_are_no_classes(tmp_path, folders):
    for folder in folders:
        for n in range(3):
            scan(tmp_path / folder / f"{n}.img.nii.gz", n)
            label_map(tmp_path / folder / f"{n}.label.nii.gz")
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"mask"}


@pytest.mark.parametrize(
    "names",
    [
        ("axial", "coronal", "sagittal"),
        ("2019", "2020"),
        ("original", "augmented"),
        ("site_a", "site_b"),
        ("pre", "post"),
        tuple(f"{first}{last}" for first in "abcdef" for last in "uvwx"),
    ],
)
def test_folders_that_are_seldom_classes_get_a_warning(tmp_path, names):
    for name in names:
        for n in range(2):
            picture(tmp_path / name / f"x{name}{n}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert any("are read as classes" in problem.what for problem in dataset.problems)
    confirmed = dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders"))
    assert not any("are read as classes" in problem.what for problem in confirmed.problems)


def test_folders_of_formats_are_no_classes(tmp_path):
    for name in ("png", "jpg"):
        for n in range(2):
            photo(tmp_path / name / f"x{n}.{name}", n)
    with pytest.raises(DatasetError, match="several formats"):
        dataset_layouts.read_dataset(tmp_path)


# Names


def coco(path: Path, names: list[str]) -> None:
    images = [{"id": n, "file_name": name, "width": 20, "height": 10} for n, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 3, 3]} for n in range(len(names))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}))


def test_an_image_that_was_not_downloaded_is_not_that_of_another_part(tmp_path):
    for part, names in (("train", ("a.png", "b.png")), ("test", ("c.png", "d.png"))):
        picture(tmp_path / part / names[0], 1, (10, 20))
        coco(tmp_path / part / "_annotations.coco.json", list(names) if part == "train" else ["c.png"])
    picture(tmp_path / "test" / "b.png", 1, (10, 20))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.splits == {"a": "train", "c": "test"}
    assert any(problem.cases == ("b.png",) for problem in dataset.problems)


def test_names_are_one_however_their_letters_are_composed(tmp_path):
    rows = []
    for n, name in enumerate(("Müller", "Jörg", "Ana")):
        picture(tmp_path / "images" / f"{unicodedata.normalize('NFD', name)}.png", n)
        picture(tmp_path / "masks" / f"{unicodedata.normalize('NFC', name)}.png", 255)
        rows.append(f"images/{unicodedata.normalize('NFC', name)}.png,{n % 2}")
    assert len(dataset_layouts.read_dataset(tmp_path)) == 3
    listed = dataset_layouts.read_dataset(table(tmp_path / "list.csv", "image,label", rows))
    assert len(listed) == 3


def test_a_path_with_the_uid_of_a_series_names_its_image(tmp_path):
    rows = []
    for n in range(3):
        uid = f"1.3.6.1.4.1.9590.100.1.2.{n}34238619481126763660"
        picture(tmp_path / "jpeg" / uid / f"1-{n}63.jpg", n)
        begin = f"Mass-Training_P_0000{n}_LEFT_CC/1.3.6.1.4.1.9590.100.1.2.42211272{n}"
        rows.append(f"P_0000{n},{begin}/{uid}/000000.dcm,{'BENIGN' if n else 'MALIGNANT'}")
    table(tmp_path / "mass.csv", "patient_id,image file path,pathology", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.references["class"] for case in dataset] == ["MALIGNANT", "BENIGN", "BENIGN"]


def test_a_table_may_name_files_by_their_beginning(tmp_path):
    for n in range(18):
        picture(tmp_path / "AllPNG" / f"205869{n:02}_6c613a14b80a85{n // 2:02x}_MG_{'LR'[n % 2]}_CC_ANON.png", n)
    table(
        tmp_path / "INbreast.csv", "Patient ID;File Name;Bi-Rads", [f"removed;205869{n:02};{n % 3}" for n in range(18)]
    )
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "Bi-Rads"}))
    assert [case.references["class"] for case in dataset] == list("012") * 6
    assert len({case.patient for case in dataset}) == 9


def test_packed_files_and_spreadsheets_beside_images_are_named(tmp_path):
    for name in ("a", "b"):
        for n in range(2):
            picture(tmp_path / name / f"{name}{n}.png", n)
    (tmp_path / "test.zip").write_bytes(b"PK")
    (tmp_path / "people.xlsx").write_bytes(b"PK")
    [note] = dataset_layouts.read_dataset(tmp_path).problems
    assert (note.severity, "test.zip" in note.what, "people.xlsx" in note.what) == ("note", True, True)


# Two kinds of reference


def test_a_table_of_classes_beside_masks_is_not_read_where_masks_are_asked_for(tmp_path):
    for n in range(3):
        scan(tmp_path / f"s000{n}" / "ct.nii.gz", n)
        for name in ("liver", "spleen"):
            label_map(tmp_path / f"s000{n}" / "segmentations" / f"{name}.nii.gz")
    rows = [f"s000{n};{n + 50};{'test' if n else 'train'};tumor" for n in range(3)]
    table(tmp_path / "meta.csv", "image_id;age;split;pathology", rows)
    with pytest.raises(DatasetError, match="--task"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(kinds=frozenset({"mask"})))
    assert dataset.kinds == {"mask"}
    assert dataset.splits == {"s0000": "train", "s0001": "test", "s0002": "test"}
    assert dataset.cases[1].covariates == {"age": 51, "pathology": "tumor"}


def test_folders_that_only_the_test_part_has_are_no_classes(tmp_path):
    for place in ("train/benign", "train/malignant", "test/test"):
        for n in range(3):
            picture(tmp_path / place / f"{place[:7].replace('/', '')}{n}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["class"]] == ["benign", "malignant"]
    assert any("which no training image does" in problem.what for problem in dataset.problems)


def test_images_in_the_folder_of_diffusion_are_meant_where_masks_lie_on_their_grid(tmp_path):
    for n in range(1, 4):
        person = f"sub-strokecase000{n}"
        begin = tmp_path / person / "ses-0001"
        scan(begin / "anat" / f"{person}_ses-0001_FLAIR.nii.gz", n, (9, 9, 9))
        for kind in ("adc", "dwi"):
            scan(begin / "dwi" / f"{person}_ses-0001_{kind}.nii.gz", n)
        label_map(tmp_path / "derivatives" / person / "ses-0001" / f"{person}_ses-0001_msk.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [list(case.images) for case in dataset] == [["adc", "dwi"]] * 3
    assert any("FLAIR left out" in problem.what for problem in dataset.problems)
    new = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False, channels=2))
    assert [list(case.images) for case in new] == [["adc", "dwi"]] * 3
    (tmp_path / "sub-strokecase0001" / "ses-0001" / "dwi" / "sub-strokecase0001_ses-0001_dwi.bval").write_text("0")
    assert list(dataset_layouts.read_dataset(tmp_path).cases[0].images) == ["image"]
