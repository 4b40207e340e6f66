"""Whether groups look different, and whether they still do among patients who are alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.errors import listed
from isocenter.evaluation.fairness.attributes import UNKNOWN
from isocenter.evaluation.fairness.matching import encoded, matched, propensity, standardised_difference
from isocenter.evaluation.intervals import FEW_PATIENTS
from isocenter.evaluation.significance import holm
from isocenter.evaluation.two_samples import two_sample_tests
from isocenter.values import Floats

OTHERS = "the others"
LEVEL = 0.05


@dataclass(frozen=True)
class Shifted:
    """One test between two groups of patients.

    matched: whether it is of pairs that are alike in who they are
    value:   of the test's own distance
    """

    attribute: str
    first: str
    second: str
    test: str
    matched: bool
    value: float
    p: float
    p_adjusted: float
    patients_first: int
    patients_second: int


@dataclass(frozen=True)
class Balance:
    """How unlike two groups are in a covariate, in standard deviations, before and after matching."""

    attribute: str
    first: str
    second: str
    covariate: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Patients:
    """Patients of groups: one who is in two groups is two.

    rows:       (patients, numbers) how their images look, or what a network sees in them
    groups:     (patients,)
    covariates: {name: (patients,)} by which they are matched
    """

    rows: Floats
    groups: np.ndarray
    covariates: Mapping[str, Sequence[Any]]

    @classmethod
    def of(
        cls, rows: Floats, groups: Sequence[str], patients: Sequence[str], covariates: Mapping[str, Sequence[Any]]
    ) -> Patients:
        """Of cases: the mean row of each patient and group, with the covariates of the first case."""
        units = np.stack([np.asarray(patients).astype(str), np.asarray(groups).astype(str)])
        names, first, place = np.unique(units, axis=1, return_index=True, return_inverse=True)
        place = place.reshape(-1)
        sums = np.zeros((len(first), rows.shape[1]))
        np.add.at(sums, place, rows)
        means = sums / np.bincount(place)[:, None]
        return cls(means, names[1], {name: [own[n] for n in first] for name, own in covariates.items()})


def group_shift(attribute: str, patients: Patients, *, seed: int) -> tuple[list[Shifted], list[Balance]]:
    """The tests of two groups, of more of each against the others, before and after matching; p is Holm's of them all.

    A group with fewer than 10 patients, or with fewer pairs, is not tested.
    """
    shifts, balance = list[Shifted](), list[Balance]()
    for group, rest in _compared(patients.groups):
        treated = patients.groups == group
        here = treated | (patients.groups != UNKNOWN)
        own, treated = patients.rows[here], treated[here]
        if min(treated.sum(), (~treated).sum()) < FEW_PATIENTS:
            continue
        scaled = _standardised(own)
        shifts += _tests(attribute, (group, rest), False, scaled[treated], scaled[~treated], seed)
        columns = encoded({name: _of(values, here) for name, values in patients.covariates.items()})
        if not columns:
            continue
        is_rarer = treated if treated.sum() <= (~treated).sum() else ~treated
        pairs = matched(is_rarer, propensity(is_rarer, list(columns.values())))
        first, second = pairs if is_rarer is treated else pairs[::-1]
        for name, column in columns.items():
            deviation = float(np.sqrt((column[treated].var() + column[~treated].var()) / 2))
            before = standardised_difference(column[treated], column[~treated], deviation)
            after = standardised_difference(column[first], column[second], deviation)
            balance.append(Balance(attribute, group, rest, name, before, after if len(first) else float("nan")))
        if len(first) >= FEW_PATIENTS:
            shifts += _tests(attribute, (group, rest), True, scaled[first], scaled[second], seed)
    adjusted = holm([one.p for one in shifts])
    return [replace(one, p_adjusted=float(p)) for one, p in zip(shifts, adjusted, strict=True)], balance


def shift_words(attribute: str, shifts: Sequence[Shifted], matched_by: Sequence[str]) -> str:
    """What the tests of an attribute say, in a sentence."""
    sides = {
        side: min((one.p_adjusted for one in shifts if one.matched is side), default=None) for side in (False, True)
    }
    before, after = sides[False], sides[True]
    if before is None:
        return f"{attribute}: too few patients to compare its groups."
    p = f"adjusted p {before:.2g}"
    if before >= LEVEL:
        return f"{attribute}: no difference shown between what its groups look like ({p})."
    if after is None:
        return f"{attribute}: its groups look different ({p}); there are no pairs of similar patients to compare."
    alike = f"among patients alike in {listed(matched_by)} (adjusted p {after:.2g})"
    if after < LEVEL:
        return f"{attribute}: its groups look different ({p}), also {alike}: the acquisition differs, not the patients."
    return (
        f"{attribute}: its groups look different ({p}), no longer shown {alike}: the patients "
        "differ rather than the acquisition."
    )


def _compared(groups: np.ndarray) -> Iterator[tuple[str, str]]:
    names = sorted(set(groups.tolist()) - {UNKNOWN})
    if len(names) == 2:
        yield names[0], names[1]
    elif len(names) > 2:
        yield from ((name, OTHERS) for name in names)


def _tests(
    attribute: str, names: tuple[str, str], is_matched: bool, first: Floats, second: Floats, seed: int
) -> Iterator[Shifted]:
    for test, (value, p) in two_sample_tests(first, second, seed=seed).items():
        yield Shifted(attribute, *names, test, is_matched, value, p, float("nan"), len(first), len(second))


def _standardised(rows: Floats) -> Floats:
    deviation = rows.std(axis=0)
    return np.asarray((rows - rows.mean(axis=0))[:, deviation > 0] / deviation[deviation > 0])


def _of(values: Sequence[Any], here: np.ndarray) -> list[Any]:
    return [value for value, is_here in zip(values, here, strict=True) if is_here]
