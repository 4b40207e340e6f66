"""A bag of tiles through a network: features of each tile, then one answer of all of them.

Tiles pass a few at a time, and of each only its features are held. The mean of what windows say is not this answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DatasetError
from hilum.runtime.preprocessing.protocol import VolumePart
from hilum.runtime.preprocessing.slide_tiles import Bag
from hilum.runtime.windows import averaging
from hilum.values import Array, Image, Region, Slabs
from hilum.values.prediction import AttendedTiles

if TYPE_CHECKING:
    from hilum.runtime.windows.pipeline import WindowsDone, WindowSettings
    from hilum.runtime.windows.slide import Progress
    from hilum.tasks import Task

# Tiles that pass together.
TOGETHER = 16


class PoolingNetwork(Protocol):
    """A network of bags, or several whose answers are averaged."""

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """(n, features) of (n, channels, rows, columns), of each network."""

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """{head: (batch, numbers)} and the attention of each tile, of each network's (batch, tiles, features)."""


def pool_bag(
    network: PoolingNetwork, bag: Bag, which: Sequence[int] | None = None, progress: Progress | None = None
) -> Mapping[str, Array]:
    """{head: (1, numbers)} and (1, tiles) attention of a bag. which: of its tiles, at least one; None for all"""
    chosen, passed = range(len(bag.places)) if which is None else which, list[tuple[Array, ...]]()
    for start in range(0, len(chosen), TOGETHER):
        batch = chosen[start : start + TOGETHER]
        passed.append(network.encoded(bag.tile_batch(batch)))
        if progress is not None:
            progress(start + len(batch), len(chosen))
    features = [np.concatenate(one)[None] for one in zip(*passed, strict=True)]
    return network.pooled(features, bag.places[list(chosen)][None])


@dataclass(frozen=True, eq=False)
class BaggedSlide:
    """A slide as a network of bags sees it; the rest as of `WindowedImage`.

    network:  a `PoolingNetwork`
    attended: the attention of its tiles, once they have passed
    """

    image: Image
    where: str
    task: Task
    windows: WindowSettings
    data: Bag
    network: Any
    trace: Any = None
    attended: list[AttendedTiles] = field(default_factory=list)
    tissue: ClassVar[None] = None
    is_blank: ClassVar[bool] = False
    notes: ClassVar[tuple[str, ...]] = ()

    def parts(self, region: Region | None) -> Sequence[VolumePart]:
        """All at once: there is one answer."""
        return [VolumePart()]

    def window_count(self, region: Region | None) -> int:
        """The tiles in a region of the slide, or all."""
        return len(self._within(region))

    def in_time(self, region: Region | None) -> BaggedSlide:
        """The same: no tile is seen twice."""
        return self

    def slabs(self, region: Region | None, done: WindowsDone) -> Slabs:
        """The outputs of the whole bag."""
        which = self._within(region)
        if not which:
            raise DatasetError("no tile of tissue lies in the region", self.where, "Give another --region")
        outputs = dict(pool_bag(self.network, self.data, which, done.of_part()))
        attention = outputs.pop(averaging.ATTENTION)
        averaging.check_finite(outputs, self.where)
        self.attended.append(AttendedTiles(self.data.corners[which], attention[0]))
        yield (), {name: one[0] for name, one in outputs.items()}

    def _within(self, region: Region | None) -> list[int]:
        """The tiles that have something of a region."""
        if region is None:
            return list(range(len(self.data.places)))
        first, last = ([part.start for part in region], [part.stop for part in region])
        low, high = np.split(self.data.corners, 2, axis=1)
        return np.flatnonzero(((low < last) & (high > first)).all(axis=1)).tolist()
