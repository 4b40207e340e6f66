"""Folders of volumes as published sets have them: masks are masks, no classes, and a patient is in one part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cohorts import volume
from hilum.errors import DatasetError
from hilum.files import patient_names
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions

SHAPE = (5, 6, 7)


def scan(path: Path, seed: int = 0) -> None:
    volume(path, np.random.default_rng(seed).normal(100, 30, SHAPE).astype(np.int16))


def label_map(path: Path, *values: int) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values or (1,)):
        voxels[place, 1:4, 2:5] = value
    volume(path, voxels)


def values_of(case) -> list[int]:
    return np.unique(case.references["mask"].data).tolist()


def test_label_maps_among_volumes_are_no_images_of_a_class(tmp_path):
    for person in ("training01", "training02"):
        for time in (1, 2):
            scan(tmp_path / person / "preprocessed" / f"{person}_0{time}_flair_pp.nii")
            label_map(tmp_path / person / "masks" / f"{person}_0{time}_mask1.nii")
    with pytest.raises(DatasetError, match=r"by their values training01/masks/training01_01_mask1.nii may be masks"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders"))) == 8


def test_a_folder_of_label_maps_beside_one_of_volumes_is_no_class(tmp_path):
    for n in range(3):
        scan(tmp_path / "first" / f"a{n}x.nii.gz")
        label_map(tmp_path / "second" / f"b{n}y.nii.gz")
    with pytest.raises(DatasetError, match=r"second/b0y.nii.gz may be masks"):
        dataset_layouts.read_dataset(tmp_path)


def test_folders_of_masks_below_those_of_centres_and_patients_hold_no_images_of_a_class(tmp_path):
    for centre in ("Center_01", "Center_07"):
        for person in ("Patient_01", "Patient_02"):
            for folder, names in (("Raw", "abcd"), ("Processed", "efgh")):
                for seed, name in enumerate(names):
                    scan(tmp_path / centre / person / folder / f"{name}.nii.gz", seed)
            label_map(tmp_path / centre / person / "Masks" / "Consensus.nii.gz")
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_masks_in_a_folder_apart_are_of_the_case_whose_name_theirs_begin_with(tmp_path):
    for n in range(1, 13):
        for kind in ("T1", "FLAIR"):
            scan(tmp_path / "structural" / f"GBM-{n}_1" / f"GBM-{n}_1_{kind}.nii.gz", n)
        if n != 3:
            label_map(tmp_path / "segm" / f"GBM-{n}_1_segm.nii.gz", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id.rpartition("/")[2]: values_of(case) for case in dataset} == {
        f"GBM-{n}_1": [0, n] for n in range(1, 13) if n != 3
    }
    assert "1 of 12 images without a label" in {problem.what for problem in dataset.problems}
    label_map(tmp_path / "automated" / "GBM-4_1_approximate_segm.nii.gz")
    with pytest.raises(DatasetError, match=r"some masks name a structure \(approximate\), and others none"):
        dataset_layouts.read_dataset(tmp_path)


def test_volumes_of_two_classes_stay_classes(tmp_path):
    for n in range(3):
        for name in ("ill", "well"):
            scan(tmp_path / name / f"{name}_{n}.nii.gz", n)
    assert dataset_layouts.read_dataset(tmp_path).kinds == {"class"}


def test_a_mask_that_only_its_values_mark_belongs_to_the_images_below_it(tmp_path):
    for n in range(1, 4):
        for name in ("FLAIR", "T1"):
            scan(tmp_path / str(n) / "pre" / f"{name}.nii.gz")
        label_map(tmp_path / str(n) / "wmh.nii.gz", 1, 2)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [list(case.images) for case in dataset] == [["FLAIR", "T1"]] * 3
    assert "wmh taken for a mask by the values" in dataset.layout
    assert values_of(dataset.cases[0]) == [0, 1, 2]
    for n in (1, 2):
        for name in ("FLAIR", "T1"):
            scan(tmp_path / "new" / str(n) / "pre" / f"{name}.nii.gz")
    predicted = dataset_layouts.read_dataset(tmp_path / "new", DatasetOptions(references=False))
    assert [(case.id, list(case.images)) for case in predicted] == [("1", ["FLAIR", "T1"]), ("2", ["FLAIR", "T1"])]


def test_images_before_and_after_a_step_are_not_both_taken(tmp_path):
    for n in range(1, 4):
        for name in ("orig", "pre"):
            scan(tmp_path / str(n) / name / "T1.nii.gz")
        label_map(tmp_path / str(n) / "wmh.nii.gz", 1, 2)
    with pytest.raises(DatasetError, match="holds T1 in each of orig, pre"):
        dataset_layouts.read_dataset(tmp_path)


def test_files_beside_folders_of_cases_are_cases(tmp_path):
    for n in range(1, 4):
        scan(tmp_path / "train" / f"Patient_0{n}" / f"Patient_0{n}.nii.gz")
        label_map(tmp_path / "train" / f"Patient_0{n}" / "GT.nii.gz", 1, 2)
    scan(tmp_path / "test" / "Patient_41.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["Patient_01", "Patient_02", "Patient_03"]
    assert [problem.cases for problem in dataset.problems] == [("Patient_41",)]
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 4


def test_names_of_files_may_repeat_those_of_patient_and_visit(tmp_path):
    for person in ("P1", "P2", "P3"):
        for visit in ("T1", "T2"):
            for word in ("FLAIR", "T1W"):
                scan(tmp_path / "train" / person / visit / f"{person}_{visit}_{word}.nii.gz")
            label_map(tmp_path / "train" / person / visit / f"{person}_{visit}_MASK.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert [list(case.images) for case in dataset] == [["FLAIR", "T1W"]] * 6


def test_structures_of_a_case_lie_in_a_folder_of_that_name(tmp_path):
    for n in range(2):
        scan(tmp_path / f"0522c{n:04d}" / "img.nii.gz")
        for place, name in enumerate(("BrainStem", "Mandible")):
            voxels = np.zeros(SHAPE, np.uint8)
            voxels[2 * place] = 1
            volume(tmp_path / f"0522c{n:04d}" / "structures" / f"{name}.nii.gz", voxels)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["mask"]] == ["BrainStem", "Mandible"]
    assert values_of(dataset.cases[1]) == [0, 1, 2]


def test_cases_of_two_domains_are_known_by_the_words_in_their_names(tmp_path):
    for n in range(1, 4):
        scan(tmp_path / "source_training" / f"crossmoda_{n}_ceT1.nii.gz")
        label_map(tmp_path / "source_training" / f"crossmoda_{n}_Label.nii.gz", 1, 2)
        scan(tmp_path / "target_validation" / f"crossmoda_{n + 10}_ceT1.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), dataset.kinds) == (3, {"mask"})


@pytest.mark.parametrize("site", ["", "R001/"])
def test_bids_may_lie_in_folders_of_sites_and_of_parts(tmp_path, site):
    for part, numbers in (("Training", (1, 2)), ("Testing", (3,))):
        for n in numbers:
            place = tmp_path / part / f"{site}sub-r{n}s1" / "ses-1" / "anat"
            scan(place / f"sub-r{n}s1_ses-1_space-MNI_T1w.nii.gz")
            label_map(place / f"sub-r{n}s1_ses-1_space-MNI_label-L_desc-T1lesion_mask.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert [case.patient for case in dataset] == ["sub-r1s1", "sub-r2s1", "sub-r3s1"]
    assert sorted(dataset.splits.values()) == ["test", "train", "train"]


def test_folders_of_subjects_without_masks_stay_classes(tmp_path):
    for name, numbers in (("AD", (1, 2, 3)), ("CN", (4, 5, 6))):
        for n in numbers:
            scan(tmp_path / name / f"sub-{n}" / f"sub-{n}_T1w.nii.gz", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["class"]] == ["AD", "CN"]
    assert len({case.patient for case in dataset}) == 6


def test_a_study_is_found_by_its_name_though_images_lie_in_folders_of_patients(tmp_path):
    for n in range(3):
        for word in ("t2w", "adc", "hbv"):
            scan(tmp_path / "images" / f"1000{n}" / f"1000{n}_100000{n}_{word}.nii.gz")
        label_map(tmp_path / "labels" / f"1000{n}_100000{n}.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert [list(case.images) for case in dataset] == [["adc", "hbv", "t2w"]] * 3


def test_a_label_with_a_number_alone_is_of_the_image_with_that_number(tmp_path):
    for n in (1, 2, 10):
        scan(tmp_path / "data" / f"PANCREAS_{n:04d}.nii.gz", n)
        label_map(tmp_path / "TCIA_pancreas_labels-02-05-2017" / f"label{n:04d}.nii.gz", n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: values_of(case)[1] for case in dataset} == {
        "PANCREAS_0001": 1, "PANCREAS_0002": 2, "PANCREAS_0010": 10,
    }  # fmt: skip


def test_the_word_labels_marks_a_folder_beside_numbered_images(tmp_path):
    for n in range(1, 4):
        for word in ("ct", "mr"):
            scan(tmp_path / "imagesTr" / f"topcow_{word}_00{n}_0000.nii.gz")
            label_map(tmp_path / "cow_seg_labelsTr" / f"topcow_{word}_00{n}.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert (len(dataset), len({case.patient for case in dataset})) == (6, 3)


def test_numbers_of_cases_are_no_channels_of_nnunet(tmp_path):
    parts = {"training": (1, 2), "validation": (4,), "test": (7,)}
    stated: dict[str, object] = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen"}}
    for (part, numbers), end in zip(parts.items(), ("Tr", "Va", "Ts"), strict=True):
        names = [f"amos_{n:04d}.nii.gz" for n in numbers]
        for name in names:
            scan(tmp_path / f"images{end}" / name)
            label_map(tmp_path / f"labels{end}" / name)
        stated[part] = [{"image": f"./images{end}/{name}", "label": f"./labels{end}/{name}"} for name in names]
    (tmp_path / "dataset.json").write_text(str(stated).replace("'", '"'))
    dataset = dataset_layouts.read_dataset(tmp_path)
    train, others = dict.fromkeys(("amos_0001", "amos_0002"), "train"), {"amos_0004": "val", "amos_0007": "test"}
    assert dataset.splits == train | others
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 4
    stated["validation"] = stated["training"]
    (tmp_path / "dataset.json").write_text(str(stated).replace("'", '"'))
    with pytest.raises(DatasetError, match="in two parts, train and val"):
        dataset_layouts.read_dataset(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("1_t1", "1_t2", "2_t1", "2_t2_SPACE", "3_t1"),
        ("ct_train_1001", "mr_train_1001", "ct_train_1002", "mr_train_1002", "ct_train_1003"),
        ("topcow_ct_001", "topcow_mr_001", "topcow_ct_002", "topcow_mr_002", "topcow_ct_003"),
    ],
)
def test_images_whose_names_differ_in_their_kind_are_of_one_patient(names):
    people = patient_names.patients_of(names)
    assert people.known
    assert len(set(people.names)) == 3
    assert people.names[0] == people.names[1]


def test_files_in_folders_of_their_own_name_are_images_and_masks_of_the_folder_around_them(tmp_path):
    """As in BraTS 2015 and ISLES, of which each file has a number of its own."""
    for number, name in enumerate(("HGG", "LGG")):
        for n in range(3):
            for kind, word in enumerate(("MR_Flair", "MR_T1c", "OT")):
                file = f"VSD.Brain{'_3more' if word == 'OT' else ''}.XX.O.{word}.{54512 + 100 * number + 10 * n + kind}"
                place = tmp_path / name / f"brats_tcia_pat{n + 10 * number:04d}_1" / file / f"{file}.nii"
                label_map(place, 1, 3) if word == "OT" else scan(place, n)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 6 and dataset.kinds == {"mask", "class"}
    assert {tuple(case.images) for case in dataset} == {("MR_Flair", "MR_T1c")}
    assert {tuple(values_of(case)) for case in dataset} == {(0, 1, 3)}
    assert len({case.patient for case in dataset}) == 6


def test_label_maps_that_lie_as_images_of_cases_do_are_no_cases(tmp_path):
    for name in ("ill", "well"):
        for n in range(3):
            scan(tmp_path / name / f"a{n}" / f"a{n}.nii.gz", n)
            label_map(tmp_path / name / f"contoured{n}" / f"contoured{n}.nii.gz")
    with pytest.raises(DatasetError, match="may be masks"):
        dataset_layouts.read_dataset(tmp_path)


def test_folders_of_people_of_whom_most_have_one_scan_with_a_mask_are_no_classes(tmp_path):
    """As in FDG-PET-CT-Lesions, where folders of patients are called by hashes."""
    for n, name in enumerate(("0011f3deaf", "01140d52d8", "0117d7f11f", "0143bab87a", "01e0a1c5bb")):
        for date in ("03-23-2003", "04-11-2004") if n == 0 else ("03-23-2003",):
            scan(tmp_path / f"PETCT_{name}" / date / "CTres.nii.gz", n)
            label_map(tmp_path / f"PETCT_{name}" / date / "SEG.nii.gz")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.kinds == {"mask"}
    assert (len(dataset), len({case.patient for case in dataset})) == (6, 5)


def test_images_of_one_kind_that_differ_in_their_entities_are_cases_with_masks_of_their_own(tmp_path):
    """As in VerSe 2020: parts of one scan, and directions of others."""
    names = ("400_split-verse155", "400_split-verse260", "401", "500_dir-ax", "506_dir-iso")
    for n, name in enumerate(names):
        subject = f"sub-verse{name[:3]}"
        scan(tmp_path / "rawdata" / subject / f"sub-verse{name}_ct.nii.gz", n)
        label_map(tmp_path / "derivatives" / subject / f"sub-verse{name}_seg-vert_msk.nii.gz", n + 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: values_of(case) for case in dataset} == {
        f"sub-verse{name}": [0, n + 1] for n, name in enumerate(names)
    }
    assert len({case.patient for case in dataset}) == 4


def test_masks_of_bids_with_several_labels_are_structures(tmp_path):
    for n in range(3):
        place = tmp_path / f"sub-{n}" / "anat"
        scan(place / f"sub-{n}_T2w.nii.gz", n)
        for height, label in enumerate(("liver", "spleen")):
            voxels = np.zeros(SHAPE, np.uint8)
            voxels[2 * height] = 1
            volume(place / f"sub-{n}_label-{label}_mask.nii.gz", voxels)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["mask"]] == ["liver", "spleen"]
    assert [values_of(case) for case in dataset] == [[0, 1, 2]] * 3


def test_images_with_channel_numbers_in_several_folders_have_the_masks_of_one(tmp_path):
    """As in AbdomenCT-1K."""
    for n in range(6):
        scan(tmp_path / f"AbdomenCT-1K-ImagePart{n // 2 + 1}" / f"Case_{n:05d}_0000.nii.gz", n)
        label_map(tmp_path / "Mask" / f"Case_{n:05d}.nii.gz", n + 1)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.id: values_of(case)[1] for case in dataset} == {f"Case_{n:05d}": n + 1 for n in range(6)}


def test_masks_of_two_runs_of_one_session_are_not_joined(tmp_path):
    for n in range(2):
        for run in (1, 2):
            scan(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_run-{run}_T1w.nii.gz", n)
            label_map(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_run-{run}_mask.nii.gz")
    with pytest.raises(DatasetError, match=r"has masks of several images \(run-1, run-2\)"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_folder_of_twenty_images_that_their_names_tell_apart_is_one_case(tmp_path):
    """As in UCSF-PDGM: a case has more images than a folder of unnamed ones may have, and masks of several things."""
    plain = ("T1", "T1c", "T2", "FLAIR", "DWI", "SWI", "ADC")
    kinds = [
        *plain,
        *(f"{name}_bias" for name in plain),
        "ASL",
        *(f"DTI_eddy_{name}" for name in ("FA", "L1", "L2", "L3", "MD")),
    ]
    for person in ("UCSF-PDGM-0004", "UCSF-PDGM-0005", "UCSF-PDGM-0007"):
        for kind in kinds:
            scan(tmp_path / f"{person}_nifti" / f"{person}_{kind}.nii.gz")
        label_map(tmp_path / f"{person}_nifti" / f"{person}_tumor_segmentation.nii.gz", 1, 2, 4)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(kinds) == 20
    assert {(len(case.images), *values_of(case)) for case in dataset} == {(20, 0, 1, 2, 4)}
    assert len(dataset) == 3
    label_map(tmp_path / "UCSF-PDGM-0004_nifti" / "UCSF-PDGM-0004_brain_segmentation.nii.gz")
    with pytest.raises(DatasetError, match=r"one of 2 masks of the case \(brain, tumor\).*dataset\.csv"):
        dataset_layouts.read_dataset(tmp_path)
