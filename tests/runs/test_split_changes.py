"""Changes of a run's split: who moved between which parts, and what no split may be."""

from __future__ import annotations

import pandas as pd
import pytest

from hilum.errors import PlanError
from hilum.runs import split_changes
from hilum.values import Case, Dataset

DATASET = Dataset(tuple(Case(f"case{n}", f"patient{n // 2}", {}) for n in range(6)), patients_known=True)
BEFORE = {"0": {f"case{n}": ("train", "train", "val", "val", "test", "test")[n] for n in range(6)}}


def changed(**parts: str) -> dict[str, dict[str, str]]:
    """The split with some cases in other parts."""
    return {"0": {**BEFORE["0"], **parts}}


def test_cases_and_patients_that_moved_are_counted_by_the_parts_between_which_they_moved():
    now = changed(case0="test", case1="test", case4="train", case5="train")
    phrase = split_changes.moves_phrase(BEFORE, now, DATASET)
    assert phrase == "2 cases of 1 patient from test to train, 2 cases of 1 patient from train to test"
    left_out = {"0": {case: part for case, part in BEFORE["0"].items() if case != "case2"}}
    assert split_changes.moves_phrase(BEFORE, left_out, DATASET) == "1 case from val to no part"


def test_a_case_that_moved_in_several_folds_is_counted_once_for_each_way():
    folds = {"0": {"case0": "train"}, "1": {"case0": "train"}, "": {"case5": "test"}}
    now = {"0": {"case0": "val"}, "1": {"case0": "val"}, "": {"case5": "test"}}
    assert split_changes.moves_phrase(folds, now, DATASET) == "1 case from train to val"


def test_a_split_whose_table_is_sorted_otherwise_has_the_same_parts():
    table = pd.DataFrame([{"case": case, "fold": "0", "split": part} for case, part in BEFORE["0"].items()])
    assert split_changes.parts_by_fold(table.iloc[::-1]) == BEFORE


def test_a_patient_whom_a_change_puts_into_two_parts_is_refused_by_the_cases():
    with pytest.raises(PlanError, match=r"1 patient lies in several parts \(cases case4, case5\)"):
        split_changes.refuse_unfit_parts(BEFORE, changed(case5="train"), DATASET, "split.csv")
    pair = Dataset((*DATASET.cases, Case("pair", "patient2 & patient3", {})), patients_known=True)
    with pytest.raises(PlanError, match="several parts"):
        split_changes.refuse_unfit_parts(BEFORE, changed(pair="val"), pair, "split.csv")


def test_patients_who_lay_in_two_parts_before_and_folds_of_a_cross_validation_are_no_change():
    torn = changed(case5="train")
    split_changes.refuse_unfit_parts(torn, {"0": {**torn["0"], "case3": "val"}}, DATASET, "split.csv")
    folds = {"0": {"case0": "train", "case1": "train"}, "1": {"case0": "test", "case1": "test"}}
    split_changes.refuse_unfit_parts({}, folds, DATASET, "split.csv")


def test_a_part_that_there_is_not_is_refused():
    with pytest.raises(PlanError, match="names parts that there are not: 'trian'"):
        split_changes.refuse_unfit_parts(BEFORE, changed(case0="trian", case1="trian"), DATASET, "split.csv")
