from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import DatasetError, PlanError
from hilum.planning import plan_result
from hilum.planning.rules import split_rules
from hilum.values import Case, Dataset, Decision, Plan


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
    parts, _ = split_rules.split_dataset(data, seed=seed)
    assert set(parts) == {case.id for case in data}
    for patient in {case.patient for case in data}:
        assert len({parts[case.id] for case in data if case.patient == patient}) == 1
    assert {"train", "val", "test"} == set(parts.values())
    assert split_rules.split_dataset(data, seed=seed)[0] == parts


def test_another_seed_samples_other_patients():
    data = cohort(list(range(60)))
    assert split_rules.split_dataset(data, seed=0)[0] != split_rules.split_dataset(data, seed=1)[0]


@pytest.mark.parametrize(("cases", "volumes", "selecting"), [(100, False, 12), (100, True, 8), (1000, True, 20)])
def test_a_fifth_is_test_and_of_the_rest_volumes_select_seldom_and_others_by_15_per_cent(cases, volumes, selecting):
    parts = list(
        split_rules.split_dataset(cohort(list(range(cases))), seed=3, volumes=volumes, calibration=0)[0].values()
    )
    assert [parts.count(part) for part in ("train", "val", "test")] == [
        cases - cases // 5 - selecting,
        selecting,
        cases // 5,
    ]


@pytest.mark.parametrize(("cases", "selecting"), [(390, 47), (400, 100), (2000, 240)])
def test_a_hundred_select_of_sets_that_have_four_hundred(cases, selecting):
    assert list(split_rules.split_dataset(cohort(list(range(cases))), seed=3)[0].values()).count("val") == selecting


def test_the_patients_of_a_sets_own_test_part_make_no_large_set_of_the_others():
    """A hundred patients beside a test part of 300: half of them would be a high price for a validation part."""
    data = cohort(list(range(400)), splits={f"c{n}": "test" for n in range(300)})
    assert list(split_rules.split_dataset(data, seed=3)[0].values()).count("val") == 15
    first, *_ = split_rules.split_folds(data, 5, seed=3)
    assert list(first.values()).count("val") == 12
    assert (
        "at least"
        not in split_rules.folds_decision(data, split_rules.split_folds(data, 5, seed=3), 3).because.partition(
            "to select"
        )[2]
    )


def test_many_images_of_few_patients_are_no_large_set():
    """Thirty patients with twenty images each: a third of the patients would be a high price for a validation part."""
    data = cohort([patient for patient in range(30) for _ in range(20)])
    parts = split_rules.split_dataset(data, seed=3)[0]
    patients = {
        part: len({case.patient for case in data if parts[case.id] == part}) for part in ("train", "val", "test")
    }
    assert patients == {"train": 20, "val": 4, "test": 6}


def test_a_patient_who_owns_most_images_leaves_the_parts_as_large_as_they_should_be():
    owners = [0] * 60 + list(range(1, 41))
    for seed in range(10):
        parts = list(split_rules.split_dataset(cohort(owners), seed=seed)[0].values())
        assert parts.count("test") == 20
        assert parts.count("val") == 12


def test_a_rare_class_is_in_every_part_by_its_share():
    data = cohort(list(range(100)), ["common"] * 80 + ["rare"] * 20)
    parts, _ = split_rules.split_dataset(data, seed=5)
    rare = [parts[case.id] for case in data if case.references["class"] == "rare"]
    assert rare.count("test") == 4
    assert rare.count("val") == 2  # of 12


def test_who_had_the_event_is_in_every_part_by_his_share():
    cases = tuple(Case(f"c{n}", f"p{n}", {}, {"event": (float(n + 1), n < 20)}) for n in range(100))
    parts, _ = split_rules.split_dataset(Dataset(cases, patients_known=True), seed=5)
    had = [parts[f"c{n}"] for n in range(20)]
    assert (had.count("test"), had.count("val")) == (4, 2)


def test_a_sets_own_test_part_is_kept_whole():
    own = {f"c{n}": "test" if n % 3 == 0 else "train" for n in range(60)}
    parts, decisions = split_rules.split_dataset(cohort(list(range(60)), splits=own), seed=0)
    assert {case for case, part in parts.items() if part == "test"} == {c for c, part in own.items() if part == "test"}
    assert list(parts.values()).count("val") == 6
    assert decisions["method"].value == "own"


def test_a_sets_own_validation_part_selects():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    assert split_rules.split_dataset(cohort(list(range(40)), splits=own), seed=0)[0] == own


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize(("columns", "words"), [({"split": "fold"}, "column fold says"), ({}, "its own split says")])
def test_a_set_that_leaves_no_case_to_train_on_says_where_and_what_to_do(part, columns, words):
    dataset = cohort(list(range(12)), splits=dict.fromkeys([f"c{n}" for n in range(12)], part))
    dataset = replace(dataset, splits={case.id: part for case in dataset}, columns=columns)
    for parted in (
        split_rules.split_dataset,
        partial(split_rules.split_dataset, everything=True),
        partial(split_rules.split_folds, folds=3),
    ):
        with pytest.raises(DatasetError, match=f"{words} {part} for 12 cases.*hilum evaluate"):
            parted(dataset, seed=0)


def test_everything_trains_but_a_sets_own_test_part():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    parts, _ = split_rules.split_dataset(cohort(list(range(40)), splits=own), seed=0, everything=True)
    assert {part: list(parts.values()).count(part) for part in set(parts.values())} == {"test": 10, "train": 30}
    assert set(split_rules.split_dataset(cohort(list(range(40))), seed=0, everything=True)[0].values()) == {"train"}


def test_one_patient_cannot_be_parted():
    with pytest.raises(DatasetError, match="1 patient: too few"):
        split_rules.split_dataset(cohort([1] * 30), seed=0)


def test_the_reason_says_whether_patients_are_known():
    assert "by patient" in split_rules.split_dataset(cohort(list(range(30))), seed=0)[1]["method"].because
    unknown = Dataset(cohort(list(range(30))).cases, patients_known=False)
    assert "leakage cannot be excluded" in split_rules.split_dataset(unknown, seed=0)[1]["method"].because


pairs = st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79)), max_size=6)


def groups_of(found: list[tuple[int, int]]) -> list[frozenset[str]]:
    return [frozenset({f"c{one}", f"c{other}"}) for one, other in found if one != other]


@given(owners, pairs, st.integers(0, 99))
@settings(max_examples=30)
def test_twins_are_sampled_like_one_patient(owners, found, seed):
    twins = [group for group in groups_of(found) if max(int(case[1:]) for case in group) < len(owners)]
    try:
        parts, _ = split_rules.split_dataset(cohort(owners), seed=seed, twins=twins)
    except DatasetError:  # so many are twins that hardly anybody is left to part
        return
    for group in twins:
        assert len({parts[case] for case in group}) == 1


def test_in_a_sets_own_split_the_test_part_stays_whole_and_its_twins_leave_the_others():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    twins = [frozenset({"c0", "c1"}), frozenset({"c4", "c2"}), frozenset({"c6", "c7"})]
    parts, decisions = split_rules.split_dataset(cohort(list(range(40)), splits=own), seed=0, twins=twins)
    assert {"c1", "c2"} == set(own) - set(parts)  # a val and a train twin of test
    assert parts == {case: part for case, part in own.items() if case in parts}
    assert "2 cases left out: nearly the same image is in the test part" in decisions["method"].because


def test_in_a_sets_own_split_validation_patients_whose_image_trains_in_a_copy_train_too():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    owner = [5 if n == 9 else n for n in range(40)]  # c9 is another image of the patient of c5, of which c3 is a copy
    parts, decisions = split_rules.split_dataset(cohort(owner, splits=own), seed=0, twins=[frozenset({"c5", "c3"})])
    assert parts == own | {"c5": "train", "c9": "train"}
    assert "2 cases of it for training: nearly the same image is there" in decisions["method"].because


def test_copies_leave_the_training_part_where_half_of_a_sets_own_validation_part_would_be_lost():
    own = {f"c{n}": ("test", "val", "train", "train")[n % 4] for n in range(40)}
    twins = [frozenset({f"c{n}", f"c{n + 1}"}) for n in range(1, 25, 4)]  # 6 of 10 validation cases
    parts, decisions = split_rules.split_dataset(cohort(list(range(40)), splits=own), seed=0, twins=twins)
    assert parts == {case: part for case, part in own.items() if case not in {f"c{n + 1}" for n in range(1, 25, 4)}}
    assert "6 cases left out: nearly the same image is in the validation part" in decisions["method"].because


@given(owners, st.integers(2, 8), st.integers(0, 99))
@settings(max_examples=30)
def test_over_the_folds_every_case_is_tested_once_and_no_patient_is_on_two_sides(owners, folds, seed):
    data = cohort(owners)
    made = split_rules.split_folds(data, folds, seed=seed)
    assert len(made) == folds
    for case in data:
        assert [parts[case.id] for parts in made].count("test") == 1
    for parts in made:
        assert {"train", "val", "test"} == set(parts.values())
        for patient in {case.patient for case in data}:
            assert len({parts[case.id] for case in data if case.patient == patient}) == 1
    assert split_rules.split_folds(data, folds, seed=seed) == made


@given(st.lists(st.sampled_from("abc"), min_size=20, max_size=60), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=30)
def test_every_fold_tests_each_class_by_its_share(classes, folds, seed):
    data = cohort(list(range(len(classes))), classes)
    made = split_rules.split_folds(data, folds, seed=seed)
    for name in set(classes):
        tested = [sum(parts[case.id] == "test" for case in data if case.references["class"] == name) for parts in made]
        assert max(tested) - min(tested) <= 1


@given(owners, pairs, st.integers(2, 4))
@settings(max_examples=20)
def test_twins_are_in_one_fold(owners, found, folds):
    twins = [group for group in groups_of(found) if max(int(case[1:]) for case in group) < len(owners)]
    try:
        made = split_rules.split_folds(cohort(owners), folds, seed=1, twins=twins)
    except PlanError:
        return
    for group in twins:
        for parts in made:
            assert len({parts[case] for case in group}) == 1


def test_a_sets_own_test_part_and_its_twins_are_in_no_fold():
    own = {f"c{n}": "test" if n % 4 == 0 else "train" for n in range(40)}
    data = cohort(list(range(40)), splits=own)
    made = split_rules.split_folds(data, 5, seed=0, twins=[frozenset({"c0", "c1"})])
    assert set(made[0]) == {case for case, part in own.items() if part == "train"} - {"c1"}
    stated = split_rules.folds_decision(data, made, 0)
    assert stated.value == "folds"
    assert "own test part of 10 cases is in no fold" in stated.because
    assert "1 case left out" in stated.because


def test_fewer_patients_than_folds_are_refused_with_what_would_do():
    with pytest.raises(PlanError, match=r"4 patients cannot be split into 5 folds. Give 2 to 4 folds"):
        split_rules.split_folds(cohort([0, 0, 1, 1, 2, 3]), 5, seed=0)
    with pytest.raises(PlanError, match="Give more patients"):
        split_rules.split_folds(cohort([0, 0, 1, 1]), 2, seed=0)
    with pytest.raises(PlanError, match="1 fold"):
        split_rules.split_folds(cohort(list(range(9))), 1, seed=0)
    unknown = replace(cohort([0, 1, 2, 3]), patients_known=False)
    with pytest.raises(PlanError, match=r"4 cases cannot be split into 5 folds"):
        split_rules.split_folds(unknown, 5, seed=0)
    with pytest.raises(DatasetError, match=r": 1 case: too few to split"):
        split_rules.split_dataset(unknown.only({"c0"}), seed=0)


@given(st.lists(st.sets(st.sampled_from("abcd")), min_size=40, max_size=60), st.integers(0, 99))
@settings(max_examples=30)
def test_a_finding_that_several_patients_have_alone_is_in_the_test_part_too(findings, seed):
    cases = tuple(
        Case(f"c{n}", f"p{n}", {}, {"findings": {name: name in own for name in "abcd"}})
        for n, own in enumerate(findings)
    )
    parts, _ = split_rules.split_dataset(Dataset(cases, patients_known=True), seed=seed)
    counts = {name: sum(name in own for own in findings) for name in "abcd"}
    rarest = [min(own, key=lambda name: counts[name]) for own in findings if own]
    for name in "abcd":
        # Who has several findings is sampled for the rarest; of four such patients one is test.
        if rarest.count(name) >= 4 and len({counts[one] for one in "abcd"}) == 4:
            assert any(parts[f"c{n}"] == "test" for n, own in enumerate(findings) if name in own)


def test_findings_are_spread_over_folds():
    own = [("rare",) if n % 8 == 0 else ("common",) if n % 2 else () for n in range(64)]
    cases = tuple(
        Case(f"c{n}", f"p{n}", {}, {"findings": {name: name in has for name in ("rare", "common")}})
        for n, has in enumerate(own)
    )
    for parts in split_rules.split_folds(Dataset(cases, patients_known=True), 4, seed=0):
        assert sum(parts[f"c{n}"] == "test" for n, has in enumerate(own) if "rare" in has) == 2


def measured(values: list[float | None]) -> Dataset:
    """A case and a patient for each value of a; all have one of b."""
    known = [{"b": 1.0} if value is None else {"b": 1.0, "a": value} for value in values]
    cases = tuple(Case(f"c{n}", f"p{n}", {}, {"value": one}) for n, one in enumerate(known))
    return Dataset(cases, patients_known=True)


@given(st.lists(st.floats(-1e6, 1e6), min_size=40, max_size=80), st.integers(0, 99))
@settings(max_examples=20)
def test_each_part_has_small_and_large_values(values, seed):
    data = Dataset(tuple(Case(f"c{n}", f"p{n}", {}, {"value": {"a": v}}) for n, v in enumerate(values)))
    parts, _ = split_rules.split_dataset(data, seed=seed)
    ranked = sorted(data, key=lambda case: (case.references["value"]["a"], case.id))
    # What is left once the test is sampled is parted anew, into fewer where there are fewer.
    for part, count in (("test", len(ranked) // 4 + 1), ("val", len(ranked) // 2)):
        assert any(parts[case.id] == part for case in ranked[:count])
        assert any(parts[case.id] == part for case in ranked[-count:])


def test_folds_spread_values_evenly_and_say_so():
    data = measured([float(n) for n in range(40)])
    made = split_rules.split_folds(data, 5, seed=0)
    for parts in made:
        tested = [case.references["value"]["a"] for case in data if parts[case.id] == "test"]
        assert all(sum(low <= value < low + 10 for value in tested) == 2 for low in (0, 10, 20, 30))
    assert "small and large values spread evenly" in split_rules.folds_decision(data, made, 0).because


def test_few_cases_and_missing_values_are_parted_all_the_same():
    for values in ([1.0, 2.0, 3.0, None, 5.0, 6.0], [None] * 8, [2.5] * 12):
        parts, _ = split_rules.split_dataset(measured(values), seed=0)
        assert {"train", "val", "test"} == set(parts.values())


@pytest.mark.parametrize(("patients", "spared"), [(400, 0), (500, 30), (2000, 136), (9000, 500)])
def test_large_sets_spare_a_tenth_of_their_training_cases_for_guarantees_and_the_other_parts_stay(patients, spared):
    data = cohort(list(range(patients)))
    parts, decisions = split_rules.split_dataset(data, seed=1)
    without, _ = split_rules.split_dataset(data, seed=1, calibration=0)
    spared_ids = {case for case, part in parts.items() if part == "calibration"}
    assert decisions["calibration"].value == len(spared_ids) == spared
    assert {case: part for case, part in without.items() if case not in spared_ids} == {
        case: part for case, part in parts.items() if case not in spared_ids
    }
    assert {without[case] for case in spared_ids} <= {"train"}
    words = f"{spared} calibrate" in decisions["method"].because
    assert words == bool(spared)
    assert ("too few to spare" if not spared else "hold as promised") in decisions["calibration"].because


@given(owners, st.integers(0, 99))
@settings(max_examples=20)
def test_no_patient_calibrates_and_does_anything_else(owners, seed):
    data = cohort(owners)
    parts, _ = split_rules.split_dataset(data, seed=seed, calibration=6)
    by_part = {part: {case.patient for case in data if parts[case.id] == part} for part in set(parts.values())}
    assert sum(len(patients) for patients in by_part.values()) == len(set(owners))


def test_every_class_calibrates_by_its_share():
    parts, _ = split_rules.split_dataset(cohort(list(range(2000)), ["common"] * 1800 + ["rare"] * 200), seed=2)
    rare = [parts[f"c{n}"] for n in range(1800, 2000)]
    assert rare.count("calibration") == 14
    assert list(parts.values()).count("calibration") == 136


def test_of_a_large_validation_part_of_the_sets_own_one_half_calibrates():
    own = {f"c{n}": "test" if n < 100 else "val" if n < 350 else "train" for n in range(500)}
    parts, decisions = split_rules.split_dataset(cohort(list(range(500)), splits=own), seed=0)
    assert {own[case] for case, part in parts.items() if part == "calibration"} == {"val"}
    assert all(part in (own[case], "calibration") for case, part in parts.items())
    assert decisions["calibration"].value == 125 == list(parts.values()).count("val")
    assert "half of the set's own 250" in decisions["calibration"].because


def test_a_sets_own_calibration_part_is_kept_and_no_twin_of_it_trains():
    own = {f"c{n}": ("test", "calibration", "val", "train", "train")[n % 5] for n in range(60)}
    parts, decisions = split_rules.split_dataset(
        cohort(list(range(60)), splits=own), seed=0, twins=[frozenset({"c1", "c3"})]
    )
    assert parts == {case: part for case, part in own.items() if case != "c3"}
    assert (decisions["calibration"].value, "own" in decisions["calibration"].because) == (12, True)
    everything, decisions = split_rules.split_dataset(cohort(list(range(60)), splits=own), seed=0, everything=True)
    assert set(everything.values()) == {"train", "test"}
    assert decisions["calibration"].value == 0


def test_more_than_half_of_the_training_cases_are_not_spared():
    with pytest.raises(PlanError, match=r"50 of 68 cases would calibrate.*Give at most 34"):
        split_rules.split_dataset(cohort(list(range(100))), seed=0, calibration=50)


@pytest.mark.parametrize(
    ("classes", "each", "tested"), [(300, 2, 120), (10, 2, 4), (10, 3, 6), (50, 3, 30), (8, 4, 8), (40, 1, 8)]
)
def test_of_classes_with_few_patients_each_the_parts_are_as_large_as_they_should_be(classes, each, tested):
    """Of classes of four each part has all, and of classes of one those that are sampled have nobody left to train."""
    names = [f"class {n:03}" for n in range(classes) for _ in range(each)]
    data = cohort(list(range(len(names))), names)
    parts, _ = split_rules.split_dataset(data, seed=1, calibration=0)
    counts = Counter(parts.values())
    if each > 1:
        assert abs(counts["test"] - tested) <= 1
        left = len(names) - counts["test"]
        assert 0.1 * left <= counts["val"] <= 0.35 * left
        assert {case.references["class"] for case in data if parts[case.id] == "train"} == set(names)
    else:
        assert (counts["test"], counts["val"]) == (1, 1)


@pytest.mark.parametrize("sizes", [{"k": 3, "z": 1}, {"a": 2, "b": 2, "c": 2, "z": 1}, {"a": 1, "k": 3}])
@given(seed=st.integers(0, 20))
@settings(max_examples=5)
def test_the_only_patient_of_a_class_trains_wherever_its_name_comes(sizes, seed):
    names = [name for name, count in sizes.items() for _ in range(count)]
    data = cohort(list(range(len(names))), names)
    parts, _ = split_rules.split_dataset(data, seed=seed)
    alone = {name for name, count in sizes.items() if count == 1}
    assert all(parts[case.id] == "train" for case in data if case.references["class"] in alone)


def test_a_pair_is_never_parted_from_others_of_its_patients() -> None:
    cases = [Case(f"{a}{b}", f"{a} & {b}", {}) for a, b in ("ab", "bc", "de", "fg", "hi", "jk", "lm", "no")]
    parts, _ = split_rules.split_dataset(Dataset(tuple(cases)), seed=0)
    assert parts["ab"] == parts["bc"]
    assert {"train", "val", "test"} == set(parts.values())


def test_reasons_count_cases_where_nobody_knows_whose_they_are_and_a_class_keeps_its_name():
    reasons = {
        "144 training patients are too few": "144 training cases are too few",
        "a fifth of the patients, sampled by seed 0": "a fifth of the cases, sampled by seed 0",
        "log loss 0.04 in patients that did not fit it; of 16 patients": (
            "log loss 0.04 in cases that did not fit it; of 16 cases"
        ),
        "exclude nothing for 1 (3 patients); 2 (3): too few patients": (
            "exclude nothing for 1 (3 cases); 2 (3): too few cases"
        ),
        "18 are patient and 3 are healthy": "18 are patient and 3 are healthy",
        "by case, patients unknown": "by case, patients unknown",
    }
    made = Plan({"split": {str(n): Decision(n, reason) for n, reason in enumerate(reasons)}})
    assert [decision.because for _, decision in plan_result.count_in_cases(made)] == list(reasons.values())
