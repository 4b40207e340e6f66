"""The real parts of complex voxels, of which the caller chooses one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isocenter.errors import FormatError
from isocenter.files.format import Part
from isocenter.values import Array

PARTS: dict[Part, Callable[[Array], Array]] = {
    "magnitude": np.abs,
    "real": np.real,
    "imaginary": np.imag,
    "phase": np.angle,
}


def real_part(values: Array, part: Part | None, where: str) -> Array:
    """Real values as they are, of complex ones the part that was asked for.

    Raises FormatError where none was.
    """
    if not np.iscomplexobj(values):
        return values
    if part is None:
        raise FormatError("holds complex values", where, "Choose with --part magnitude|real|imaginary|phase")
    return PARTS[part](values)
