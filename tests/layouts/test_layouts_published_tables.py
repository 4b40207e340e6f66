"""Tables of labels as published sets have them: whose the images are, and what is not known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cohorts import picture, table
from hilum.errors import DatasetError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions


def radiographs(root: Path, uncertain: str = "-1.0") -> Path:
    """As in CheXpert: two views of each patient, findings of 1, 0, -1 or nothing, and paths from the folder above."""
    rows = []
    for n in range(6):
        for view in ("view1_frontal", "view2_lateral"):
            path = f"CheXpert/train/patient{n:05}/study1/{view}.png"
            picture(root / path, n)
            rows.append(f"{path},Female,{n % 2}.0,{uncertain if n == 1 else '0.0' if n % 2 else '1.0'},")
    table(root / "CheXpert" / "train.csv", "Path,Sex,Cardiomegaly,Edema,Fracture", rows)
    return root


def test_folders_on_the_way_to_the_images_of_a_table_say_whose_they_are(tmp_path):
    columns = {"finding:Cardiomegaly": "Cardiomegaly", "finding:Edema": "Edema"}
    dataset = dataset_layouts.read_dataset(radiographs(tmp_path), DatasetOptions(column=columns))
    assert dataset.patients_known
    assert [case.patient for case in dataset] == [f"patient{n // 2:05}" for n in range(12)]
    assert len({case.id for case in dataset}) == 12


def test_minus_one_beside_zero_and_one_is_a_finding_that_is_not_known(tmp_path):
    columns = {"finding:Cardiomegaly": "Cardiomegaly", "finding:Edema": "Edema"}
    dataset = dataset_layouts.read_dataset(radiographs(tmp_path), DatasetOptions(column=columns))
    assert dataset.cases[2].references["findings"] == {"Cardiomegaly": True}
    assert dataset.cases[6].references["findings"] == {"Cardiomegaly": True, "Edema": False}
    assert ["Edema: 2" in problem.what for problem in dataset.problems] == [True]
    with pytest.raises(DatasetError, match=r"column Edema holds '\?', neither yes nor no"):
        dataset_layouts.read_dataset(radiographs(tmp_path, "?"), DatasetOptions(column=columns))


def test_minus_one_and_one_alone_may_be_no_and_yes(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    table(tmp_path / "t.csv", "image,edema", ["a.png,-1", "b.png,1"])
    with pytest.raises(DatasetError, match="column edema holds -1, neither"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"finding:edema": "edema"}))


def test_where_columns_hold_findings_the_error_says_how_to_name_them(tmp_path):
    with pytest.raises(DatasetError, match="no column has labels") as refused:
        dataset_layouts.read_dataset(radiographs(tmp_path))
    assert "finding:Cardiomegaly=Cardiomegaly,finding:Edema=Edema and so on" in refused.value.remedy


def test_an_image_in_several_rows_is_one_case_and_must_not_be_called_differently(tmp_path):
    for n in range(3):
        picture(tmp_path / f"p{n}.png", n)
    table(tmp_path / "labels.csv", "image,label", ["p0.png,a", "p1.png,b", "p2.png,b", "p0.png,a"])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["p0", "p1", "p2"]
    assert any("1 row names files that an earlier row names too" in problem.what for problem in dataset.problems)
    table(tmp_path / "labels.csv", "image,label,reader", ["p0.png,a,1", "p1.png,b,1", "p0.png,b,2"])
    with pytest.raises(DatasetError, match=r"several rows name p0\.png, and state a different class"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 2  # images to predict


def test_a_table_of_patients_beside_one_of_labels_says_whose_the_images_are(tmp_path):
    for n in range(6):
        picture(tmp_path / f"p{n}.png", n)
    table(tmp_path / "labels.csv", "image,label", [f"p{n}.png,{n % 2}" for n in range(6)])
    table(tmp_path / "people.csv", "image,patient,age", [f"p{n}.png,Z{n // 2},{50 + n}" for n in range(6)])
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == [f"Z{n // 2}" for n in range(6)]
    assert dataset.cases[1].covariates == {"age": 51}
    assert not any("people.csv" in problem.what for problem in dataset.problems)
    # One that holds further labels is not joined: they would be covariates.
    table(tmp_path / "people.csv", "image,patient,diagnosis", [f"p{n}.png,Z{n // 2},{n % 2}" for n in range(6)])
    with pytest.raises(DatasetError, match=r"tables are labels\.csv, people\.csv"):
        dataset_layouts.read_dataset(tmp_path)


def test_masks_as_runs_in_a_table_are_refused_with_what_can_be_read(tmp_path):
    picture(tmp_path / "p0.png")
    table(tmp_path / "train.csv", "ImageId,EncodedPixels", ["p0.png,1 3 50 4"])
    with pytest.raises(DatasetError) as refused:
        dataset_layouts.read_dataset(tmp_path)
    assert "EncodedPixels holds runs of pixels" in refused.value.remedy


def test_a_table_may_name_clips_without_their_suffix_and_is_chosen_by_the_columns_that_are_named(data, tmp_path):
    """As in EchoNet-Dynamic."""
    (tmp_path / "Videos").mkdir()
    for n in range(3):
        writer = cv2.VideoWriter(str(tmp_path / "Videos" / f"0X{n}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (48, 40))
        for value in range(4):
            writer.write(np.full((40, 48, 3), 40 * value + n, np.uint8))
        writer.release()
    table(tmp_path / "FileList.csv", "FileName,EF,Split", ["0X0,50.5,TRAIN", "0X1,60.5,TRAIN", "0X2,40.5,TEST"])
    table(tmp_path / "VolumeTracings.csv", "FileName,X1,Y1,Frame", ["0X0.avi,1,2,3", "0X1.avi,1,2,3"])
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"value": "EF"}))
    assert [case.references["value"] for case in dataset] == [{"EF": 50.5}, {"EF": 60.5}, {"EF": 40.5}]
    assert dataset.splits == {"0X0": "train", "0X1": "train", "0X2": "test"}
    assert dataset.cases[1].images["image"].frames == 4
    for folder in (tmp_path, tmp_path / "Videos"):
        assert len(dataset_layouts.read_dataset(folder, DatasetOptions(references=False))) == 3


@pytest.mark.parametrize(("column", "what"), [("lesion_id", "lesion"), ("Accession Number", "examination")])
def test_images_of_one_lesion_or_examination_stay_together_where_no_patient_is_known(tmp_path, column, what):
    """As in HAM10000, where a lesion has several photographs."""
    for n in range(8):
        picture(tmp_path / "part_1" / f"ISIC_00{n}.jpg", n)
    rows = [f"H{n // 2},ISIC_00{n},{'mel' if n < 4 else 'nv'}" for n in range(8)]
    table(tmp_path / "metadata.csv", f"{column},image_id,dx", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == [f"{what}-H{n // 2}" for n in range(8)]
    assert not dataset.patients_known
    assert f"those of one {what}" in dataset.patients
    table(tmp_path / "metadata.csv", f"{column},patient_id,image_id,dx", [f"H0,P{n},ISIC_00{n},nv" for n in range(8)])
    assert [case.patient for case in dataset_layouts.read_dataset(tmp_path)] == [f"P{n}" for n in range(8)]


def test_a_column_of_clinical_studies_keeps_nothing_together(tmp_path):
    for n in range(42):
        picture(tmp_path / f"x{n}.png", n)
    rows = [f"trial {n % 2},x{n},{'mel' if n < 4 else 'nv'}" for n in range(42)]
    table(tmp_path / "metadata.csv", "study_id,image_id,dx", rows)
    assert len({case.patient for case in dataset_layouts.read_dataset(tmp_path)}) == 42


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([f"p{n}.png,{'ab'[n % 2]}" for n in range(6)], "image, label"),
        ([f"p{n},{'ab'[n % 2]}" for n in range(6)], "image, label"),
        ([f"{'ab'[n % 2]};p{n}.png" for n in range(6)], "label, image"),
    ],
)
def test_a_table_without_a_header_loses_no_case(tmp_path, rows, columns):
    for n in range(6):
        picture(tmp_path / "images" / f"p{n}.png", n)
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: case.references["class"] for case in dataset} == {f"p{n}": "ab"[n % 2] for n in range(6)}
    assert [label.name for label in dataset.classes["class"]] == ["a", "b"]
    assert f"the first line of labels.csv is a case: its columns are called {columns}" in {
        problem.what for problem in dataset.problems
    }


def test_columns_of_a_table_without_a_header_are_named_by_hand_where_more_than_one_may_be_meant(tmp_path):
    for n in range(6):
        picture(tmp_path / f"p{n}.png", n)
    (tmp_path / "labels.csv").write_text("".join(f"p{n}.png,{n % 2},Z{n // 2}\n" for n in range(6)))
    with pytest.raises(DatasetError, match=r"columns: image, column_2, column_3.*label=column_2"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(
        tmp_path, DatasetOptions(column={"label": "column_2", "patient": "column_3"})
    )
    assert [case.patient for case in dataset] == [f"Z{n // 2}" for n in range(6)]


@pytest.mark.parametrize("header", ["T1,label", "id1,label"])
def test_a_header_with_a_number_stays_a_header(tmp_path, header):
    for n in range(4):
        picture(tmp_path / f"p{n}.png", n)
    table(tmp_path / "labels.csv", header, [f"p{n}.png,{n % 2}" for n in range(4)])
    assert len(dataset_layouts.read_dataset(tmp_path)) == 4


def test_boxes_in_a_table_without_a_header_are_those_of_keras_retinanet(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"p{n}.png", n, shape=(60, 80))
    rows = ["images/p0.png,1,2,11,22,cell", "images/p0.png,30,5,50,25,blob", "images/p1.png,,,,,"]
    (tmp_path / "annotations.csv").write_text("\n".join([*rows, "images/p2.png,3,4,20,30,cell"]))
    cases = {case.id.rpartition("/")[2]: case for case in dataset_layouts.read_dataset(tmp_path)}
    assert [len(cases[f"p{n}"].references["boxes"]) for n in range(3)] == [2, 0, 1]
    assert "p3" not in cases  # it has no row, so that nobody looked for boxes


@pytest.mark.parametrize("between", [" ", "\t", ","])
@pytest.mark.parametrize("header", ["", "filename{}label\n"])
def test_text_files_that_name_an_image_and_its_class_in_each_line_are_tables_of_their_parts(tmp_path, between, header):
    for n in range(8):
        picture(tmp_path / "images" / f"p{n}.png", n)
    for part, numbers in (("train", range(5)), ("test", range(5, 8))):
        lines = "".join(f"images/p{n}.png{between}{n % 2}\n" for n in numbers)
        (tmp_path / f"{part}.txt").write_text(header.format(between) + lines)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: case.references["class"] for case in dataset} == {f"p{n}": str(n % 2) for n in range(8)}
    assert dataset.splits == {f"p{n}": "train" if n < 5 else "test" for n in range(8)}


def test_a_list_as_of_covidx_names_people_and_sources_beside_images_that_lie_in_folders_of_parts(tmp_path):
    for part, count in (("train", 6), ("test", 4)):
        lines = [f"{part}{n // 2} {part}-{n}.png {('no', 'yes')[n // 2 % 2]} cohen" for n in range(count)]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines))
        for n in range(count):
            picture(tmp_path / part / f"{part}-{n}.png", n)
    with pytest.raises(DatasetError, match=r"test.txt has the columns column_1, image, column_3.*label=column_"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(
        tmp_path, DatasetOptions(column={"label": "column_3", "patient": "column_1"})
    )
    assert len(dataset) == 10 and len({case.patient for case in dataset}) == 5
    assert {(case.patient[:-1], dataset.splits[case.id]) for case in dataset} == {("train",) * 2, ("test",) * 2}
    assert {case.references["class"] for case in dataset if case.patient == "train1"} == {"yes"}


def test_a_part_of_one_class_alone_is_joined_too(tmp_path):
    for n in range(8):
        picture(tmp_path / f"p{n}.png", n)
    (tmp_path / "train.txt").write_text("".join(f"p{n}.png {n % 2}\n" for n in range(5)))
    (tmp_path / "test.txt").write_text("".join(f"p{n}.png 0\n" for n in range(5, 8)))
    assert [*dataset_layouts.read_dataset(tmp_path).splits.values()].count("test") == 3


def test_a_text_file_of_labels_may_be_called_as_one_of_names_of_values(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"p{n}.png", n)
    (tmp_path / "labels.txt").write_text("".join(f"p{n}.png\t{('fine', 'ill')[n % 2]}\n" for n in range(4)))
    assert {case.references["class"] for case in dataset_layouts.read_dataset(tmp_path)} == {"fine", "ill"}
    assert {case.references["class"] for case in dataset_layouts.read_dataset(tmp_path / "labels.txt")} == {
        "fine",
        "ill",
    }
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 4


def test_text_files_do_not_replace_the_classes_and_masks_that_folders_hold(tmp_path):
    for n in range(6):
        picture(tmp_path / "classes" / "ab"[n % 2] / f"p{n}.png", n)
        image = picture(tmp_path / "contoured" / "images" / f"p{n}.png", n)
        cv2.imwrite(str(picture(image.parent.parent / "masks" / image.name)), np.eye(5, 4) * 255)
    (tmp_path / "classes" / "list.txt").write_text("".join(f"{'ab'[n % 2]}/p{n}.png {n % 2}\n" for n in range(6)))
    assert {case.references["class"] for case in dataset_layouts.read_dataset(tmp_path / "classes")} == {"a", "b"}
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        lines = "".join(f"images/p{n}.png masks/p{n}.png\n" for n in numbers)
        (tmp_path / "contoured" / f"{part}.txt").write_text(lines)
    dataset = dataset_layouts.read_dataset(tmp_path / "contoured")
    assert all("mask" in case.references for case in dataset) and [*dataset.splits.values()].count("test") == 2


def test_tables_of_parts_are_joined_by_the_column_of_labels_that_is_named(tmp_path):
    for part, count in (("train", 6), ("test", 4)):
        for n in range(count):
            picture(tmp_path / part / f"{part}-{n}.png", n)
        table(tmp_path / f"{part}.csv", "image_id,grade", [f"{part}-{n},{n % 2}" for n in range(count)])
    with pytest.raises(DatasetError, match=r"test.csv has the columns image_id, grade.*label=grade"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "grade"}))
    assert len(dataset) == 10 and [*dataset.splits.values()].count("test") == 4


def test_a_row_of_an_image_that_was_not_downloaded_is_not_that_of_another_with_the_same_end(tmp_path):
    """Of CheXpert most have a part: patient00001 is the only one here with a lateral view."""
    radiographs(tmp_path)
    for path in tmp_path.rglob("view2_lateral.png"):
        if path.parent.parent.name != "patient00001":
            path.unlink()
    columns = {"finding:Cardiomegaly": "Cardiomegaly"}
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column=columns))
    assert len(dataset) == 7
    assert [case.references["findings"]["Cardiomegaly"] for case in dataset if case.patient == "patient00001"] == [
        True
    ] * 2
    (tmp_path / "CheXpert" / "train.csv").unlink()
    rows = [f"CheXpert/train/patient0000{n}/study1/view1_frontal.png,{n % 2}" for n in (0, 2)]
    table(tmp_path / "t.csv", "Path,label", [*rows, "CheXpert/train/patient00077/study1/view2_lateral.png,0"])
    assert [case.patient for case in dataset_layouts.read_dataset(tmp_path)] == ["patient00000", "patient00002"]


def test_a_table_of_lesions_beside_one_of_labels_keeps_their_images_together(tmp_path):
    """As in ISIC 2019, whose classes and whose lesions stand in two tables."""
    for n in range(8):
        picture(tmp_path / "images" / f"ISIC_{n}.png", n)
    table(tmp_path / "truth.csv", "image,MEL,NV,BCC", [f"ISIC_{n},{int(n < 4)},{int(n > 3)},0" for n in range(8)])
    table(
        tmp_path / "metadata.csv", "image,age,lesion_id", [f"ISIC_{n},50,{f'H{n // 2}' if n else ''}" for n in range(8)]
    )
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == ["ISIC_0", *(f"lesion-H{n // 2}" for n in range(1, 8))]


def test_boxes_of_several_readers_are_warned_of(tmp_path):
    """As in VinDr-CXR, whose images were each read by three people."""
    for n in range(3):
        picture(tmp_path / f"p{n}.png", n, shape=(60, 80))
    rows = ["p0,mass,R1,1,2,11,22", "p0,mass,R2,1,3,11,23", "p1,none,R1,,,,", "p1,none,R2,,,,", "p2,mass,R1,5,5,9,9"]
    table(tmp_path / "train.csv", "image_id,class_name,rad_id,x_min,y_min,x_max,y_max", rows)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [problem.what for problem in dataset.problems] == ["1 image has boxes of several readers (column rad_id)"]


def test_rows_of_one_image_that_state_two_parts_or_patients_are_refused(tmp_path):
    for n in range(3):
        picture(tmp_path / f"p{n}.png", n)
    rows = ["p0.png,a,Z0,train", "p1.png,b,Z1,train", "p2.png,b,Z2,test"]
    for other, what in (("p0.png,a,Z0,test", "part"), ("p0.png,a,Z9,train", "patient")):
        table(tmp_path / "labels.csv", "image,label,patient,split", [*rows, other])
        with pytest.raises(DatasetError, match=f"state a different {what}"):
            dataset_layouts.read_dataset(tmp_path)


def test_findings_may_be_lists_as_python_writes_them(tmp_path):
    """As in PadChest."""
    cells = ("['pleural effusion', 'nodule']", "['normal']", "['nodule', '']")
    table(tmp_path / "t.csv", "ImageID,Labels", [f'p{n}.png,"{cell}"' for n, cell in enumerate(cells)])
    for n in range(3):
        picture(tmp_path / f"p{n}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"findings": "Labels", "image": "ImageID"}))
    present = [[name for name, is_present in case.references["findings"].items() if is_present] for case in dataset]
    assert present == [["nodule", "pleural effusion"], [], ["nodule"]]


def test_a_table_of_two_machines_names_images_by_what_is_left_of_its_paths(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"p{n}.png", n)
    roots = ("/mnt/archive", "/home/anna/work/images", r"C:\data", "/mnt/archive")
    table(tmp_path / "t.csv", "image,label", [f"{root}/p{n}.png,{n % 2}" for n, root in enumerate(roots)])
    assert len(dataset_layouts.read_dataset(tmp_path)) == 4
