"""Studies in which several readers read the same cases by each of two modalities."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.evaluation.significance.areas import area_covariance, delong, jackknife_covariance
from isocenter.evaluation.significance.outcome import Test, normal_test
from isocenter.values import Floats


def mrmc(
    scores: ArrayLike,
    positive: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    readers: Literal["random", "fixed"] = "random",
) -> Test:
    """The difference of two modalities' mean AUROCs over readers, with the chance of other cases and other readers.

    scores:   (modalities, readers, cases), two modalities, each read by every reader on every case
    positive: (cases,) truths; patients: (cases,) whose, where patients have several
    readers:  "random" speaks of other readers too, "fixed" of these alone; a single reader is DeLong's test
    Obuchowski and Rockette, Commun Stat Simul Comput 1995, doi:10.1080/03610919508813243; degrees of freedom: Hillis,
    Stat Med 2007, doi:10.1002/sim.2532. Covariances by jackknife, those of patients with several cases as in `delong`
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim != 3 or len(given) != 2 or not given.shape[1] or not np.isfinite(given).all():
        problem = f"scores of {given.shape}, or some are missing"
        raise UsageError(problem, "mrmc", "Give (2, readers, cases): every reader reads every case both times")
    if readers not in ("random", "fixed"):
        raise UsageError(f"readers are {readers!r}", "mrmc", "Choose random or fixed")
    number = given.shape[1]
    if number == 1:
        return delong(given[0, 0], given[1, 0], positive, patients)
    flat = given.reshape(2 * number, -1)
    if patients is None:
        areas, covariance = jackknife_covariance(flat, positive)
    else:
        areas, covariance = area_covariance(flat, positive, patients)
    own, between = _within(covariance, number)
    apart = areas[number:] - areas[:number]
    difference, interaction = float(apart.mean()), float(apart.var(ddof=1)) / 2
    name = "Obuchowski-Rockette, readers"
    if readers == "fixed":
        error = max(2 / number * (own + (number - 1) * max(between, 0.0)), 0.0) ** 0.5
        return normal_test(difference, error, f"{name} fixed; z")
    total = interaction + max(number * between, 0.0)
    if interaction <= 0:
        return normal_test(difference, max(2 / number * total, 0.0) ** 0.5, f"{name} random, all alike; z")
    degrees = total**2 / (interaction**2 / (number - 1))
    test = normal_test(difference, (2 / number * total) ** 0.5, name, degrees)
    method = f"{name} and cases random; F with 1 and {degrees:.4g} degrees of freedom (Hillis)"
    return Test(test.difference, test.low, test.high, test.statistic**2, test.p, method)


def _within(covariance: Floats, number: int) -> tuple[float, float]:
    """Var less Cov1 and Cov2 less Cov3: of one reader's and of two readers' differences, each half of it."""
    apart = covariance[:number, :number] + covariance[number:, number:]
    apart = (apart - covariance[:number, number:] - covariance[number:, :number]) / 2
    mean = float(np.trace(apart)) / number
    return mean, (float(apart.sum()) - number * mean) / (number * (number - 1))
