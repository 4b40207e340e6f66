"""Images with a class, a value or an event: class folders, MedMNIST, tables."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import real_data
from cohorts import classed, picture, volume
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import class_labels
from hilum.layouts.layout import DatasetOptions


def names(dataset) -> list[str]:
    return [label.name for label in dataset.classes["class"]]


# Class folders


def test_folders_are_classes_in_order(tmp_path):
    dataset = dataset_layouts.read_dataset(classed(tmp_path))
    assert names(dataset) == ["benign", "malignant"]
    assert [case.references["class"] for case in dataset] == ["benign"] * 3 + ["malignant"] * 3
    assert dataset.kinds == {"class"}


def test_the_order_of_classes_may_be_said(tmp_path):
    classed(tmp_path)
    assert names(dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=malignant,1=benign"))) == [
        "malignant",
        "benign",
    ]
    with pytest.raises(UsageError, match="malignant"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=benign,1=other"))


@pytest.mark.parametrize("labels", ["0=benign 1=malignant", "benign,malignant", "0=benign,", "x=benign"])
def test_labels_that_are_not_number_and_name_are_wrong_use(tmp_path, labels):
    with pytest.raises(UsageError, match="Write 1=anterior,2=posterior"):
        dataset_layouts.read_dataset(classed(tmp_path), DatasetOptions(labels=labels))


def test_train_and_test_folders_above_are_the_sets_own_split(tmp_path):
    for split in ("train", "val", "test"):
        classed(tmp_path / split, 2)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert names(dataset) == ["benign", "malignant"]
    assert len(dataset) == 12
    assert sorted(set(dataset.splits.values())) == ["test", "train", "val"]


def test_a_class_called_test_is_no_split(tmp_path):
    for name in ("test", "control"):
        for n in range(3):
            picture(tmp_path / name / f"{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert names(dataset) == ["control", "test"]
    assert dataset.splits == {}


def test_folders_of_classes_may_lie_in_one_folder_of_images(tmp_path):
    classed(tmp_path / "images")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert names(dataset) == ["benign", "malignant"]
    assert [case.references["class"] for case in dataset] == ["benign"] * 3 + ["malignant"] * 3


def test_so_may_images_with_their_masks_next_to_them(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(3):
            picture(tmp_path / "images" / name / f"{name}{n}.png", n)
            picture(tmp_path / "images" / name / f"{name}{n}_mask.png", 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds, names(dataset)) == (6, {"mask", "class"}, ["benign", "malignant"])


def test_so_may_folders_of_cases_which_are_no_classes(tmp_path):
    for n in range(3):
        for name in ("t1", "t2", "seg"):
            volume(tmp_path / "images" / f"case{n}" / f"{name}.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds) == (3, {"mask"})
    assert [tuple(case.images) for case in dataset] == [("t1", "t2")] * 3


def test_folders_below_the_images_that_a_table_labels_are_no_classes(tmp_path):
    classed(tmp_path / "images")
    files = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "table.csv").write_text(
        "\n".join(["image,label", *(f"{name},{'xy'[n % 2]}" for n, name in enumerate(files))])
    )
    assert names(dataset_layouts.read_dataset(tmp_path)) == ["x", "y"]


def test_folders_of_persons_are_no_classes(tmp_path):
    for name in ("patient01", "patient02"):
        for n in range(3):
            picture(tmp_path / name / f"{n}.png")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert {case.patient for case in dataset} == {"patient01", "patient02"}
    assert "class" not in dataset.classes


@pytest.mark.parametrize(
    ("folders", "kind"), [(("001", "002"), "of patients"), (("t1", "t2"), "kinds of image"), (("0", "1"), None)]
)
def test_folders_that_may_be_patients_or_contrasts_are_classes_with_a_warning(tmp_path, folders, kind):
    for name in folders:
        for n in range(3):
            picture(tmp_path / name / f"{n}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert names(dataset) == list(folders)
    warned = [one.what for one in dataset.problems if one.severity == "warning"]
    assert len(warned) == (kind is not None)
    assert all(str(kind) in what for what in warned)
    assert dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders")).problems == ()


def test_images_in_no_class_folder_are_said(tmp_path):
    classed(tmp_path)
    picture(tmp_path / "loose.png")
    assert dataset_layouts.read_dataset(tmp_path).problems[0].severity == "note"


@pytest.mark.parametrize(("folder", "ill"), real_data.facts(shipped=5, corpus=96))
def test_real_radiographs_have_their_class_and_patient(folder, ill):
    dataset = dataset_layouts.read_dataset(folder / "chest_xray")
    assert names(dataset) == ["NORMAL", "PNEUMONIA"]
    assert sum(case.references["class"] == "PNEUMONIA" for case in dataset) == ill


# MedMNIST


@pytest.mark.parametrize(
    ("folder", "sizes_of_parts"),
    real_data.facts(shipped={"train": 310, "val": 68, "test": 100}, corpus={"train": 4708, "val": 524, "test": 624}),
)
def test_pneumonia_rows_are_the_archives_rows(folder, sizes_of_parts):
    path = folder / "medmnist" / "pneumoniamnist.npz"
    dataset = dataset_layouts.read_dataset(path)
    with np.load(path) as archive:
        assert_array_equal(dataset.cases[12].images["image"].data, archive["train_images"][12][None])
        assert dataset.cases[12].references["class"] == str(archive["train_labels"][12, 0])
    assert dataset.cases[12].id == "train_00012"
    assert pd.Series(dataset.splits).value_counts().to_dict() == sizes_of_parts
    assert names(dataset) == ["0", "1"]


def test_rows_of_colour_and_of_volumes_are_told_apart(data):
    colour = dataset_layouts.read_dataset(data / "medmnist" / "retinamnist.npz").cases[0].images["image"]
    solid = dataset_layouts.read_dataset(data / "medmnist" / "adrenalmnist3d.npz").cases[0].images["image"]
    assert (colour.channels, colour.geometry.shape) == (("R", "G", "B"), (28, 28))
    assert (solid.shape, solid.geometry.shape) == ((1, 28, 28, 28), (28, 28, 28))


def test_class_numbers_may_get_names(data):
    dataset = dataset_layouts.read_dataset(
        data / "medmnist" / "adrenalmnist3d.npz", DatasetOptions(labels="0=normal,1=hyperplasia")
    )
    assert names(dataset) == ["normal", "hyperplasia"]
    assert dataset.cases[0].references["class"] in names(dataset)


def test_rows_have_their_own_hash(data):
    first, second = dataset_layouts.read_dataset(data / "medmnist" / "adrenalmnist3d.npz").cases[:2]
    assert hashing.content_hash(first) != hashing.content_hash(second)


def test_a_folder_of_several_archives_is_ambiguous(data):
    with pytest.raises(DatasetError, match="one of the files"):
        dataset_layouts.read_dataset(data / "medmnist")


def test_archives_that_are_no_medmnist_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(DatasetError, match="train_images"):
        dataset_layouts.read_dataset(tmp_path / "other.npz")
    whole = (tmp_path / "other.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cut"):
        dataset_layouts.read_dataset(tmp_path / "cut.npz")
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "many.npz", train_images=images, train_labels=np.full((3, 14), 2))
    with pytest.raises(DatasetError, match="14 labels at once, and some are neither 0 nor 1"):
        dataset_layouts.read_dataset(tmp_path / "many.npz")
    np.savez(tmp_path / "short.npz", train_images=images, train_labels=np.zeros((2, 1), int))
    with pytest.raises(DatasetError, match="2 labels"):
        dataset_layouts.read_dataset(tmp_path / "short.npz")


def test_an_archive_with_several_labels_an_image_has_findings(tmp_path):
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([[1, 0], [0, 0], [1, 1]], np.uint8)
    np.savez(tmp_path / "chest.npz", train_images=images, train_labels=labels, val_images=images, val_labels=labels)
    dataset = dataset_layouts.read_dataset(tmp_path / "chest.npz", DatasetOptions(labels="0=effusion,1=nodule"))
    assert dataset.kinds == {"findings"}
    assert [label.name for label in dataset.classes["findings"]] == ["effusion", "nodule"]
    assert dataset.cases[0].references["findings"] == {"effusion": True, "nodule": False}
    assert dataset.cases[1].references["findings"] == {"effusion": False, "nodule": False}
    unnamed = dataset_layouts.read_dataset(tmp_path / "chest.npz")
    assert unnamed.cases[5].references["findings"] == {"0": True, "1": True}
    np.savez(
        tmp_path / "torn.npz", train_images=images, train_labels=labels, val_images=images, val_labels=labels[:, :1]
    )
    with pytest.raises(DatasetError, match=r"\[1, 2\] labels an image"):
        dataset_layouts.read_dataset(tmp_path / "torn.npz")


# Tables


def manifest(root, text: str, name: str = "cases.csv"):
    for n in range(3):
        picture(root / "pictures" / f"{n}.png", n)
        picture(root / "contoured" / f"{n}.png", 255)
    (root / name).write_text(text)
    return root / name


def test_a_table_says_what_belongs_together(tmp_path):
    rows = [
        f"pictures/{n}.png,contoured/{n}.png,{'ab'[n % 2]},P{n // 2},{'train' if n else 'test'},{30 + n}"
        for n in range(3)
    ]
    path = manifest(tmp_path, "\n".join(["image,mask,label,patient,split,age", *rows]))
    dataset = dataset_layouts.read_dataset(path)
    assert dataset.kinds == {"class", "mask"}
    assert [case.patient for case in dataset] == ["P0", "P0", "P1"]
    assert dataset.splits == {"0": "test", "1": "train", "2": "train"}
    assert dataset.cases[2].covariates == {"age": 32}
    assert dataset.cases[2].images["image"].data.max() == 2
    assert class_labels.observed_values(dataset.cases[2]) == (1,)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_tables_of_every_kind_are_read(tmp_path, kind):
    manifest(tmp_path, "")
    table = pd.DataFrame({"file": [f"pictures/{n}.png" for n in range(3)], "grade": ["low", "high", "low"]})
    path = tmp_path / f"cases.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(column={"label": "grade"}))
    assert names(dataset) == ["low", "high"]


def test_several_image_columns_are_channels_in_order(tmp_path):
    path = manifest(tmp_path, "post,pre,label\npictures/0.png,pictures/1.png,a\npictures/2.png,pictures/0.png,b\n")
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(column={"image:pre": "pre", "image:post": "post"}))
    assert list(dataset.cases[0].images) == ["pre", "post"]
    assert [image.data.max() for image in dataset.cases[0].images.values()] == [1, 0]


def test_a_table_without_a_truth_is_for_prediction_only(tmp_path):
    path = manifest(tmp_path, "image,grade\npictures/0.png,high\n")
    with pytest.raises(DatasetError, match="--column label"):
        dataset_layouts.read_dataset(path)
    assert len(dataset_layouts.read_dataset(path, DatasetOptions(references=False))) == 1


def test_rows_whose_files_are_missing_are_said_and_left_out(tmp_path):
    path = manifest(tmp_path, "image,label\npictures/0.png,a\npictures/9.png,b\n")
    dataset = dataset_layouts.read_dataset(path)
    assert len(dataset) == 1
    assert (dataset.problems[0].severity, dataset.problems[0].cases) == ("error", ("9",))


def test_a_column_that_lists_findings_says_of_each_whether_it_is_there(tmp_path):
    text = "image,Finding Labels\npictures/0.png,Mass|Hernia\npictures/1.png,No Finding\npictures/2.png,\n"
    dataset = dataset_layouts.read_dataset(
        manifest(tmp_path, text), DatasetOptions(column={"findings": "Finding Labels"})
    )
    assert [label.name for label in dataset.classes["findings"]] == ["Hernia", "Mass"]
    assert [case.references["findings"] for case in dataset] == [
        {"Hernia": True, "Mass": True},
        {"Hernia": False, "Mass": False},
    ]
    listing, unlabelled = dataset.problems
    assert listing.what == "findings in column Finding Labels are separated by |: 1 of 2 cells list several"
    assert "1 of 3 images without a label" in unlabelled.what


def test_columns_of_findings_keep_their_order_and_their_blanks(tmp_path):
    text = "image,N,E\npictures/0.png,1,0\npictures/1.png,,1\npictures/2.png,0,\n"
    dataset = dataset_layouts.read_dataset(
        manifest(tmp_path, text), DatasetOptions(column={"finding:nodule": "N", "finding:effusion": "E"})
    )
    assert [label.name for label in dataset.classes["findings"]] == ["nodule", "effusion"]
    assert dataset.cases[1].references["findings"] == {"effusion": True}


def test_paths_that_lead_out_of_the_folder_are_refused_unless_written_in_full(tmp_path):
    outside = picture(tmp_path / "outside.png", 9)
    path = manifest(tmp_path / "set", "image,label\n../outside.png,a\n")
    with pytest.raises(DatasetError, match="outside its folder"):
        dataset_layouts.read_dataset(path)
    path.write_text(f"image,label\n{outside},a\n")
    assert dataset_layouts.read_dataset(path).cases[0].images["image"].data.max() == 9


@pytest.mark.parametrize(
    ("column", "problem"), [({"picture": "image"}, "no role"), ({"label": "nothing"}, "no column")]
)
def test_columns_that_are_not_there_are_wrong_use(tmp_path, column, problem):
    path = manifest(tmp_path, "image,label\npictures/0.png,a\n")
    with pytest.raises(UsageError, match=problem):
        dataset_layouts.read_dataset(path, DatasetOptions(column=column))


def test_empty_and_damaged_tables_are_refused(tmp_path):
    path = manifest(tmp_path, "image,label\n")
    with pytest.raises(DatasetError, match="no rows"):
        dataset_layouts.read_dataset(path)
    path.write_bytes(b"\xff\xfe\x00\x01,\x80\n")
    with pytest.raises(DatasetError, match="table"):
        dataset_layouts.read_dataset(path)


def test_codes_that_begin_with_zero_stay_text(tmp_path):
    path = manifest(tmp_path, "image,label,patient\npictures/0.png,a,007\npictures/1.png,b,07\npictures/2.png,b,7\n")
    assert [case.patient for case in dataset_layouts.read_dataset(path)] == ["007", "07", "7"]


def test_a_row_without_a_patient_stands_for_itself(tmp_path):
    path = manifest(tmp_path, "image,label,patient\npictures/0.png,a,P\npictures/1.png,b,\npictures/2.png,b,\n")
    dataset = dataset_layouts.read_dataset(path)
    assert len({case.patient for case in dataset}) == 3
    assert "2 cases without one" in dataset.patients


def test_what_a_row_says_is_part_of_the_cases_hash(tmp_path):
    path = manifest(tmp_path, "image,label\npictures/0.png,a\n")
    before = hashing.content_hash(dataset_layouts.read_dataset(path).cases[0])
    path.write_text("image,label\npictures/0.png,b\n")
    assert hashing.content_hash(dataset_layouts.read_dataset(path).cases[0]) != before


def test_the_clinical_table_of_real_radiographs_is_read(corpus):
    dataset = dataset_layouts.read_dataset(
        corpus / "multimodal", DatasetOptions(column={"image": "filename", "label": "finding"})
    )
    assert "COVID-19, ARDS" in names(dataset)  # a comma inside a cell
    sexes = [case.covariates["sex"] for case in dataset]
    assert (sexes.count("M"), sexes.count("F"), sexes.count(None)) == (47, 37, 8)
    assert sum(case.covariates["age"] is None for case in dataset) == 9
    assert all("patientid" not in case.covariates for case in dataset)
    assert (dataset.modality, dataset.cases[0].images["image"].modality) == ("DX", "DX")


def test_a_table_without_images_is_legal(corpus):
    column = {"time": "Survival.time", "event": "deadstatus.event"}
    dataset = dataset_layouts.read_dataset(corpus / "survival" / "clinical.csv", DatasetOptions(column=column))
    events = [case.references["event"] for case in dataset]
    assert sum(happened for _, happened in events) == 272
    assert events[0] == (2165.0, True)
    assert sum(case.covariates["age"] is None for case in dataset) == 17
    assert len(dataset.cases[0].images) == 0
    values = dataset_layouts.read_dataset(
        corpus / "survival" / "radiomics.csv", DatasetOptions(column={"value": "original_shape_Elongation"})
    )
    assert values.cases[0].references["value"] == pytest.approx({"original_shape_Elongation": 0.732896})


def test_the_one_column_whose_cells_are_files_names_the_images(tmp_path):
    rows = [f"pictures/{n}.png,{'ab'[n % 2]}" for n in range(3)]
    path = manifest(tmp_path, "\n".join(["scan,label", *rows]))
    for place in (path, tmp_path):
        dataset = dataset_layouts.read_dataset(place, DatasetOptions(layout="manifest"))
        assert [sorted(case.images) for case in dataset] == [["image"]] * 3
        assert dataset.columns == {"image:image": "scan", "label": "label"}
    shutil.rmtree(tmp_path / "contoured")
    path.write_text("\n".join(["scan,label", *(row.removeprefix("pictures/") for row in rows)]))
    assert len(dataset_layouts.read_dataset(path).cases) == 3  # in the one folder with images


def test_two_columns_of_files_that_nobody_named_are_ambiguous(tmp_path):
    rows = [f"pictures/{n}.png,contoured/{n}.png" for n in range(3)]
    path = manifest(tmp_path, "\n".join(["scan,outline", *rows]))
    with pytest.raises(DatasetError, match=r"columns scan, outline name files.*--column image=scan,mask=outline"):
        dataset_layouts.read_dataset(path)
    assert (
        dataset_layouts.read_dataset(path, DatasetOptions(column={"mask": "outline"})).columns["image:image"] == "scan"
    )


@pytest.mark.parametrize("name", ["pictures/\0.png", "x" * 5000, "/".join(["x" * 200] * 30), "ü" * 200 + ".png"])
def test_a_name_that_no_file_can_bear_is_refused_in_one_line(tmp_path, name):
    path = manifest(tmp_path, f"image,label\npictures/0.png,a\n{name},b\n")
    with pytest.raises(DatasetError, match=r"column image holds .* names no file") as refused:
        dataset_layouts.read_dataset(path)
    assert len(str(refused.value)) < 400
    assert refused.value.where == str(path)


def test_several_columns_may_hold_values_each_under_its_own_name_and_blanks_are_absent(tmp_path):
    text = "image,volume_mm3,age (years),weight\npictures/0.png,3312.5,61,\npictures/1.png,,47,80\npictures/2.png,,,\n"
    column = {"value:volume": "volume_mm3", "value:age": "age (years)"}
    dataset = dataset_layouts.read_dataset(manifest(tmp_path, text), DatasetOptions(column=column))
    assert [case.references["value"] for case in dataset] == [{"volume": 3312.5, "age": 61.0}, {"age": 47.0}]
    assert dataset.kinds == {"value"}
    assert dataset.columns == {"image:image": "image", "value:volume": "volume_mm3", "value:age": "age (years)"}
    assert dataset.cases[1].covariates == {"weight": 80}
    [problem] = dataset.problems
    assert (problem.severity, problem.cases) == ("warning", ("2",))


def test_one_column_of_values_has_its_own_name(tmp_path):
    path = manifest(tmp_path, "image,volume_mm3\npictures/0.png,0\npictures/1.png,-2e3\n")
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(column={"value": "volume_mm3"}))
    assert [case.references["value"] for case in dataset] == [{"volume_mm3": 0.0}, {"volume_mm3": -2000.0}]
    assert dataset.columns["value:volume_mm3"] == "volume_mm3"


@pytest.mark.parametrize("cell", ["12 ml", "3;5", "three", "inf"])
def test_a_value_that_is_no_number_is_refused_and_no_blank(tmp_path, cell):
    text = f"image,volume\npictures/0.png,1.5\npictures/1.png,{cell}\n"
    with pytest.raises(DatasetError, match=rf"column volume holds .*{cell}.*without its unit"):
        dataset_layouts.read_dataset(manifest(tmp_path, text), DatasetOptions(column={"value:volume": "volume"}))


@pytest.mark.parametrize(("word", "happened"), [("dead", True), ("1", True), ("Alive", False), ("censored", False)])
def test_an_event_is_said_in_the_words_of_the_field(tmp_path, word, happened):
    path = manifest(tmp_path, f"image,days,died\npictures/0.png,12.5,{word}\n")
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(column={"time": "days", "event": "died"}))
    assert dataset.cases[0].references["event"] == (12.5, happened)


def test_a_case_without_its_time_or_its_event_has_no_such_reference(tmp_path):
    path = manifest(tmp_path, "image,days,died\npictures/0.png,,1\npictures/1.png,3,\npictures/2.png,4,0\n")
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(column={"time": "days", "event": "died"}))
    assert [(case.id, dict(case.references)) for case in dataset] == [("2", {"event": (4.0, False)})]


@pytest.mark.parametrize(
    ("days", "died", "match"), [("3", "2", "neither yes nor no"), ("3 months", "1", "not a number")]
)
def test_an_event_that_is_neither_yes_nor_no_and_a_time_in_words_are_refused(tmp_path, days, died, match):
    path = manifest(tmp_path, f"image,days,died\npictures/0.png,{days},{died}\n")
    with pytest.raises(DatasetError, match=match):
        dataset_layouts.read_dataset(path, DatasetOptions(column={"time": "days", "event": "died"}))


def test_two_tables_and_nothing_else_are_ambiguous(tmp_path):
    for name in ("clinical.csv", "radiomics.csv"):
        (tmp_path / name).write_text("patient,days,died\nP0,12,1\nP1,30,0\n")
    with pytest.raises(DatasetError, match=r"clinical\.csv"):
        dataset_layouts.read_dataset(tmp_path)


def test_masks_of_a_table_may_be_volumes(tmp_path):
    volume(tmp_path / "i.nii.gz")
    volume(tmp_path / "m.nii.gz", np.full((4, 5, 6), 2, np.uint8))
    (tmp_path / "cases.csv").write_text("image,mask\ni.nii.gz,m.nii.gz\n")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="manifest", labels="2=tumour"))
    assert class_labels.observed_values(dataset.cases[0]) == (2,)
    assert dataset.cases[0].references["mask"].labels[0].name == "tumour"


def test_classes_that_one_folder_holds_once_more_are_no_third_class(tmp_path):
    """As in a published archive of MR of tumours: yes/, no/ and brain_tumor_dataset/yes, brain_tumor_dataset/no."""
    for place in ("yes", "no", "copy/yes", "copy/no"):
        for n in range(2):
            picture(tmp_path / place / f"{place[-1]}{n}.png", n)
    with pytest.raises(DatasetError, match="the folder copy holds no, yes too"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path / "copy")) == 4


def test_folders_of_masks_by_somebody_beside_one_of_images_are_no_classes(tmp_path):
    """As in STARE."""
    for place, end in (("stare-images", ""), ("labels-ah", ".ah"), ("labels-vk", ".vk")):
        for n in range(3):
            picture(tmp_path / place / f"im{n}{end}.png", n)
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


@pytest.mark.parametrize(("names", "classes"), [(("IMD002", "IMD003", "IMD004"), 0), (("KL0", "KL1", "KL2"), 3)])
def test_folders_that_are_numbered_as_cases_are_no_classes(tmp_path, names, classes):
    for name in names:
        for n in range(3):
            picture(tmp_path / name / f"{name}_dermoscopic" / f"{name}_{n}.png", n)
    if classes:
        assert len(dataset_layouts.read_dataset(tmp_path).classes["class"]) == classes
        return
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders")).classes["class"]) == 3


def test_folders_of_the_same_names_in_each_class_are_warned_of(tmp_path):
    for organ in ("lung", "colon"):
        for state in ("benign", "malignant"):
            for n in range(2):
                picture(tmp_path / organ / state / f"{organ}{state}{n}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["class"]] == ["colon", "lung"]
    [problem] = [one for one in dataset.problems if "in each class" in one.what]
    assert (problem.severity, "benign, malignant" in problem.what) == ("warning", True)


def test_a_rule_finds_the_class_in_names_of_files_and_of_folders(tmp_path):
    for n in range(4):
        picture(tmp_path / f"scan_{n}_{['benign', 'malignant'][n % 2]}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(class_rule=r"_([a-z]+)$"))
    assert {case.id: case.references["class"] for case in dataset} == {
        f"scan_{n}_{name}": name for n, name in enumerate(["benign", "malignant"] * 2)
    }
    assert [label.name for label in dataset.classes["class"]] == ["benign", "malignant"]
    assert "classes by --class-rule _([a-z]+)$" in dataset.layout
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(class_rule="_x_", references=False))) == 4


def test_a_rule_for_studies_of_patients_keeps_their_patients_and_parts(tmp_path):
    """As in MURA."""
    for n in range(8):
        word = ["negative", "positive"][n % 2]
        part = "train" if n < 4 else "valid"
        picture(tmp_path / part / "XR_HAND" / f"patient{n // 2:05}" / f"study{n % 2}_{word}" / "image1.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(class_rule=r"study\d+_(negative|positive)"))
    assert [case.references["class"] for case in dataset] == ["negative", "positive"] * 4
    assert len({case.patient for case in dataset}) == 4
    assert sorted(dataset.splits.values()) == ["train"] * 4 + ["val"] * 4


def test_a_rule_takes_the_place_of_classes_by_folders(tmp_path):
    for n in range(8):
        picture(tmp_path / ["north", "south"][n // 4] / f"{n}_{n % 2}.png", n)
    assert [label.name for label in dataset_layouts.read_dataset(tmp_path).classes["class"]] == ["north", "south"]
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(class_rule=r"_(\d)$", labels="0=well,1=ill"))
    assert [case.references["class"] for case in dataset] == ["well", "ill"] * 4


@pytest.mark.parametrize(("rule", "problem"), [("_(", "is not a regular"), ("_(b)$", "finds no class in 1 of 2")])
def test_a_rule_that_is_wrong_or_does_not_fit_every_name_is_refused(tmp_path, rule, problem):
    for name in ("1_a", "2_b"):
        picture(tmp_path / f"{name}.png")
    with pytest.raises(UsageError, match=problem) as refused:
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(class_rule=rule))
    assert refused.value.where == f"--class-rule {rule}"


def test_cases_of_one_name_get_numbers_with_which_no_other_is_called(tmp_path):
    for number, name in enumerate(("dark/x.jpg", "dark/x.png", "dark/x_1.png", "dark/x_3.png", "bright/y.png")):
        picture(tmp_path / name, number)
    dataset = dataset_layouts.read_dataset(tmp_path)
    names = {case.id: case.files[0].name for case in dataset}
    assert names == {
        "bright-y": "y.png",
        "dark-x_2": "x.jpg",
        "dark-x_4": "x.png",
        "dark-x_1": "x_1.png",
        "dark-x_3": "x_3.png",
    }
