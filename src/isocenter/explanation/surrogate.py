"""The share of a model's answers that a sparse additive model of a few measurements explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isocenter.errors import DatasetError, counted
from isocenter.evaluation import bootstrap_statistic
from isocenter.lazy import linear_model
from isocenter.values import Estimate, Floats

FOLDS, FEWEST = 5, 20
# Where each measurement may bend, as quantiles; so many strengths of the penalty are tried.
BENDS, STRENGTHS = (1 / 3, 2 / 3), 40


@dataclass(frozen=True)
class Surrogate:
    """A sum of bent lines, one a measurement, that stands for a model's answers.

    r2:        share of the answers' variance that it explains in patients that did not fit it
    shares:    {measurement: its share of what the surrogate varies by}, the largest first; 0 of those left out
    direction: {measurement: 1 where more of it means more for the target, -1 where less}
    """

    r2: Estimate
    shares: Mapping[str, float]
    direction: Mapping[str, int]


def additive_surrogate(
    measurements: Mapping[str, Sequence[float]], answers: ArrayLike, patients: Sequence[str], *, seed: int
) -> Surrogate:
    """The surrogate of answers by measurements, {name: (cases,)}; what is not known of a case has the median.

    Lasso on lines and their bends (Hastie and Tibshirani, Stat Sci 1986; Tibshirani, J R Stat Soc B 1996); its penalty
    is chosen, and its R² measured, in folds of patients. DatasetError for fewer than 20 patients, or answers without
    any difference.
    """
    response, people = np.asarray(answers, dtype=np.float64), np.asarray(patients, dtype=str)
    if len(set(people.tolist())) < FEWEST:
        problem = f"{counted(len(set(people.tolist())), 'patient')} are too few to show what measurements explain"
        raise DatasetError(problem, "--concepts measured", f"Give {FEWEST} or more")
    if np.ptp(response) <= 1e-9 * max(np.abs(response).max(), 1e-9):
        raise DatasetError("the model answers every case alike", "--concepts measured", "Give cases that differ")
    names = list(measurements)
    table = np.stack([_known(measurements[name]) for name in names], axis=1)
    folds = _folds(people, seed)
    guessed, base = np.empty(len(response)), np.empty(len(response))
    for fold in range(FOLDS):
        held_out = folds == fold
        if held_out.any():
            columns = _Columns.of(table[~held_out])
            fitted = _fitted(columns(table[~held_out]), response[~held_out], people[~held_out], seed)
            guessed[held_out] = fitted.predict(columns(table[held_out]))
            base[held_out] = response[~held_out].mean()

    def explained(weights: Floats) -> Floats:
        """(draws,) of (draws, cases) how often each case was drawn."""
        return 1 - weights @ (response - guessed) ** 2 / np.maximum(weights @ (response - base) ** 2, 1e-300)

    r2 = bootstrap_statistic(explained, people, seed=seed, exact=False)
    columns = _Columns.of(table)
    basis = columns(table)
    weights = _fitted(basis, response, people, seed).coef_.reshape(len(names), -1)
    parts = np.einsum("nkb,kb->nk", basis.reshape(len(basis), len(names), -1), weights)
    spread = parts.var(axis=0)
    order = np.argsort(-spread, kind="stable")
    shares = {names[n]: float(spread[n] / max(spread.sum(), 1e-300)) for n in order}
    return Surrogate(r2, shares, {names[n]: _direction(parts[:, n], table[:, n]) for n in order})


@dataclass(frozen=True)
class _Columns:
    """Measurements as lines and bends, on the scale of the cases that fit."""

    middle: Floats
    spread: Floats
    bends: Floats

    @classmethod
    def of(cls, table: Floats) -> _Columns:
        spread = table.std(axis=0)
        return cls(table.mean(axis=0), np.where(spread > 0, spread, 1.0), np.quantile(table, BENDS, axis=0))

    def __call__(self, table: Floats) -> Floats:
        """(cases, measurements) to (cases, measurements * columns of each)."""
        line = (table - self.middle) / self.spread
        bent = [np.maximum(table - bend, 0) / self.spread for bend in self.bends]
        return np.stack([line, *bent], axis=2).clip(-5, 5).reshape(len(table), -1)


def _fitted(basis: Floats, response: Floats, people: NDArray[np.str_], seed: int):  # type: ignore[no-untyped-def]
    folds = _folds(people, seed + 1)
    splits = [(np.flatnonzero(folds != n), np.flatnonzero(folds == n)) for n in range(FOLDS) if (folds == n).any()]
    return linear_model.LassoCV(cv=splits, alphas=STRENGTHS, max_iter=5000, tol=1e-3).fit(basis, response)


def _folds(people: NDArray[np.str_], seed: int) -> NDArray[np.intp]:
    """(cases,) the fold of each, all cases of a patient in one."""
    _, owner = np.unique(people, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(owner.max() + 1) % FOLDS
    return np.asarray(dealt[owner])


def _known(values: Sequence[float]) -> Floats:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    finite = numbers[np.isfinite(numbers)]
    return np.where(np.isfinite(numbers), numbers, np.median(finite) if finite.size else 0.0)


def _direction(part: Floats, measured: Floats) -> int:
    if part.std() <= 0 or measured.std() <= 0:
        return 0
    return int(np.sign(np.corrcoef(part, measured)[0, 1]))
