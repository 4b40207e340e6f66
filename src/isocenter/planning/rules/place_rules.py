"""Rules of places: scanners or sites, of which a column of the data, or a target, tells the images."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from isocenter.errors import PlanError, UsageError
from isocenter.evaluation.fairness import group_attributes
from isocenter.evaluation.fairness.group_attributes import UNKNOWN
from isocenter.quality import references
from isocenter.values import Case, Dataset, Fingerprint

DOMAIN = "objectives.domain"


def place_groups(cases: Iterable[Case], column: str) -> list[str]:
    """The place of each case by this column, "unknown" where it is blank; UsageError where there is no such column."""
    listed = list(cases)
    names = dict.fromkeys(name for case in listed for name in case.covariates)
    covariates = {name: [case.covariates.get(name) for case in listed] for name in names}
    [groups] = group_attributes.group_by_attributes(covariates, column, flag="--domain").values()
    return [str(group) for group in groups]


def place_names(dataset: Dataset, column: str, ids: Collection[str]) -> list[str]:
    """The places of these cases, sorted."""
    groups = place_groups((case for case in dataset if case.id in ids), column)
    return sorted(set(groups) - {UNKNOWN}, key=group_attributes.group_order)


def refuse_domain(column: str | None, dataset: Dataset, training: Fingerprint) -> None:
    """PlanError for a column that states no places of training cases, one alone, or their answers in other words."""
    if column is None:
        return
    facts = {one.id: one for one in training.cases}
    cases = [case for case in dataset if case.id in facts]
    try:
        groups = place_groups(cases, column)
    except (UsageError, ValueError) as error:
        remedy = error.remedy if isinstance(error, UsageError) else "Give the name of one column"
        raise PlanError(f"{column!r} states no places of the cases", DOMAIN, remedy) from error
    known = sorted(set(groups) - {UNKNOWN})
    if len(known) < 2:
        problem = f"all training cases are of one place by {column} ({', '.join(known) or UNKNOWN})"
        raise PlanError(problem, DOMAIN, "Leave --domain out, or give a column of several places")
    for kind in references.reference_kinds():
        pairs = {
            (group, name, str(answer))
            for case, group in zip(cases, groups, strict=True)
            if group != UNKNOWN and kind.name in facts[case.id].references
            for name, answer in kind.facts.answers(facts[case.id].references[kind.name]).items()
        }
        for name in {name for _, name, _ in pairs}:
            own = [(group, answer) for group, one, answer in pairs if one == name]
            if len(own) == len({group for group, _ in own}) == len({answer for _, answer in own}) > 1:
                problem = f"{column} tells what is to be learnt: each of its values goes with one answer of its own"
                raise PlanError(problem, DOMAIN, "Features that tell no place could tell no answer: leave --domain out")
