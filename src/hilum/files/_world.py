"""Conversion between LPS, the patient space of DICOM, ITK and NRRD, and RAS, which is ours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# mm in one unit, by the words that headers use.
MM = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "um": 1e-3,
    "µm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "nm": 1e-6,
}


def swap_lps_ras(affine: NDArray[np.floating]) -> NDArray[np.float64]:
    """An affine into LPS mm as one into RAS mm, or the reverse: x and y change their sign."""
    return np.diag([-1.0, -1.0, *np.ones(len(affine) - 2)]) @ np.asarray(affine, dtype=np.float64)


def swap_rows_and_columns(affine: NDArray[np.floating]) -> NDArray[np.float64]:
    """A picture's affine for (column, row) and (x, y) as one for (row, column) and (y, x), or the reverse."""
    order = [1, 0, 2]
    return np.asarray(affine, dtype=np.float64)[order][:, order]
