"""What a call is worth: predictive values at a prevalence that is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from isocenter.evaluation.classification import Confusion
from isocenter.evaluation.intervals import bootstrap_statistic, clopper_pearson, proportion
from isocenter.values import Estimate, Floats


def predictive_values(
    called: ArrayLike, positive: ArrayLike, patients: ArrayLike, *, prevalence: float | None, seed: int
) -> tuple[Estimate, Estimate]:
    """PPV and NPV of (images,) calls where `prevalence` of all people are positive; None: as many as of these images.

    Of these images they are proportions of the calls. At another prevalence they follow from sensitivity and
    specificity (Bayes), whose patients are resampled within positives and negatives; where no call is wrong, the exact
    bound of sensitivity or specificity bounds them.
    """
    said, truth, owners = np.asarray(called, bool), np.asarray(positive, bool), np.asarray(patients)
    if prevalence is None:
        at = f"; at a prevalence of {truth.mean():.3g}, that of these cases" if len(truth) else ""
        found = [
            proportion(truth[said], owners[said], seed=seed),
            proportion(~truth[~said], owners[~said], seed=seed),
        ]
    else:
        at = f"; at a stated prevalence of {prevalence:.3g}"
        found = [_at(said, truth, owners, prevalence, seed), _at(~said, ~truth, owners, 1 - prevalence, seed)]
    ppv, npv = (replace(one, method=one.method + at) for one in found)
    return ppv, npv


def _at(said: np.ndarray, truth: np.ndarray, owners: np.ndarray, prevalence: float, seed: int) -> Estimate:
    """PPV of calls at a prevalence; an NPV is the PPV of the other class."""

    def value(weights: Floats) -> Floats:
        return Confusion.of(said, truth, 2, weights).ppv_at(prevalence)

    estimate = bootstrap_statistic(value, owners, strata=truth, seed=seed, exact=False)
    if estimate.low is not None or estimate.value != 1.0:
        return estimate
    # No negative was called positive: at worst as many as the exact interval of that proportion allows.
    free = len(np.unique(owners[~truth]))
    least = float(clopper_pearson(free, free).low or 0.0)
    right = float(Confusion.of(said, truth).sensitivity) * prevalence
    low = right / (right + (1 - least) * (1 - prevalence))
    return replace(estimate, low=low, high=1.0, method="exact (Clopper-Pearson) bound of the wrong calls, by patient")
