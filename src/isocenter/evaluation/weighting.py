"""Weighted means and ratios, from which the figures of all kinds of result are made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isocenter.values import Floats


def are_paired(values: np.ndarray, others: np.ndarray) -> bool:
    """Whether both are (cases,), one number for each case."""
    return values.ndim == 1 and values.shape == others.shape


def weights_of(weights: Floats | None, cases: int) -> Floats:
    """(..., cases) how often each case counts; once where there are no weights."""
    return np.ones(cases) if weights is None else np.asarray(weights, dtype=np.float64)


def mean(values: Floats, weights: Floats) -> Floats:
    """(...,) weighted mean of (cases,) or (..., cases) values."""
    # One product of matrices for all weightings where the values are the same for all: many times faster.
    total = weights @ values if is_fixed(values) else (values * weights).sum(axis=-1)
    return ratio(total, weights.sum(axis=-1))


def is_fixed(values: Floats) -> bool:
    """Whether values are the same for all weightings: (cases,), not (..., cases)."""
    return values.ndim == 1


def ratio(part: Any, whole: Any) -> Floats:
    """part / whole; NaN where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


def steps_of(spacing: ArrayLike) -> Floats:
    """(axes, axes) steps of one index in mm, as columns, from a spacing for each axis or from such a matrix."""
    steps = np.asarray(spacing, dtype=np.float64)
    return np.diag(steps) if is_fixed(steps) else steps
