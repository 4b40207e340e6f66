"""Label map that people drew in a case, and what of it is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isocenter.values.image import Array


class DrawnMap(NamedTuple):
    """The label map that a prediction is scored on.

    values: (*spatial) label values, 0 where nothing is known
    voxels: (*spatial) where it is known; None: everywhere
    known:  whether each structure was drawn, in the order of the model's; None: all of them
    """

    values: Array
    voxels: NDArray[np.bool_] | None = None
    known: tuple[bool, ...] | None = None

    def knows(self, place: int) -> bool:
        """Whether the structure at this place was drawn."""
        return self.known is None or self.known[place]
