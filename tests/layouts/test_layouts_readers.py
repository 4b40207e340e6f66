"""What masks are declared to mean, and who contoured them: regions, voxels to ignore, several readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cohorts import picture, volume
from hilum.errors import DatasetError, UsageError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Case

NESTED = "1+2+3=whole tumour,2+3=core,3=enhancing"


def nnunet(root: Path, labels: dict[str, object], **content: object) -> Path:
    for n in range(2):
        volume(root / "imagesTr" / f"c{n}_0000.nii.gz")
        volume(root / "labelsTr" / f"c{n}.nii.gz", np.full((4, 5, 6), n + 1, np.uint8))
    described = {"channel_names": {"0": "T2"}, "labels": {"background": 0, **labels}, **content}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def who(case: Case) -> dict[str, str]:
    """{kind of mask: its reader}"""
    return {kind: case.references[kind].facts.get("reader", "") for kind in case.references}


def contour(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name, 1)
    return root


def test_regions_come_from_dataset_json_with_the_value_first_that_marks_each(tmp_path):
    labels = {"whole": [1, 2, 3], "core": [1, 3], "enhancing": 3, "ignore": 4}
    dataset = dataset_layouts.read_dataset(nnunet(tmp_path, labels, regions_class_order=[2, 1, 3]))
    assert dataset.regions == {"whole": (2, 1, 3), "core": (1, 3), "enhancing": (3,)}
    names = {label.value: label.name for label in dataset.classes["mask"]}
    assert names == {1: "core (rest)", 2: "whole (rest)", 3: "enhancing", 4: "ignore"}


def test_or_from_the_flag(tmp_path):
    root = nnunet(tmp_path, {"organ": 1, "lesion": 2})
    dataset = dataset_layouts.read_dataset(root, DatasetOptions(labels=f"{NESTED},255=ignore"))
    assert dataset.regions == {"whole tumour": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert [label.name for label in dataset.classes["mask"] if label.is_ignored] == ["ignore"]
    assert dataset_layouts.read_dataset(root).regions == {}


@pytest.mark.parametrize("labels", ["1+2=whole,core", "1+=whole", "1+2=whole,1=whole", "1+x=whole"])
def test_what_is_no_region_is_refused(tmp_path, labels):
    with pytest.raises(UsageError, match="is not a region"):
        dataset_layouts.read_dataset(nnunet(tmp_path, {"organ": 1}), DatasetOptions(labels=labels))


def test_an_order_for_other_regions_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="2 regions"):
        dataset_layouts.read_dataset(nnunet(tmp_path, {"whole": [1, 2], "core": 2}, regions_class_order=[1]))


def test_a_label_to_be_ignored_is_declared_like_any_other(tmp_path):
    dataset = dataset_layouts.read_dataset(nnunet(tmp_path, {"organ": 1, "ignore": 2}))
    assert {label.value: label.is_ignored for label in dataset.classes["mask"]} == {1: False, 2: True}
    scribbled = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="0=ignore,1=background,2=organ"))
    assert [label.value for label in scribbled.classes["mask"]] == [0, 1, 2]


def test_folders_may_say_who_contoured_a_mask(tmp_path):
    names = [f"masks/{reader}/x{n}.png" for reader in ("reader_anna", "reader_berta") for n in (1, 2)]
    dataset = dataset_layouts.read_dataset(contour(tmp_path, "images/x1.png", "images/x2.png", *names))
    assert dataset.readers == ("reader_anna", "reader_berta")
    assert [who(case) for case in dataset] == [{"mask": "reader_anna", "mask:reader_berta": "reader_berta"}] * 2


def test_so_may_the_end_of_a_name(tmp_path):
    root = contour(tmp_path, "images/x1.png", "images/x2.png", "masks/x1_1stHO.png", "masks/x1_2ndHO.png")
    dataset = dataset_layouts.read_dataset(contour(root, "masks/x2_1stHO.png"))
    assert dataset.readers == ("1stHO", "2ndHO")
    assert [who(case) for case in dataset] == [{"mask": "1stHO", "mask:2ndHO": "2ndHO"}, {"mask": "1stHO"}]


def test_a_folder_of_another_name_is_no_reader(tmp_path):
    root = contour(tmp_path, "images/x1.png", "images/x2.png", "masks/x1.png", "masks/liver/x2.png")
    dataset = dataset_layouts.read_dataset(root)
    assert dataset.readers == ()
    assert len(dataset) == 1


def test_columns_may_say_who_contoured_a_mask(tmp_path):
    contour(tmp_path, *(f"{name}{n}.png" for name in "xab" for n in (1, 2)))
    (tmp_path / "cases.csv").write_text("image,anna,berta\nx1.png,a1.png,b1.png\nx2.png,,b2.png\n")
    column = {"mask:anna": "anna", "mask:berta": "berta"}
    dataset = dataset_layouts.read_dataset(tmp_path / "cases.csv", DatasetOptions(column=column))
    assert dataset.readers == ("anna", "berta")
    assert [who(case) for case in dataset] == [{"mask": "anna", "mask:berta": "berta"}, {"mask": "berta"}]
    assert {"mask:anna": "anna", "mask:berta": "berta"}.items() <= dataset.columns.items()


def test_drive_has_masks_by_hand_and_its_masks_show_the_field_of_view(tmp_path):
    for part, numbers, readers in (("training", (21, 22), ("1st",)), ("test", (1, 2), ("1st", "2nd"))):
        for n in numbers:
            picture(tmp_path / part / "images" / f"{n:02}_{part}.png", 1)
            picture(tmp_path / part / "mask" / f"{n:02}_{part}_mask.png", 1)
            for reader in readers:
                picture(tmp_path / part / f"{reader}_manual" / f"{n:02}_manual{reader[0]}.png", 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: dataset.splits[case.id] for case in dataset} == {
        "21_training": "train", "22_training": "train", "01_test": "test", "02_test": "test",
    }  # fmt: skip
    of_test = {"mask": "1st_manual", "mask:2nd_manual": "2nd_manual"}
    assert [who(case) for case in dataset if case.id.endswith("test")] == [of_test] * 2
    assert [list(case.references) for case in dataset if case.id.endswith("training")] == [["mask"]] * 2
    assert any("show where the camera saw anything" in problem.why for problem in dataset.problems)


def test_hrf_has_masks_of_the_image_s_own_name_and_a_field_of_view(tmp_path):
    names = contour(
        tmp_path, *(f"{folder}.png" for n in range(3) for folder in (f"images/0{n}_dr", f"manual1/0{n}_dr"))
    )
    contour(names, *(f"mask/0{n}_dr_mask.png" for n in range(3)))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["00_dr", "01_dr", "02_dr"]
    assert [list(case.references) for case in dataset] == [["mask"]] * 3
