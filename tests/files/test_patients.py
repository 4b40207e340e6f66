"""File names tell patients apart by rules that are printed, or not at all."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import UsageError
from hilum.files import patient_names


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (["person1_bacteria_1", "person1_bacteria_2", "person2_virus_9"], ["person1", "person1", "person2"]),
        (["IM-0115-0001", "NORMAL2-IM-0588-0001", "NORMAL2-IM-0588-0002"], ["IM-0115", *["NORMAL2-IM-0588"] * 2]),
        (["sub-01/ses-1/sub-01_T1w", "sub-02/sub-02_T1w"], ["sub-01", "sub-02"]),
        (["TCGA_CS_4941_19960909_1", "TCGA-HT-7602-x"], ["TCGA_CS_4941_19960909", "TCGA-HT-7602"]),
        (
            ["patient001_frame01", "patient001_frame12", "patient002_frame01"],
            ["patient001", "patient001", "patient002"],
        ),
        (["ADNI_002_S_0295_MR", "ADNI_002_S_0413_MR"], ["002_S_0295", "002_S_0413"]),
        (
            [f"AD/OAS1_000{n}_MR1_mpr-1_{k}" for n in (1, 2, 3) for k in (100, 101)],
            [f"OAS1_000{n}" for n in (1, 2, 3) for _ in "ab"],
        ),
        (
            ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"],
            ["BraTS-GLI-00005"] * 2 + ["BraTS-GLI-00006"],
        ),
        (
            ["C33P1ThinF_IMG_2015_cell_1", "C33P1ThinF_IMG_2015_cell_2", "C34P2ThinF_IMG_cell_9"],
            ["C33P1"] * 2 + ["C34P2"],
        ),
        (
            [f"CNV/CNV-101604{n}-{k}" for n in (1, 2, 3) for k in (1, 2)] + ["NORMAL/NORMAL-1016041-1"],
            [f"101604{n}" for n in (1, 2, 3) for _ in "ab"] + ["1016041"],
        ),
        (["000_HC", "010_HC", "010_2HC"], ["000", "010", "010"]),
        (
            [f"20586{n}08_6c613a14b80a859{n}_MG_{side}_CC_ANON" for n in (1, 2) for side in "LR"],
            [f"6c613a14b80a859{n}" for n in (1, 2) for _ in "LR"],
        ),
        (
            [f"00{n}_{side}_{view}" for n in (1, 2, 3) for side in "LR" for view in ("CC", "MLO")],
            [f"00{n}" for n in (1, 2, 3) for _ in range(4)],
        ),
        (
            [f"{n}_{view}" for n in (11, 12, 13) for view in ("frontal", "lateral")],
            ["11"] * 2 + ["12"] * 2 + ["13"] * 2,
        ),
        ([f"{name}_{time}" for name in "ABC" for time in ("pre", "post")], [name for name in "ABC" for _ in "ab"]),
        (
            [f"001{n}_M{month}" for n in (1, 2, 3) for month in ("00", "12")],
            [f"001{n}" for n in (1, 2, 3) for _ in "ab"],
        ),
        (
            [f"smear_{n}_jpg.rf.{copy:032x}" for n in (1, 2, 3) for copy in (7, 8)],
            [f"smear_{n}" for n in (1, 2, 3) for _ in "ab"],
        ),
        (
            [f"Case{n:02}/{series}_{k}" for n in range(6) for series in (1, 2, 3) for k in (1, 2)],
            [f"Case{n:02}" for n in range(6) for _ in range(6)],
        ),
        (
            [f"PETCT_{n}/{date}-NA-PET-CT 9" for n in "abc" for date in ("03-23-2003", "04-11-2004")],
            [f"PETCT_{n}" for n in "abc" for _ in "ab"],
        ),
        (
            ["fdg_0011f3deaf_03-23-2003", "fdg_0011f3deaf_04-11-2004", "fdg_011x_03-23-2003", "psma_95b8_2018-05-01"],
            ["fdg_0011f3deaf", "fdg_0011f3deaf", "fdg_011x", "psma_95b8"],
        ),
        (["1000083_20252_2_0", "1000083_20252_3_0", "1000091_20252_2_0"], ["1000083", "1000083", "1000091"]),
        (["Mass-Training_P_00001_LEFT_CC", "Mass-Training_P_00001_LEFT_MLO"], ["P_00001"] * 2),
        ([f"Image_0{n}{eye}" for n in (1, 2, 3) for eye in "LR"], [f"Image_0{n}" for n in (1, 2, 3) for _ in "LR"]),
        ([f"scan{n}_slice_{k}" for n in (1, 2, 3) for k in (7, 8)], [f"scan{n}" for n in (1, 2, 3) for _ in (7, 8)]),
        ([f"{n}_{k}" for n in (11, 12, 13) for k in (1, 2)], [str(n) for n in (11, 12, 13) for _ in (1, 2)]),
    ],
)
def test_names_that_name_patients_group_by_them(names, patients):
    found = patient_names.patients_of(names)
    assert found.known
    assert list(found.names) == patients
    assert str(len(set(patients))) in found.words


@pytest.mark.parametrize(
    "names",
    [
        [f"hippocampus_{n:03d}" for n in range(200)],
        [f"benign ({n})" for n in range(20)],
        ["01d44a26f6680c42", "0280fa8f60f6bcae"],
        ["brain_flair", "cord_t2", "ct_spleen2"],
        [f"2020_{n:03d}" for n in range(50)],  # one "patient" for all would be the year
        ["person1_1", "unrelated"],  # a rule must fit every name
    ],
)
def test_names_that_name_nobody_are_said_to_be_unknown(names):
    found = patient_names.patients_of(names)
    assert not found.known
    assert list(found.names) == names
    assert "stands for itself" in found.words


@pytest.mark.parametrize("classes", [(), ("benign", "malignant")])
@pytest.mark.parametrize("place", ["Case{p:02d}/slice_{n}", "{p:03d}/{n}", "pig {p}/day_{n}/scan", "study/P{p}/{n}"])
def test_images_in_one_numbered_folder_are_of_one_person(place, classes):
    people = range(12)
    named = [(p, n, *classes[p % 2 : p % 2 + 1]) for p in people for n in range(3)]
    names = ["/".join((*above, place.format(p=p, n=n))) for p, n, *above in named]
    found = patient_names.patients_of(names, classes=bool(classes))
    assert found.known
    assert re.match(r"12 patients, identified by the (numbered )?folder in which several", found.words)
    assert len(set(zip([p for p, *_ in named], found.names, strict=True))) == len(people)


@pytest.mark.parametrize(
    ("places", "classes"),
    [
        ([f"part_{n}" for n in range(8)], 0),
        ([f"{year}" for year in range(2012, 2020)], 0),
        (["adenosis", "fibroadenoma", "lobular", "ductal", "tubular"], 1),  # no number: kinds of tissue
        (["40X", "100X", "200X", "400X", "800X"], 1),  # the same in each class: magnifications
        ([f"case{n}" for n in range(3)], 0),  # too few to be parted
    ],
)
def test_other_folders_are_of_nobody(places, classes):
    above = ["benign/", "malignant/"] if classes else [""]
    names = [f"{first}{place}/{n}" for first in above for place in places for n in range(4)]
    assert not patient_names.patients_of(names, classes=classes).known


def test_the_same_number_in_two_classes_may_be_one_person():
    """Ten and more of them: to take two people for one leaks nothing, one for two may."""
    names = [f"{first}/{p:03d}/{n}" for first in ("benign", "malignant") for p in range(12) for n in range(2)]
    assert set(patient_names.patients_of(names, classes=1).names) == {f"{p:03d}" for p in range(12)}


@pytest.mark.parametrize(
    "folders", [["Case01", "Case02", "Case03"], ["pig_1", "pig_2", "pig_9"], ["001", "002", "003"]]
)
def test_numbered_folders_of_images_with_masks_are_cases(folders):
    assert patient_names.are_numbered_people(folders)


@pytest.mark.parametrize(
    "folders", [["grade 1", "grade 2", "grade 3"], ["0", "1", "2"], ["T1", "T2", "T3"], ["a1", "b2", "c3"]]
)
def test_other_folders_of_images_with_masks_may_be_classes(folders):
    assert not patient_names.are_numbered_people(folders)


@given(st.lists(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Z")), max_size=20), max_size=8))
def test_every_name_gets_a_patient(names):
    assert len(patient_names.patients_of(names).names) == len(names)


def test_a_person_may_say_the_rule():
    assert patient_names.patients_by_expression(r"case(\d+)", ["case1_a", "case1_b", "case2_a"]).names == (
        "1",
        "1",
        "2",
    )
    assert patient_names.patients_by_expression(r"case\d+", ["case1_a"]).names == ("case1",)


@pytest.mark.parametrize("pattern", [r"case(\d+", r"nothing(\d+)"])
def test_a_rule_that_does_not_fit_is_refused(pattern):
    with pytest.raises(UsageError, match="--patient"):
        patient_names.patients_by_expression(pattern, ["case1", "case2"])


def test_folders_of_persons_are_no_classes():
    assert patient_names.names_a_person("patient012")
    assert patient_names.names_a_person("TCGA_CS_4941_19960909")
    assert not patient_names.names_a_person("PNEUMONIA")
    assert not patient_names.names_a_person("grade_3")
