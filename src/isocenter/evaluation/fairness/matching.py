"""Patients of two groups who are alike: paired by the probability of their group, given who they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.evaluation.intervals import Integers
from isocenter.lazy import special
from isocenter.values import Floats, is_missing, level_in, number_in

# Of the logits of the probabilities: so far apart two patients may be. Austin, Pharm Stat 2011, doi:10.1002/pst.433
CALIPER = 0.2
STEPS, RIDGE = 50, 1e-6


def encoded(covariates: Mapping[str, Sequence[Any]]) -> dict[str, Floats]:
    """{covariate or covariate=level: (patients,)}: numbers as they are, levels 0 or 1; what is missing is a level."""
    made: dict[str, Floats] = {}
    for name, values in covariates.items():
        missing = np.array([is_missing(value) for value in values])
        numbers = [number_in(value) for value, gap in zip(values, missing, strict=True) if not gap]
        if numbers and None not in numbers:
            column = np.zeros(len(values))
            column[~missing] = np.array(numbers, dtype=float)
            column[missing] = column[~missing].mean()
            made[name] = column
        else:
            levels = np.array([level_in(value) for value in values])
            levels[missing] = ""
            made |= {f"{name}={one}": (levels == one).astype(float) for one in sorted(set(levels) - {""})}
        if missing.any() and not missing.all():
            made[f"{name} is missing"] = missing.astype(float)
    return made


def propensity(treated: np.ndarray, columns: Sequence[Floats]) -> Floats:
    """(patients,) the probability of the group by a logistic regression on the columns.

    Rosenbaum and Rubin, Biometrika 1983, doi:10.1093/biomet/70.1.41
    """
    wanted = treated.astype(float)
    scaled = [(one - one.mean()) / one.std() for one in columns if one.std() > 0]
    features = np.stack([np.ones(len(wanted)), *scaled], axis=1)
    coefficients = np.zeros(features.shape[1])
    for _ in range(STEPS):
        chance = special.expit(features @ coefficients)
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features + RIDGE * np.eye(len(coefficients))
        step = np.linalg.solve(hessian, features.T @ (wanted - chance) - RIDGE * coefficients)
        coefficients = coefficients + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(special.expit(features @ coefficients))


def matched(treated: np.ndarray, chance: Floats, *, caliper: float | None = CALIPER) -> tuple[Integers, Integers]:
    """Pairs, one treated patient and another: the nearest that is left, the likeliest treated patient first.

    chance:  (patients,) of being treated; caliper: in standard deviations of its logit; None pairs everybody it can
    As MatchIt's `nearest`, without replacement. Ho et al., J Stat Softw 2011, doi:10.18637/jss.v042.i08
    """
    logit = special.logit(np.clip(chance, 1e-12, 1 - 1e-12))
    widest = np.inf if caliper is None else caliper * float(logit.std(ddof=1))
    left = np.flatnonzero(~treated)
    ours, theirs = list[int](), list[int]()
    for person in sorted(np.flatnonzero(treated), key=lambda place: -chance[place]):
        if not len(left):
            break
        near = int(np.abs(chance[left] - chance[person]).argmin())
        if abs(logit[left[near]] - logit[person]) <= widest:
            ours.append(int(person))
            theirs.append(int(left[near]))
            left = np.delete(left, near)
    return np.array(ours, dtype=np.intp), np.array(theirs, dtype=np.intp)


def standardised_difference(first: Floats, second: Floats, deviation: float) -> float:
    """The difference of two means by a standard deviation, that before matching; 0 where nothing varies."""
    return float((first.mean() - second.mean()) / deviation) if deviation > 0 and len(first) and len(second) else 0.0
