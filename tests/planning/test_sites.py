"""Folds that leave out whole sites, and columns that are none."""

from __future__ import annotations

import pytest

from hilum.errors import UsageError
from hilum.planning.rules import site_rules, split_rules
from hilum.values import Case, Dataset


def cohort(sites, *, classes="ab", patients=None) -> Dataset:
    """A case for each site that is named, of alternating classes, each another patient's."""
    cases = tuple(
        Case(
            f"c{n}",
            f"p{n}" if patients is None else patients[n],
            {},
            {"class": classes[n // 2 % len(classes)]},
            {"site": site},
        )
        for n, site in enumerate(sites)
    )
    return Dataset(cases, patients_known=True)


def folds_of(dataset: Dataset, folds: int | None = None):
    count = site_rules.count_folds(dataset, "site", folds, ())
    together = tuple(site_rules.cases_by_site(dataset, "site").values())
    return split_rules.split_folds(dataset, count, seed=0, undivided_groups=together)


def sites_left_out(dataset: Dataset, parts) -> set[str]:
    return {case.covariates["site"] for case in dataset if parts[case.id] == "test"}


def test_each_fold_tests_the_whole_of_one_site_and_trains_on_none_of_it():
    dataset = cohort("ABCD" * 10)
    folds = folds_of(dataset)
    assert sorted(map(tuple, (sites_left_out(dataset, parts) for parts in folds))) == [("A",), ("B",), ("C",), ("D",)]
    for parts in folds:
        assert list(parts.values()).count("test") == 10
        others = {case.covariates["site"] for case in dataset if parts[case.id] == "val"}
        assert others
        assert not others & sites_left_out(dataset, parts)


def test_fewer_folds_than_sites_leave_out_several_whole_ones():
    dataset = cohort("ABCDEF" * 6)
    folds = folds_of(dataset, 3)
    tested = [sites_left_out(dataset, parts) for parts in folds]
    assert len(tested) == 3
    assert sorted(site for sites in tested for site in sites) == list("ABCDEF")


def test_two_sites_make_two_folds():
    assert len(folds_of(cohort("AB" * 10))) == 2


def test_sites_that_share_a_patient_are_left_out_together():
    dataset = cohort("ABC" * 8, patients=["shared" if n < 2 else f"p{n}" for n in range(24)])
    assert sorted(map(len, (sites_left_out(dataset, parts) for parts in folds_of(dataset)))) == [1, 2]


def test_sites_that_all_share_a_patient_are_refused_by_the_name_of_the_patient():
    dataset = cohort("AB" * 8, patients=["P. 7" if n < 2 else f"p{n}" for n in range(16)])
    with pytest.raises(UsageError, match=r"patient P\. 7 is at several"):
        folds_of(dataset)


def test_more_than_ten_sites_need_a_number_of_folds():
    dataset = cohort([f"s{n % 12}" for n in range(48)])
    with pytest.raises(UsageError, match=r"12 sites.*Add --folds K, 2 to 12"):
        folds_of(dataset)
    assert len(folds_of(dataset, 4)) == 4


@pytest.mark.parametrize(
    ("sites", "column", "words"),
    [
        ("A" * 12, "site", "site has 1 value"),
        ("AABB" * 3, "site", "site is the label"),
        ("AB" * 6, "ward", "there is no covariate 'ward'"),
        (["A", "B", "", "C"] * 3, "site", "site is blank for 3 cases: c10, c2, c6"),
    ],
    ids=["one value", "the label", "no column", "blanks"],
)
def test_a_column_that_makes_no_folds_is_refused(sites, column, words):
    with pytest.raises(UsageError, match=words):
        site_rules.cases_by_site(cohort(sites), column)
