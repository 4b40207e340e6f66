from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isocenter.errors import DatasetError
from isocenter.planning import split
from isocenter.values import Case, Dataset


def cohort(owners: list[int], classes: list[str] | None = None, splits: dict | None = None) -> Dataset:
    """A case for each owner, with the patient's number."""
    named = classes or [""] * len(owners)
    cases = tuple(
        Case(f"c{n}", f"p{owner}", {}, {"class": name} if name else {})
        for n, (owner, name) in enumerate(zip(owners, named, strict=True))
    )
    return Dataset(cases, splits=splits or {}, patients_known=True)


owners = st.lists(st.integers(0, 30), min_size=20, max_size=80).filter(lambda found: len(set(found)) >= 8)


@given(owners, st.integers(0, 99), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_all_cases_of_a_patient_are_in_one_part_and_the_order_of_cases_does_not_matter(owners, seed, random):
    data = cohort(owners)
    parts, _ = split(data, seed=seed)
    assert set(parts) == {case.id for case in data}
    for patient in {case.patient for case in data}:
        assert len({parts[case.id] for case in data if case.patient == patient}) == 1
    assert {"train", "val", "test"} == set(parts.values())
    assert split(data, seed=seed)[0] == parts


def test_another_seed_draws_other_patients():
    data = cohort(list(range(60)))
    assert split(data, seed=0)[0] != split(data, seed=1)[0]


def test_a_fifth_is_test_and_a_tenth_of_the_rest_selects():
    parts = list(split(cohort(list(range(100))), seed=3)[0].values())
    assert [parts.count(part) for part in ("train", "val", "test")] == [72, 8, 20]


def test_at_most_twenty_cases_select():
    assert list(split(cohort(list(range(1000))), seed=3)[0].values()).count("val") == 20


def test_a_rare_class_is_in_every_part_by_its_share():
    data = cohort(list(range(100)), ["common"] * 80 + ["rare"] * 20)
    parts, _ = split(data, seed=5)
    rare = [parts[case.id] for case in data if case.references["class"] == "rare"]
    assert rare.count("test") == 4
    assert rare.count("val") == 2


def test_a_sets_own_test_part_is_kept_whole():
    own = {f"c{n}": "test" if n % 3 == 0 else "train" for n in range(60)}
    parts, decision = split(cohort(list(range(60)), splits=own), seed=0)
    assert {case for case, part in parts.items() if part == "test"} == {c for c, part in own.items() if part == "test"}
    assert list(parts.values()).count("val") == 4
    assert decision.value == "own"


def test_a_sets_own_validation_part_selects():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    assert split(cohort(list(range(40)), splits=own), seed=0)[0] == own


def test_everything_trains_but_a_sets_own_test_part():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    parts, _ = split(cohort(list(range(40)), splits=own), seed=0, everything=True)
    assert {part: list(parts.values()).count(part) for part in set(parts.values())} == {"test": 10, "train": 30}
    assert set(split(cohort(list(range(40))), seed=0, everything=True)[0].values()) == {"train"}


def test_one_patient_cannot_be_parted():
    with pytest.raises(DatasetError, match="1 patient: too few"):
        split(cohort([1] * 30), seed=0)


def test_the_reason_says_whether_patients_are_known():
    assert "by patient" in split(cohort(list(range(30))), seed=0)[1].because
    unknown = Dataset(cohort(list(range(30))).cases, patients_known=False)
    assert "leakage cannot be excluded" in split(unknown, seed=0)[1].because
