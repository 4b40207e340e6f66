"""The entropy of each voxel's probabilities, made while they stream by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isocenter.evaluation import entropy
from isocenter.files import Spool
from isocenter.tasks import Task
from isocenter.values import Array, Geometry, Map, Region

TOTAL = "total"


class EntropyMap:
    """A receiver of a case's probabilities whose `maps` hold their entropy, float32 in nats.

    What no part covers is certain to be background. A task without an output for every voxel has none.
    """

    def __init__(self, task: Task, geometry: Geometry) -> None:
        self._head = next((name for name, head in task.heads.items() if head.is_dense), "")
        self._exclusive, self._geometry = task.decoding.exclusive, geometry
        self._spool: Spool | None = None

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        if self._head not in arrays:
            return
        if self._spool is None:
            self._spool = Spool(self._geometry.shape, np.dtype(np.float32))
        given = arrays[self._head]
        # A single channel is whether something is there.
        self._spool[region] = entropy(given, exclusive=self._exclusive and len(given) > 1)

    @property
    def maps(self) -> dict[str, Map]:
        """{"total": the entropy of all parts}"""
        return {} if self._spool is None else {TOTAL: Map(self._spool.data, "nats")}
