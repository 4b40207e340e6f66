"""Figures of grades: classes that have an order.

As in `classification` every figure takes `weights`, (..., images) how often each image counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.evaluation.classification import Confusion
from isocenter.evaluation.metric import Metric
from isocenter.evaluation.weighting import mean, ratio, weights_of
from isocenter.values import Floats

GRADE_METRICS = (
    Metric("quadratic_kappa", "Quadratic-weighted kappa"),
    Metric("mae", "MAE", "less", unit="grades"),
    Metric("rps", "Ranked probability score", "less"),
)


def grade_distances(grades: int, power: float = 1.0) -> Floats:
    """(grades, grades) how many grades lie between two of them, to a power: 1 for absolute errors, 2 for squared."""
    places = np.arange(grades, dtype=np.float64)
    return np.abs(places[:, None] - places) ** power


def weighted_kappa(confusion: Confusion, costs: ArrayLike) -> Floats:
    """Agreement beyond chance where each miss counts by its cost: 1 at best, NaN where both sides name one class.

    costs: (classes, classes) of calling a reference (row) so (column); squared distances make the quadratic kappa
    Cohen, Psychol Bull 1968, doi:10.1037/h0026256
    """
    counts, each = confusion.counts, _square(costs, confusion.counts.shape[-1])
    seen = (counts * each).sum(axis=(-2, -1))
    chance = np.einsum("...i,ij,...j->...", counts.sum(axis=-1), each, counts.sum(axis=-2))
    return np.asarray(1 - ratio(seen * counts.sum(axis=(-2, -1)), chance))


def ranked_probability_score(probabilities: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean squared error of the probabilities of exceeding each grade but the last: 0..1; of two grades `brier`.

    probabilities: (images, grades) in their order; reference: (images,) index of the grade
    Epstein, J Appl Meteorol 1969, doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2
    """
    table, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(reference).astype(np.intp)
    grades = table.shape[-1] if table.shape else 0
    if table.shape != (*truth.shape, grades) or grades < 2:
        problem = f"probabilities of {table.shape} for references of {truth.shape}"
        raise UsageError(problem, "grades", "Give (images, grades) and (images,)")
    reached = truth[:, None] <= np.arange(grades - 1)
    scores = ((np.cumsum(table, axis=1)[:, :-1] - reached) ** 2).mean(axis=1)
    return mean(scores, weights_of(weights, len(scores)))


def least_cost(probabilities: ArrayLike, costs: ArrayLike) -> np.ndarray:
    """(images,) index of the class that costs least on average, if the probabilities are right.

    probabilities: (images, classes); costs: (classes, classes) of calling a reference (row) so (column)
    Ferrer, arXiv:2209.05355
    """
    table = np.asarray(probabilities, dtype=np.float64)
    return np.asarray((table @ _square(costs, table.shape[-1])).argmin(axis=-1))


def _square(costs: ArrayLike, classes: int) -> Floats:
    each = np.asarray(costs, dtype=np.float64)
    if each.shape != (classes, classes):
        raise UsageError(f"costs of {each.shape} for {classes} classes", "costs", "Give one row and column per class")
    return each
