"""Masks that miss little of each structure, made while the probabilities of voxels stream by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isocenter.files import Spool, stacked_spools
from isocenter.tasks import Task, masks_from
from isocenter.values import Array, Geometry, Map, Region

COVERING = "covering"


class CoveringMap:
    """A receiver of a case's probabilities whose `maps` hold a mask of each structure that misses little of it.

    A structure of which no threshold is known has a mask of the whole image. Angelopoulos et al., arXiv:2208.02814
    """

    def __init__(self, task: Task, geometry: Geometry) -> None:
        [(self._head, self._least)] = masks_from(task).items()
        self._spools = [Spool(geometry.shape, np.dtype(np.uint8), fill=not one) for one in self._least.values()]

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        if self._head in arrays:
            own = arrays[self._head][-len(self._spools) :]  # a background comes first
            for spool, chances, least in zip(self._spools, own, self._least.values(), strict=True):
                spool[region] = (chances >= least).astype(np.uint8)

    @property
    def maps(self) -> dict[str, Map]:
        """{"covering": 1 within the mask}, of several structures one after the other."""
        if len(self._spools) == 1:
            return {COVERING: Map(self._spools[0].data)}
        return {COVERING: Map(stacked_spools(self._spools, np.dtype(np.uint8)), names=tuple(self._least))}
