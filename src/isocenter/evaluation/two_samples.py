"""Whether two groups of cases can come from one source, by rows of numbers about each case."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isocenter.values import Floats

DRAWS = 999
# Of larger groups so many rows are drawn: their differences are compared each with each.
MOST = 500
# Principal axes, so few that each is of many cases; and what of the longest is none.
MOST_AXES, CASES_AN_AXIS, ROUNDING = 32, 8, 1e-6


def energy_test(first: ArrayLike, second: ArrayLike, *, seed: int, draws: int = DRAWS) -> float:
    """The probability of so large a distance between two groups of rows, (cases, numbers), if they are alike.

    The energy distance: twice the mean distance between groups less those within. It is 0 for equal distributions
    alone, whatever they are; its law is that of groups whose rows are dealt anew. Székely and Rizzo, Testing for equal
    distributions in high dimension, InterStat 2004. Rows are taken along the principal axes of both groups, with equal
    variances: what a network sees differs among sources in small directions more than in those that tell classes apart.
    """
    random = np.random.default_rng(seed)
    groups = [_some(np.asarray(one, dtype=np.float64), random) for one in (first, second)]
    rows, size = _whitened(np.concatenate(groups)), len(groups[0])
    squares = np.sum(rows**2, axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0))
    is_first = np.zeros((draws + 1, len(rows)))
    is_first[0, :size] = 1
    is_first[1:] = random.permuted(np.broadcast_to(is_first[0], (draws, len(rows))), axis=1)
    to_first = is_first @ apart
    within = np.sum(to_first * is_first, axis=1)
    between = to_first.sum(axis=1) - within
    others = apart.sum() - within - 2 * between
    distances = 2 * between / (size * (len(rows) - size)) - within / size**2 - others / (len(rows) - size) ** 2
    return float(np.mean(distances >= distances[0] - 1e-9 * abs(distances[0])))


def _whitened(rows: Floats) -> Floats:
    """(cases, axes)"""
    axes, lengths, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    kept = lengths > ROUNDING * max(float(lengths[0]), np.finfo(float).tiny)
    return axes[:, : min(MOST_AXES, len(rows) // CASES_AN_AXIS, int(kept.sum()))] * np.sqrt(len(rows))


def _some(rows: Floats, random: np.random.Generator) -> Floats:
    return rows if len(rows) <= MOST else rows[np.sort(random.choice(len(rows), MOST, replace=False))]
