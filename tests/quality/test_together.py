from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.quality import dataset_examination
from hilum.values import Case, Dataset, Geometry, Image, Label

GRID = Geometry.of_pixels((20, 20))


def case(n: int, name: str | None = None, value: int | None = None) -> Case:
    references: dict[str, object] = {} if name is None else {"class": name}
    if value is not None:
        mask = np.zeros((1, 20, 20), np.uint8)
        mask[0, 5:15, 5:15] = value
        references["mask"] = Image(mask, GRID)
    image = Image(np.random.default_rng(n).random((1, 20, 20)), GRID)
    return Case(f"c{n}", f"p{n}", {"image": image}, references)


def cohort(*cases: Case, **named: object) -> Dataset:
    return Dataset(cases, **{"patients_known": True, **named})


def test_one_class_only_forbids_training_and_says_what_is_needed():
    [fatal] = dataset_examination.examine(cohort(*(case(n, "benign") for n in range(6)))).fatal
    assert "all 6 cases are of one class, benign" in fatal.what
    assert "two classes" in fatal.remedy


def test_one_class_in_the_training_part_forbids_training_though_the_test_part_has_two():
    parts = {f"c{n}": "train" if n < 4 else "test" for n in range(6)}
    [fatal] = dataset_examination.examine(
        cohort(*(case(n, "b" if n == 5 else "a") for n in range(6)), splits=parts)
    ).fatal
    assert "all 4 training cases are of one class, a" in fatal.what


def test_one_class_beside_masks_is_a_warning_because_the_masks_can_be_learnt():
    found = dataset_examination.examine(cohort(*(case(n, "benign", 1) for n in range(6))))
    assert not found.fatal
    assert any("one class" in one.what and one.severity == "warning" for one in found.problems)


def test_a_class_of_two_patients_is_said_with_its_cases():
    found = dataset_examination.examine(cohort(*(case(n, "b" if n < 2 else "a") for n in range(9))))
    [few] = [one for one in found.problems if "few of a class" in one.what]
    assert few.what == "few of a class: b has 2 patients"
    assert few.cases == ("c0", "c1")


def test_classes_that_differ_only_in_case_are_named_and_others_are_not():
    found = dataset_examination.examine(cohort(*(case(n, ("COVID", "Covid", "other")[n % 3]) for n in range(9))))
    [spelt] = [one for one in found.problems if "upper and lower case" in one.what]
    assert spelt.what == "the classes COVID, Covid differ only in upper and lower case"
    assert spelt.severity == "warning"
    assert set(spelt.cases) == {"c0", "c1", "c3", "c4", "c6", "c7"}
    again = dataset_examination.examine(cohort(*(case(n, ("COVID", "flu", "other")[n % 3]) for n in range(9))))
    assert not [one for one in again.problems if "upper and lower case" in one.what]


@pytest.mark.parametrize("word", ["unknown", "?", "Unbekannt"])
def test_a_class_that_nobody_knows_is_named(word):
    found = dataset_examination.examine(cohort(*(case(n, ("a", "b", word)[n % 3]) for n in range(9))))
    [unknown] = [one for one in found.problems if "not known" in one.what]
    assert unknown.severity == "warning" and unknown.what.startswith(f"the class {word} ")
    assert set(unknown.cases) == {"c2", "c5", "c8"}


def test_masks_that_are_all_background_forbid_training():
    [fatal] = dataset_examination.examine(cohort(*(case(n, value=0) for n in range(4)))).fatal
    assert "every mask is empty" in fatal.what


def test_a_training_part_that_is_all_background_forbids_training_though_the_test_part_is_not():
    parts = {"c0": "train", "c1": "train", "c2": "test"}
    [fatal] = dataset_examination.examine(
        cohort(case(0, value=0), case(1, value=0), case(2, value=1), splits=parts)
    ).fatal
    assert "every mask of the training part is empty" in fatal.what


def with_mask(known: Case, *values: int) -> Case:
    """The case with a mask of a band of each value."""
    mask = np.zeros((1, 20, 20), np.uint8)
    for number, value in enumerate(values):
        mask[0, 5 * number + 1 : 5 * number + 5, 5:15] = value
    return replace(known, references={"mask": Image(mask, GRID)})


def of_absence(found):
    return [
        one for one in found.problems if "absent" in one.what or one.what.startswith("mask ") or "--lesions" in one.what
    ]


def test_one_empty_mask_among_many_is_a_warning_that_names_the_case():
    found = dataset_examination.examine(cohort(*(case(n, value=int(n > 0)) for n in range(12))))
    assert not found.fatal
    [empty] = of_absence(found)
    assert (empty.severity, empty.cases) == ("warning", ("c0",))
    assert empty.what == "mask is empty, and others hold the value 1 in 11 of 12 cases"


def test_a_structure_without_which_cases_exist_is_a_note_with_the_share():
    labels = (Label(1, "tumour"),)
    cases = [case(n, value=int(n > 0)) for n in range(12)]
    found = dataset_examination.examine(cohort(*cases, classes={"mask": labels}, lesions=frozenset({"tumour"})))
    [absent] = of_absence(found)
    assert (absent.severity, absent.cases) == ("note", ("c0",))
    assert absent.what == "tumour is absent in 1 of 12 masks (8.3 %), as --lesions says"


def test_a_structure_that_a_third_of_the_cases_lacks_is_no_warning():
    found = dataset_examination.examine(cohort(*(case(n, value=int(n % 3 > 0)) for n in range(12))))
    [absent] = of_absence(found)
    assert (absent.severity, len(absent.cases)) == ("note", 4)


def test_a_case_that_lacks_one_of_two_structures_is_named_unless_it_is_unknown_or_ignored_there():
    labels = (Label(1, "liver"), Label(2, "spleen"), Label(3, "ignore"))

    def absences(odd):
        cases = [with_mask(case(n), 1, 2) for n in range(12)]
        found = dataset_examination.examine(cohort(*cases, odd, classes={"mask": labels}))
        return [(one.severity, one.what, one.cases) for one in of_absence(found)]

    lacking = with_mask(case(12), 1)
    said = "mask lacks spleen, and others hold spleen in 12 of 13 cases"
    assert absences(lacking) == [("warning", said, ("c12",))]
    assert absences(replace(lacking, known=frozenset({"liver"}))) == []
    assert absences(with_mask(case(12), 1, 3)) == []


def test_lesions_that_no_mask_shows_are_refused():
    labels = (Label(1, "liver"),)
    wrong = cohort(*(case(n, value=1) for n in range(4)), classes={"mask": labels}, lesions=frozenset({"tumour"}))
    [fatal] = dataset_examination.examine(wrong).fatal
    assert fatal.what == "--lesions names tumour, and masks show liver"


def test_a_label_that_is_declared_and_nowhere_contoured_is_named():
    labels = (Label(0, "background"), Label(1, "liver"), Label(2, "spleen"))
    found = dataset_examination.examine(cohort(*(case(n, value=1) for n in range(4)), classes={"mask": labels}))
    [missing] = found.problems
    assert "spleen" in missing.what
    assert "liver" not in missing.what


def test_structures_that_nobody_named_are_a_warning_and_a_single_one_is_none():
    found = dataset_examination.examine(cohort(*(case(n, value=1 + n % 2) for n in range(4))))
    [problem] = [one for one in found.problems if "nobody named" in one.what]
    assert problem.severity == "warning"
    assert problem.what == "nobody named the mask values 1, 2"
    assert "--labels VALUE=NAME" in problem.remedy
    assert not any(
        "nobody named" in one.what
        for one in dataset_examination.examine(cohort(*(case(n, value=1) for n in range(4)))).problems
    )


def test_a_long_list_of_labels_is_cut_and_counted():
    labels = (Label(0, "background"), Label(1, "liver"), *(Label(n, f"s{n}") for n in range(2, 40)))
    found = dataset_examination.examine(cohort(*(case(n, value=1) for n in range(4)), classes={"mask": labels}))
    [missing] = found.problems
    assert missing.what.endswith("s2, s3, s4, s5, s6, s7 and 32 more")


def test_a_grade_that_no_case_has_is_a_note_and_classes_without_numbers_have_no_gap():
    found = dataset_examination.examine(cohort(*(case(n, ("0", "1", "3")[n % 3]) for n in range(12))))
    [gap] = [one for one in found.problems if "numbered" in one.what]
    assert (gap.severity, gap.what) == ("note", "the classes are numbered 0, 1, 3: no case has 2")
    for names in (("0", "1", "2"), ("0", "2"), ("a", "b", "d")):
        again = dataset_examination.examine(cohort(*(case(n, names[n % len(names)]) for n in range(12))))
        assert not [one for one in again.problems if "numbered" in one.what]


def test_a_finding_that_all_or_none_of_the_cases_that_train_have_is_named():
    cases = [
        Case(one.id, one.patient, one.images, {"findings": {"a": n % 2 == 0, "b": n == 5, "c": True}})
        for n, one in enumerate(map(case, range(6)))
    ]
    parts = {f"c{n}": "train" if n < 4 else "test" for n in range(6)}
    found = dataset_examination.examine(cohort(*cases, splits=parts))
    stated = [one.what for one in found.problems if one.what.startswith("finding ")]
    assert stated == [
        "finding b: 0 of the cases that train have it and 4 do not",
        "finding c: 4 of the cases that train have it and 0 do not",
    ]
    assert not found.fatal
