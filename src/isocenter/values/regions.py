"""Label maps: structures that overlap, each made of several values, and the maps that people drew in a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isocenter.values.image import Array, Label


def parts_of(regions: Mapping[str, Sequence[int]]) -> tuple[Label, ...]:
    """The label of each value of the label map: its region, without the part of later ones."""
    marks = {values[0] for values in regions.values()}
    names = {values[0]: _without_later(name, regions) for name, values in regions.items()}
    for name, values in regions.items():
        for value in sorted(set(values) - marks):
            names[value] = f"{name} ({value})"  # of the regions that hold it, the last
    return tuple(Label(value, names[value]) for value in sorted(names))


def hidden(regions: Mapping[str, Sequence[int]]) -> tuple[str, str] | None:
    """(a region whose own mark a later one holds too, that later one); None where all can be separated."""
    names = list(regions)
    pairs = ((one, later) for place, one in enumerate(names) for later in names[place + 1 :])
    return next((pair for pair in pairs if regions[pair[0]][0] in regions[pair[1]]), None)


def _without_later(name: str, regions: Mapping[str, Sequence[int]]) -> str:
    order = list(regions)
    later = {value for other in order[order.index(name) + 1 :] for value in regions[other]}
    return f"{name} (rest)" if set(regions[name]) & later else name


class DrawnMap(NamedTuple):
    """The label map that a prediction is scored on.

    values: (*spatial) label values, 0 where nothing is known
    voxels: (*spatial) where it is known; None: everywhere
    known:  whether each structure was drawn, in the order of the model's; None: all of them
    """

    values: Array
    voxels: NDArray[np.bool_] | None = None
    known: tuple[bool, ...] | None = None

    def knows(self, index: int) -> bool:
        """Whether the structure at this place was drawn."""
        return self.known is None or self.known[index]
