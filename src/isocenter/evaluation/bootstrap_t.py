"""Intervals of what is made of squares, whose own error is the smaller the smaller they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from isocenter.evaluation.intervals import FEW_PATIENTS, LEVEL, Resampling, Seed, weightings
from isocenter.evaluation.regression import NORMAL_95
from isocenter.values import Estimate, Floats


def of_differences(
    estimate: Estimate, differences: Floats, patients: ArrayLike, *, seed: Seed, side: Literal[-1, 0, 1] = 0
) -> Estimate:
    """The RMSE, or the lower (-1) or upper (1) limit of agreement, with the interval of bootstrap-t from 10 patients.

    differences: (images,) predicted less reference
    The spread of few patients is mostly too small, and so is that of its draws: percentiles end below the truth. Here
    each draw counts by its own standard error. Hall, Ann Stat 1988, doi:10.1214/aos/1176350933
    """
    people, owner = np.unique(np.asarray(patients), return_inverse=True)
    if estimate.low is None or len(people) < FEW_PATIENTS:
        return estimate
    moved, times = abs(side), side * NORMAL_95 or 1.0
    middle = moved * float(differences.mean())
    sums = np.stack([np.bincount(owner, (differences - middle) ** power) for power in range(3)], axis=1)

    def judged(weights: Floats) -> Floats:
        """(2, draws) figures and their standard errors, by what each patient moves them."""
        count, total, squares = (weights @ sums).T
        mean = moved * total / count
        variance = squares / count - mean**2
        slope = times / (2 * np.sqrt(variance))
        slopes = np.stack([slope * (mean**2 - variance) - moved * mean, moved - 2 * slope * mean, slope], axis=1)
        errors = np.sqrt((weights * (slopes @ sums.T) ** 2).sum(axis=1)) / count
        return np.stack([middle + mean + times * np.sqrt(variance * count / (count - moved)), errors])

    with np.errstate(invalid="ignore", divide="ignore"):
        [value], [error] = judged(np.ones((1, len(people))))
        drawn = weightings(np.zeros(len(people), dtype=np.intp), Resampling.of(seed), width=len(owner))
        figures, errors = np.concatenate([judged(weights) for weights in drawn], axis=1)
        apart = (figures - value) / errors
    below, above = np.quantile(apart[np.isfinite(apart)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = estimate.method.replace("bootstrap", "bootstrap-t", 1)
    return replace(estimate, low=float(value - above * error), high=float(value - below * error), method=method)
