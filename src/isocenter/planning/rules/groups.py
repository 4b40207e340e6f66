"""The groups of people that an evaluation will compare: fixed before anybody knows their figures."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from isocenter.errors import PlanError, UsageError
from isocenter.evaluation import covariates_by_name, default_groups, groups_of
from isocenter.values import Dataset, Decision

RULE = "every covariate with 2 to 8 levels"


def groups_decision(dataset: Dataset, cases: Collection[str]) -> Decision:
    """The covariates whose levels make groups among these cases."""
    groups = default_groups(covariates_by_name(dataset, cases))
    return Decision(groups, RULE if groups else f"there is none: {RULE}")


def refuse_groups(asked: Any, dataset: Dataset, cases: Collection[str], where: str) -> None:
    """PlanError, of the decision `where`, for groups that the covariates of these cases do not make."""
    if asked is None:
        return
    if not isinstance(asked, str):
        raise PlanError(f"{asked!r} names no groups", where, "Give a text such as sex,age:40:60")
    try:
        groups_of(covariates_by_name(dataset, cases), asked)
    except UsageError as error:
        raise PlanError(error.problem, where, error.remedy) from error
