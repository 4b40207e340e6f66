"""The one rule for the factors by which formats turn stored numbers into values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import FormatError

# float32 ends at 3e38 and loses its digits below 1e-38: no quantity in an image comes near either.
LARGEST_VALUE, SMALLEST_SLOPE = 1e30, 1e-30


def refuse_scale(
    slope: ArrayLike, intercept: ArrayLike, top: float, where: str, fields: str, *, takes_zero: bool = False
) -> None:
    """Raise FormatError for factors with which values are not finite, do not fit float32, or are all the same.

    slope, intercept: one, or one a slice: value = slope * stored + intercept
    top:              the largest stored number; infinite where stored numbers are floats
    fields:           names of the factors in the header
    takes_zero:       whether a slope of 0 is valid: a blank slice, no dose
    """
    slopes, intercepts = np.asarray(slope, np.float64), np.asarray(intercept, np.float64)
    values = np.abs(slopes) * (top if np.isfinite(top) else 1.0) + np.abs(intercepts)
    least = np.where(slopes == 0, SMALLEST_SLOPE, np.abs(slopes)) if takes_zero else np.abs(slopes)
    # Not a number is in no range, so it is refused as well.
    if not ((values <= LARGEST_VALUE) & (least >= SMALLEST_SLOPE)).all():
        stated = f"slope {_extreme(slopes)}, intercept {_extreme(intercepts)}"
        raise FormatError(f"{fields} give no usable values ({stated})", where, "Correct the header")


def largest_stored(dtype: np.dtype[Any]) -> float:
    """The largest magnitude of a stored whole number; infinite for floats."""
    return float(max(np.iinfo(dtype).max, -np.iinfo(dtype).min)) if dtype.kind in "iu" else np.inf


def _extreme(factors: Any) -> str:
    """The factor that is farthest from 0, in words."""
    return f"{factors.flat[np.abs(factors).argmax()]:g}"
