"""Tests of two groups of cases for one source, by rows of numbers about each case."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isocenter.evaluation.weighting import refuse_no_draws
from isocenter.lazy import stats
from isocenter.values import Floats

DRAWS = 999
# Of larger groups so many rows are drawn: their differences are compared each with each.
MOST = 500
# Principal axes, so few that each is of many cases; and what of the longest is none.
MOST_AXES, CASES_AN_AXIS, ROUNDING = 32, 8, 1e-6


class TwoSamples(NamedTuple):
    """A distance between two groups, and the share of dealings with one as large."""

    value: float
    p: float


def one_of_each(patients: ArrayLike) -> NDArray[np.intp]:
    """(patients,) the place of one image of each, drawn by chance, in the order of their ids.

    The mean of a patient's images varies the less the more there are: groups with unlike numbers of images would look
    unlike though their images are alike.
    """
    owners = np.asarray(patients)
    order = np.random.default_rng(0).permutation(len(owners))
    return np.asarray(order[np.unique(owners[order], return_index=True)[1]])


def energy_test(first: ArrayLike, second: ArrayLike, *, seed: int, draws: int = DRAWS) -> float:
    """The probability of so large a distance between two groups of rows, (cases, numbers), if they are alike.

    The energy distance: twice the mean distance between groups less those within. It is 0 for equal distributions
    alone, whatever they are; its law is that of groups whose rows are dealt anew. Székely and Rizzo, Testing for equal
    distributions in high dimension, InterStat 2004. Rows are taken along the principal axes of both groups, with equal
    variances: what a network sees differs among sources in small directions more than in those that tell classes apart.
    """
    rows, is_first = _dealt(first, second, seed, draws)
    return _judged(_energy(_apart(rows), is_first)).p


def two_sample_tests(first: ArrayLike, second: ArrayLike, *, seed: int, draws: int = DRAWS) -> dict[str, TwoSamples]:
    """{test: distance and p} of two groups of rows, along principal axes as in `energy_test`.

    energy:     as there
    mmd:        the maximum mean discrepancy of a Gaussian kernel as wide as the median distance. Gretton et al., J Mach
                Learn Res 2012
    classifier: the area under the curve by which a ridge regression tells a row's group, each row by the others. Lopez-
                Paz and Oquab, ICLR 2017, arXiv:1610.06545; leaving one out is exact, so each dealing is learnt anew
    """
    rows, is_first = _dealt(first, second, seed, draws)
    apart = _apart(rows)
    width = float(np.median(apart[np.triu_indices(len(rows), 1)])) or 1.0
    return {
        "mmd": _judged(-_energy(np.exp(-((apart / width) ** 2) / 2), is_first)),
        "energy": _judged(_energy(apart, is_first)),
        "classifier": _judged(_separation(rows, is_first)),
    }


def _dealt(first: ArrayLike, second: ArrayLike, seed: int, draws: int) -> tuple[Floats, Floats]:
    """The rows of both, and (dealings, rows) which are dealt to the first; the first dealing is what they are."""
    refuse_no_draws(draws)
    random = np.random.default_rng(seed)
    groups = [_some(np.asarray(one, dtype=np.float64), random) for one in (first, second)]
    rows, size = _whitened(np.concatenate(groups)), len(groups[0])
    is_first = np.zeros((draws + 1, len(rows)))
    is_first[0, :size] = 1
    is_first[1:] = random.permuted(np.broadcast_to(is_first[0], (draws, len(rows))), axis=1)
    return rows, is_first


def _judged(distances: Floats) -> TwoSamples:
    p = np.mean(distances >= distances[0] - 1e-9 * abs(distances[0]))
    return TwoSamples(float(distances[0]), float(p))


def _apart(rows: Floats) -> Floats:
    squares = np.sum(rows**2, axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0))


def _energy(apart: Floats, is_first: Floats) -> Floats:
    """(dealings,) twice the mean of what lies between the groups less those within; of a kernel less by more."""
    count, size = is_first.shape[1], float(is_first[0].sum())
    to_first = is_first @ apart
    within = np.sum(to_first * is_first, axis=1)
    between = to_first.sum(axis=1) - within
    others = apart.sum() - within - 2 * between
    return np.asarray(2 * between / (size * (count - size)) - within / size**2 - others / (count - size) ** 2)


def _separation(rows: Floats, is_first: Floats) -> Floats:
    """(dealings,) the area under the curve of the group that the other rows say each row is of."""
    features = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    inverse = np.linalg.inv(features.T @ features + np.eye(features.shape[1]))
    hat = features @ inverse @ features.T
    own = np.diag(hat)
    predicted = (is_first @ hat - is_first * own) / (1 - own)
    # Without a row its own group is rarer, so that a regression that knows nothing says the other one of each.
    size, count = is_first.sum(axis=1, keepdims=True), is_first.shape[1]
    predicted = predicted - (size - is_first) / (count - 1)
    ranks = stats.rankdata(predicted, axis=1)
    ones = is_first.sum(axis=1)
    return np.asarray((np.sum(ranks * is_first, axis=1) - ones * (ones + 1) / 2) / (ones * (count - ones)))


def _whitened(rows: Floats) -> Floats:
    """(cases, axes)"""
    axes, lengths, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    kept = lengths > ROUNDING * max(float(lengths[0]), np.finfo(float).tiny)
    return axes[:, : min(MOST_AXES, len(rows) // CASES_AN_AXIS, int(kept.sum()))] * np.sqrt(len(rows))


def _some(rows: Floats, random: np.random.Generator) -> Floats:
    return rows if len(rows) <= MOST else rows[np.sort(random.choice(len(rows), MOST, replace=False))]
