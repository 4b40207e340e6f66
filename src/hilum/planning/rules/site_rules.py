"""Rules of sites: the column of the cases that names where each was examined, and folds that leave out whole sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.planning.rules import split_rules
from hilum.planning.rules.split_rules import Twins
from hilum.values import Case, Dataset, grouping

# Of so many sites each is a fold by itself; of more a person says in how many folds they lie.
MOST_FOLDS = 10
FOLDS_BY = "split.folds_by"


def sites_of_cases(cases: Sequence[Case], column: str, flag: str = "--sites") -> dict[str, str]:
    """{case id: its site}, "unknown" where the column is blank.

    Raises UsageError for what is no column of these cases, or several.
    """
    names = dict.fromkeys(name for case in cases for name in case.covariates)
    covariates = {name: [case.covariates.get(name) for case in cases] for name in names}
    found = group_attributes.groups_by_attribute(covariates, column, flag=flag)
    if len(found) != 1:
        raise UsageError(f"{column!r} is not one column", flag, f"Choose from {errors.list_phrase(list(names))}")
    return dict(zip((case.id for case in cases), next(iter(found.values())).tolist(), strict=True))


def refuse_sites(cases: Sequence[Case], column: str, flag: str = "--sites") -> None:
    """UsageError for a column that names a single site, or that is the label, and what `sites_of_cases` raises."""
    sites = sites_of_cases(cases, column, flag)
    known = {site for site in sites.values() if site != UNKNOWN}
    if len(known) < 2:
        problem = f"{column} has {errors.count_phrase(len(known), 'value')} in these cases"
        raise UsageError(problem, flag, "Name a column with two sites or more")
    strata = split_rules.strata_names(cases)
    pairs = {(sites[case.id], tuple(sorted(strata[case.id]))) for case in cases}
    if len(pairs) == len({site for site, _ in pairs}) == len({names for _, names in pairs}):
        problem = f"{column} is the label: each of its values has one class, and each class one value"
        raise UsageError(problem, flag, "Name a column that says where a case comes from")


def cases_by_site(dataset: Dataset, column: str) -> dict[str, set[str]]:
    """{site: ids of its cases outside the set's own test part}; UsageError for what cannot make folds."""
    flag = "--folds-by"
    cases = [case for case in dataset if dataset.splits.get(case.id) != "test"]
    refuse_sites(cases, column, flag)
    by_site = grouping.distinct_by_key((site, case) for case, site in sites_of_cases(cases, column, flag).items())
    if blank := sorted(by_site.get(UNKNOWN, ())):
        problem = f"{column} is blank for {errors.count_phrase(len(blank), 'case')}: {errors.list_phrase(blank)}"
        raise UsageError(problem, flag, "Fill it in, or leave these cases out")
    return dict(sorted(by_site.items()))


def count_folds(dataset: Dataset, column: str, folds: int | None, twins: Twins) -> int:
    """The number of folds that leave out whole sites: one a site up to ten, unless a number is asked for.

    Sites that share a patient lie in one fold. Raises UsageError where these are fewer than two, by the patient's name.
    """
    by_site = cases_by_site(dataset, column)
    cases = [case for case in dataset if any(case.id in own for own in by_site.values())]
    people = split_rules.people_of_cases(cases, [*twins, *by_site.values()])
    count = len(set(people.values()))
    if count < 2:
        pairs = {(case.patient, site) for site, own in by_site.items() for case in cases if case.id in own}
        shared = next((patient for patient, of in Counter(one for one, _ in pairs).items() if of > 1), "")
        where = f"patient {shared}" if shared else "nearly the same image"
        problem = f"the sites of {column} cannot be left out one by one: {where} is at several of them"
        raise UsageError(problem, "--folds-by", "Correct the column, or the patients, or name another column")
    if folds is None and count > MOST_FOLDS:
        remedy = f"Add --folds K, 2 to {count}: each fold then leaves out some of them"
        raise UsageError(f"{column} has {count} sites", "--folds-by", remedy)
    return folds or count
