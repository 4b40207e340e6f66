"""Weighted means and ratios, from which the figures of all kinds of result are made."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import UsageError
from hilum.values import Floats

# Probabilities in 32 bits may exceed 1 by their rounding.
ROUNDING = 1e-6


def refuse_impossible_level(level: float) -> None:
    """Raise UsageError for the level of an interval that is no share, such as 95 for 0.95."""
    if not 0 < level < 1:
        raise UsageError(f"{level:g} is no level of an interval", "level", "Give a share, such as 0.95 for 95 %")


def refuse_no_draws(draws: int) -> None:
    """Raise UsageError for a number of random draws from which nothing can be estimated."""
    if draws < 1:
        raise UsageError(f"{draws} random draws", "draws", "Give 1 or more, such as 2000")


def require_truths(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    """The truths in an argument of this name: booleans, or 0 and 1. Raises UsageError for any other value.

    NumPy takes NaN, names of classes, and both of the classes 1 and 2 for true: a figure would be wrong without a sign.
    """
    truths = np.asarray(values)
    if truths.dtype == np.bool_:
        return truths
    try:
        numbers = truths.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan)
    if not ((numbers == 0) | (numbers == 1)).all():
        raise UsageError("a value that is neither 0 nor 1", name, "Give True or False, or 1 or 0, for each case")
    return numbers.astype(np.bool_)


def require_probabilities(values: ArrayLike, name: str) -> Floats:
    """The probabilities in an argument of this name. Raises UsageError for a number outside 0..1, or NaN."""
    chances = np.asarray(values, dtype=np.float64)
    if not ((chances >= -ROUNDING) & (chances <= 1 + ROUNDING)).all():
        raise UsageError("a number outside 0..1, or NaN", name, "Give probabilities")
    return chances


def have_same_cases(values: np.ndarray, others: np.ndarray) -> bool:
    """Whether both are (cases,), one number for each case."""
    return values.ndim == 1 and values.shape == others.shape


def case_weights(weights: Floats | None, cases: int) -> Floats:
    """(..., cases) how often each case counts; once where there are no weights."""
    return np.ones(cases) if weights is None else np.asarray(weights, dtype=np.float64)


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """(...,) weighted mean of (cases,) or (..., cases) values."""
    # One product of matrices for all weightings where the values are the same for all: many times faster.
    total = weights @ values if is_unweighted(values) else (values * weights).sum(axis=-1)
    return ratio_or_nan(total, weights.sum(axis=-1))


def is_unweighted(values: Floats) -> bool:
    """Whether values are the same for all weightings: (cases,), not (..., cases)."""
    return values.ndim == 1


def ratio_or_nan(part: Any, total: Any) -> Floats:
    """part / whole; NaN where the whole is 0."""
    part = np.asarray(part, dtype=np.float64)
    total = np.asarray(total, dtype=np.float64)
    return cast(
        "Floats",
        np.divide(part, total, out=np.full(np.broadcast_shapes(part.shape, total.shape), np.nan), where=total > 0),
    )


def spacing_steps(spacing: ArrayLike) -> Floats:
    """(axes, axes) steps of one index in mm, as columns, from a spacing for each axis or from such a matrix."""
    steps = np.asarray(spacing, dtype=np.float64)
    return np.diag(steps) if is_unweighted(steps) else steps
