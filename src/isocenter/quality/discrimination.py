"""Discrimination of a few numbers of each case: how well they predict an outcome, against chance.

The outcome is predicted by ridge regression, cross-validated by patient; chance is what the same prediction reaches
when patients are given each other's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from isocenter.evaluation import bootstrap_statistic
from isocenter.lazy import stats
from isocenter.quality.outcomes import Outcome
from isocenter.transforms import generator
from isocenter.values import Array, Estimate, Floats

FOLDS = 5
# Shuffles tell mean and deviation of chance; the tail follows from the normal law, so few are enough.
SHUFFLES, DRAWS = 200, 500
# Fewer that hold every class tell neither: where the first images of all patients are of one class, none does.
FEWEST_SHUFFLES = 20
# Numbers that are predicted at once, 128 MiB: of a hundred classes and all shuffles they would be many GiB.
AT_ONCE = 2**24
# Further out in the tail nobody knows whether the normal law still holds.
SMALLEST_P = 1e-6

# From (cases, numbers), (shuffles, cases, columns) to be predicted and (cases,) fold: (shuffles, cases, columns), each
# fold from the others.
Predict = Callable[[Floats, Floats, Array], Floats]


def by_ridge(values: Floats, truth: Floats, fold: Array) -> Floats:
    """Ridge regression of all numbers."""
    return _predicted(_design(values), truth, fold)


def discrimination(
    values: Floats, outcome: Outcome, patient: Array, *, seed: int, predict: Predict = by_ridge
) -> tuple[Estimate, float]:
    """How well these numbers predict the outcome (0.5 is chance), and p against chance.

    values:  (cases, numbers)
    patient: (cases,) index of the person
    p is 1 where patients cannot be given each other's outcome: their first images are alike.
    """
    if np.ptp(values, axis=0).max() < 1e-9:
        return Estimate(0.5, n=len(outcome), patients=len(np.unique(patient)), method="none: the same for all"), 1.0
    own, fold = np.arange(len(outcome)), _folds(outcome.strata, patient, seed)
    orders = _shuffled(patient, seed)
    reached, scores = _reached(values, outcome, orders, fold, predict)
    by_chance, p = reached[1:][np.isfinite(reached[1:])], 1.0
    if len(by_chance) >= FEWEST_SHUFFLES:
        spread = max(float(by_chance.std(ddof=1)), 1e-6)
        p = float(stats.norm.sf((reached[0] - by_chance.mean()) / spread))
    estimate = bootstrap_statistic(
        lambda weights: outcome.reached(scores, own, weights),
        patient,
        strata=outcome.strata,
        seed=seed,
        draws=DRAWS,
    )
    return estimate, max(p, SMALLEST_P)


def _reached(values: Floats, outcome: Outcome, orders: Array, fold: Array, predict: Predict) -> tuple[Floats, Floats]:
    """(1 + shuffles,) how well the answers in each order are predicted; (cases, columns) predictions in the first."""
    count = max(1, AT_ONCE // outcome.truth(orders[0]).size)
    reached, first = list[Floats](), np.empty(0)
    for start in range(0, len(orders), count):
        some = orders[start : start + count]
        scores = predict(values, np.stack([outcome.truth(order) for order in some]), fold)
        reached.append(outcome.each_reached(scores, some))
        first = scores[0].copy() if start == 0 else first
    return np.concatenate(reached), first


def _design(values: Floats) -> Floats:
    """Standardised; one or a few numbers with their squares, because the middle may be the odd one out."""
    spread = values.std(axis=0)
    scaled = ((values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))[:, spread > 1e-9]
    return np.hstack([scaled, scaled**2]) if scaled.shape[1] <= 3 else scaled


def _folds(label: Array, patient: Array, seed: int) -> Array:
    """(cases,) fold; the patients of each stratum are dealt out in turn."""
    owner = label[np.unique(patient, return_index=True)[1]]
    fold = np.empty(len(owner), dtype=np.intp)
    for stratum in np.unique(owner):
        own = np.flatnonzero(owner == stratum)
        fold[generator(seed, 11, int(stratum)).permutation(own)] = np.arange(len(own)) % FOLDS
    return fold[patient]


def _shuffled(patient: Array, seed: int) -> Array:
    """(1 + shuffles, cases) whose answer each case gets: first its own, then that of another patient's first image."""
    return _orders(tuple(patient.tolist()), seed)


@lru_cache(maxsize=8)  # of the same patients everything is asked that might predict
def _orders(patient: tuple[int, ...], seed: int) -> Array:
    first = np.unique(patient, return_index=True)[1]
    others = [generator(seed, 12, draw).permutation(first)[list(patient)] for draw in range(SHUFFLES)]
    orders = np.stack([np.arange(len(patient)), *others])
    orders.setflags(write=False)
    return orders


def _predicted(design: Floats, truth: Floats, fold: Array) -> Floats:
    """(shuffles, cases, columns) by ridge regression from the other folds, for all shuffles in one solution."""
    flat = truth.transpose(1, 0, 2).reshape(len(design), -1)
    scores = np.empty_like(flat)
    for held in range(FOLDS):
        own, rest = fold == held, fold != held
        centre, mean = design[rest].mean(axis=0), flat[rest].mean(axis=0)
        known = design[rest] - centre
        gram = known.T @ known + np.eye(known.shape[1])  # a ridge of one case: numbers here are standardised
        weights = np.linalg.solve(gram, known.T @ (flat[rest] - mean))
        # Without the mean of the fold's training cases, which is lower where the held-out fold has more of a class.
        scores[own] = (design[own] - centre) @ weights
    return scores.reshape(len(design), *truth.shape[::2]).transpose(1, 0, 2)
