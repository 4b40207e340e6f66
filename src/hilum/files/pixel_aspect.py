"""The sides of a pixel where a file states their ratio and not their size."""

from __future__ import annotations

import math

# Dots per inch are rounded to whole ones.
ROUNDING = 0.01


def aspect_notes(width: float, height: float) -> tuple[str, ...]:
    """The note on pixels that are not square, which are read as stored; none where they are, or nobody knows."""
    if not (width > 0 and height > 0 and math.isfinite(width / height)):
        return ()
    if abs(width / height - 1) <= ROUNDING:
        return ()
    smaller = min(width, height)
    ratio = f"{width / smaller:.4g} : {height / smaller:.4g}"
    return (f"its pixels are not square ({ratio}, width to height): rows and columns are as stored",)
