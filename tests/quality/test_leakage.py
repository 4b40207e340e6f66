from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fingerprints import facts
from hilum.quality import dataset_examination, leakage
from hilum.quality.leakage import Twin
from hilum.values import Case, Dataset, Fingerprint, Geometry, Image, Problem


def picture(seed: int) -> Image:
    """Smooth enough that a little noise does not make it another."""
    waves = np.random.default_rng(seed).normal(size=(1, 12, 12)).repeat(4, axis=1).repeat(4, axis=2)
    return Image(waves, Geometry.of_pixels((48, 48)))


def nearly(seed: int) -> Image:
    image = picture(seed)
    return image.with_pixels(image.data + np.random.default_rng(99).normal(0, 0.05, image.shape))


def cohort(images: list[Image], patients: list[str], classes: str = "", **named) -> Dataset:
    labels = [{"class": name} for name in classes] or [{} for _ in images]
    rows = zip(images, patients, labels, strict=True)
    cases = [Case(f"c{n}", who, {"image": image}, label) for n, (image, who, label) in enumerate(rows)]
    return Dataset(tuple(cases), **{"patients_known": True, **named})


def findings(dataset: Dataset) -> list[Problem]:
    return [one for one in dataset_examination.examine(dataset).problems if "same image" in one.what]


def test_a_set_of_different_images_says_nothing():
    assert not findings(cohort([picture(n) for n in range(12)], [f"p{n}" for n in range(12)]))


def test_one_image_under_two_patients_is_a_warning_and_a_group():
    found = dataset_examination.examine(cohort([*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)]))
    [problem] = [one for one in found.problems if "same image" in one.what]
    assert problem.severity == "warning"
    assert "1 pair of cases with exactly the same image under different names" in problem.what
    assert set(problem.cases) == {"c3", "c10"}
    assert found.twins == (frozenset({"c3", "c10"}),)


def test_nearly_equal_images_are_found_among_few_and_among_many():
    for count in (3, 20):
        [problem] = findings(cohort([*map(picture, range(count)), nearly(1)], [f"p{n}" for n in range(count + 1)]))
        assert "nearly the same image" in problem.what
        assert set(problem.cases) == {"c1", f"c{count}"}


def test_two_images_of_one_patient_may_be_alike():
    [problem] = findings(cohort([*map(picture, range(10)), nearly(3)], [*(f"p{n}" for n in range(10)), "p3"]))
    assert problem.severity == "note"


def test_where_patients_are_unknown_two_alike_are_a_warning():
    same = cohort([*map(picture, range(10)), nearly(3)], [f"c{n}" for n in range(11)], patients_known=False)
    assert findings(same)[0].severity == "warning"


def test_a_twin_of_which_the_sets_own_split_says_nothing_trains_as_the_other_does():
    parts = {f"c{n}": "test" if n == 9 else "train" for n in range(10)}
    [problem] = findings(cohort([*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)], splits=parts))
    assert "under different names" in problem.what


def test_a_twin_across_the_sets_own_split_says_that_the_plan_leaves_it_out():
    parts = {f"c{n}": "test" if n == 10 else "train" for n in range(11)}
    dataset = cohort([*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)], splits=parts)
    [problem] = findings(dataset)
    assert "two parts of the set's own split" in problem.what
    assert "leaves the others out of training" in problem.remedy
    assert not dataset_examination.examine(dataset).fatal


def test_a_twin_of_a_training_image_that_selects_is_not_told_as_one_of_a_test_image():
    parts = {f"c{n}": "val" if n == 10 else "train" for n in range(11)}
    dataset = cohort([*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)], splits=parts)
    [problem] = findings(dataset)
    assert "none of which is the test part" in problem.what
    assert "test" not in f"{problem.why} {problem.remedy}"


def test_one_image_with_two_classes_is_said_as_that():
    classes = "ab" * 5 + "a"
    [problem] = findings(cohort([*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)], classes))
    assert "with different classes" in problem.what


@pytest.mark.parametrize(
    ("kind", "one", "other", "what"),
    [
        ("value", {"area": 3.0}, {"area": 4.0}, "with different values"),
        ("value", {"area": 3.0}, {"area": 3.0}, "under different names"),
        ("event", (30.0, True), (90.0, True), "with different times"),
        ("event", (30.0, True), (30.0, False), "with different times"),
    ],
)
def test_one_image_with_two_measurements_is_said_as_that(kind, one, other, what):
    images, owners = [*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)]
    dataset = cohort(images, owners)
    cases = [replace(case, references={kind: other if n == 10 else one}) for n, case in enumerate(dataset)]
    [problem] = findings(replace(dataset, cases=tuple(cases)))
    assert what in problem.what


def test_nearly_the_same_image_may_have_another_value():
    dataset = cohort([*map(picture, range(10)), nearly(3)], [f"p{n}" for n in range(11)])
    cases = [replace(case, references={"value": {"volume": float(n)}}) for n, case in enumerate(dataset)]
    [problem] = findings(replace(dataset, cases=tuple(cases)))
    assert "under different names" in problem.what


def test_one_image_with_and_without_a_finding_is_said_as_that_and_what_is_not_known_contradicts_nothing():
    images, owners = [*map(picture, range(10)), picture(3)], [f"p{n}" for n in range(11)]
    for last, what in (({"a": False}, "with different findings"), ({"b": True}, "under different names")):
        cases = [
            Case(f"c{n}", owner, {"image": image}, {"findings": last if n == 10 else {"a": True}})
            for n, (image, owner) in enumerate(zip(images, owners, strict=True))
        ]
        [problem] = findings(Dataset(tuple(cases), patients_known=True))
        assert what in problem.what


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_patient_of_whom_the_sets_own_split_names_one_case_alone_is_in_two_parts(part):
    """What it does not name trains."""
    data = cohort([picture(n) for n in range(4)], ["a", "a", "b", "c"])

    def parted(**splits: str) -> list[Problem]:
        return [
            one
            for one in dataset_examination.examine(replace(data, splits=splits)).problems
            if "in more than one part" in one.what
        ]

    [both] = parted(c0=part, c3=part)
    assert (both.severity, both.cases) == ("error", ("c0", "c1"))
    assert not parted(c3=part)


def test_patients_who_differ_in_upper_and_lower_case_alone_are_named_by_their_cases():
    data = cohort([picture(n) for n in range(4)], ["P1", "p1", "P2", "Q1"])
    [problem] = [one for one in dataset_examination.examine(data).problems if "upper and lower case" in one.what]
    assert (problem.severity, problem.cases) == ("warning", ("c0", "c1"))
    assert "P1" not in f"{problem}".replace(repr(problem.cases), "")


@pytest.mark.whole
def test_the_pairs_of_many_neighbouring_slices_are_parted_and_joined():
    """Each slice is a case of its own, nearly the same image as the next; pairs by pairs would take a minute."""
    names = [f"c{n}" for n in range(20_000)]
    pairs = tuple(Twin(one, other, 0.98, False) for one, other in zip(names[::2], names[1::2], strict=True))
    cases = tuple(Case(name, f"p{n // 100}", {}) for n, name in enumerate(names))
    found = Fingerprint(tuple(facts(name=name) for name in names))
    [problem] = [
        one
        for one in leakage.leakage_problems(Dataset(cases, patients_known=True), found, pairs)
        if "image" in one.what
    ]
    assert problem.what == "10000 pairs of cases with nearly the same image of one patient"
    assert len(leakage.joined_groups(pairs)) == 10_000
