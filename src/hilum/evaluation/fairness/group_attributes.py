"""Groups of cases by covariates: as they are, in ranges, or crossed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import UsageError
from hilum.values import Dataset, covariate_values, personal_columns

# A group of those of whom nobody wrote it down.
UNKNOWN = "unknown"
# Without being asked for, a covariate makes groups that has so many levels.
LEVELS = range(2, 9)
# Of a covariate that was asked for; of more no group has the cases.
MOST_GROUPS = 50
NONE = "none"
SIGNS = (",", ":", "*")
# Between the parts of a crossed group.
CROSSED = ", "

Covariates = Mapping[str, Sequence[Any]]


def covariates_by_name(dataset: Dataset, cases: Collection[str]) -> Covariates:
    """{covariate: (cases,) values} of those of a data set's cases."""
    scored = [case for case in dataset if case.id in cases]
    names = dict.fromkeys(name for case in scored for name in case.covariates)
    return {name: [case.covariates.get(name) for case in scored] for name in names}


def default_groups(covariates: Covariates) -> str | None:
    """The names of the covariates with 2 to 8 levels, as `groups_by_attribute` takes them; None where there is none.

    A column that says who somebody is, such as of physicians, makes groups for whoever asks for it.
    """
    nameless = {name: of for name, of in covariates.items() if not personal_columns.identifies_person(name)}
    fit = [name for name, values in nameless.items() if len(_levels(values)) in LEVELS]
    return ",".join(name for name in fit if not any(sign in name for sign in SIGNS)) or None


def groups_by_attribute(
    covariates: Covariates, asked: str | None, *, strictly: bool = True, flag: str = "--groups"
) -> dict[str, np.ndarray]:
    """{attribute: (cases,) the group of each}, "unknown" where its covariate is.

    asked: "sex,age:40:60,site,sex*age": covariates as they are, with limits of ranges, or crossed, in which a name has
           the limits that it has elsewhere; None takes those with 2 to 8 levels, "none" nothing
    strictly: what is not there is refused, and not left out
    flag:     that asked, as refusals name it
    Raises UsageError for a covariate that is not there, for limits that are none, and for more than 50 groups.
    """
    text = default_groups(covariates) if asked is None else asked
    if not text or text == NONE:
        return {}
    crossings = [[_part(one, text, flag) for one in each.split("*")] for each in text.split(",") if each.strip()]
    limits = {name: own for parts in crossings for name, own in parts if own}
    groups: dict[str, np.ndarray] = {}
    for parts in crossings:
        if not strictly and any(name.casefold() not in {one.casefold() for one in covariates} for name, _ in parts):
            continue
        columns = [
            _group_values(name, _covariate_column(covariates, name, flag), limits.get(name, ()), flag)
            for name, _ in parts
        ]
        crossed = np.array(
            [UNKNOWN if UNKNOWN in one else CROSSED.join(one) for one in zip(*columns, strict=True)], dtype=object
        )
        groups["*".join(name for name, _ in parts)] = crossed
    return groups


def group_key(group: str) -> str:
    """The name of a group however its levels are spelled: one group of two tables has one key."""
    return CROSSED.join(covariate_values.level_in(part) for part in group.split(CROSSED))


def group_order(group: str) -> tuple[bool, tuple[tuple[float, str], ...]]:
    """The key that sorts groups: ranges as they rise, others by name, unknown groups last.

    Crossed groups go by each of their parts in turn.
    """
    return group == UNKNOWN, tuple((_lower_limit(part), part) for part in group.split(CROSSED))


def _lower_limit(group: str) -> float:
    """The lower limit of a range; for the first range, and what is no range, one below all others."""
    start, dash, _ = group.removeprefix(">=").partition("-")
    limit = covariate_values.number_in(start) if dash or group.startswith(">=") else None
    return -math.inf if limit is None else limit


def _part(text: str, asked: str, flag: str) -> tuple[str, tuple[float, ...]]:
    """A covariate and its limits, rising."""
    name, *numbers = (word.strip() for word in text.split(":"))
    limits = [covariate_values.number_in(one) for one in numbers]
    rising = [one for one in limits if one is not None]
    if not name or len(rising) < len(limits) or rising != sorted(set(rising)):
        problem = f"{text.strip() or asked!r} is not a group"
        raise UsageError(problem, flag, "Give names, with rising limits of ranges, such as sex,age:40:60,sex*age")
    return name, tuple(rising)


def _covariate_column(covariates: Covariates, name: str, flag: str) -> Sequence[Any]:
    spellings = {one.casefold(): one for one in covariates} | {one: one for one in covariates}
    values = spellings.get(name, spellings.get(name.casefold()))
    if values is None:
        none = "The data have none" + (
            ": give `evaluate` a --group-table" if flag == "--groups" else " that makes groups"
        )
        names = f"Choose from {errors.list_phrase(list(covariates))}" if covariates else none
        raise UsageError(f"there is no covariate {name!r}", flag, names)
    return covariates[values]


def _group_values(name: str, values: Sequence[Any], limits: tuple[float, ...], flag: str) -> list[str]:
    if limits:
        return [_range(value, name, limits, flag) for value in values]
    levels = _levels(values)
    if len(levels) > MOST_GROUPS:
        remedy = f"Give limits of ranges, such as {name}:40:60, or a column with fewer levels"
        raise UsageError(f"{name} has {len(levels)} levels", flag, remedy)
    groups = {
        value: UNKNOWN if covariate_values.is_missing(value) else levels[covariate_values.level_in(value)]
        for value in set(values)
    }
    return [groups[value] for value in values]


def _levels(values: Sequence[Any]) -> dict[str, str]:
    """{level: as it is first written}, sorted."""
    written: dict[str, str] = {}
    for value in dict.fromkeys(values):
        if not covariate_values.is_missing(value):
            level = covariate_values.level_in(value)
            written.setdefault(level, level if covariate_values.number_in(level) is not None else str(value).strip())
    return dict(sorted(written.items()))


def _range(value: Any, name: str, limits: tuple[float, ...], flag: str) -> str:
    """The range of a number: its lower limit is in it."""
    if covariate_values.is_missing(value):
        return UNKNOWN
    if (number := covariate_values.number_in(value)) is None:
        remedy = f"Leave its limits out: {flag} {name}"
        raise UsageError(f"{name} holds {str(value)!r}, which is not a number", flag, remedy)
    level = int(np.searchsorted(limits, number, side="right"))
    if level == 0:
        return f"<{limits[0]:g}"
    return f">={limits[-1]:g}" if level == len(limits) else f"{limits[level - 1]:g}-{limits[level]:g}"
