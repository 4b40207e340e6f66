"""The codes of a segmentation's target: what each value stands for.

Every voxel of a target is one number, so that it follows its image as label maps do: 0 is the background, 1 and on are
the labels, above them lie the ways in which readers can be divided, and the last says that nothing is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import PlanError
from isocenter.transforms import votes
from isocenter.values import Array, Floats

# Targets are bytes, and the last value is taken.
MOST = 254


@dataclass(frozen=True)
class Codes:
    """The codes of so many labels (without the background) and readers (1 where they are not divided)."""

    labels: int
    readers: int = 1

    @property
    def unknown(self) -> int:
        """The code of a voxel of which nothing is known: the last."""
        return len(self.shares)

    @cached_property
    def shares(self) -> Floats:
        """(codes, 1 + labels) share of the readers who drew the background and each label."""
        return np.array([[float(share) for share in row] for row in self._rows])

    def of(self, maps: Sequence[Array]) -> NDArray[np.uint8]:
        """(*spatial) codes of what readers drew, each as label numbers, with labels + 1 where a voxel is unknown."""
        keys = np.zeros(maps[0].shape, dtype=np.intp)
        for place, count in enumerate(votes(maps, self.labels)):
            keys += count.astype(np.intp) * (self.readers + 1) ** place
        found, places = np.unique(keys, return_inverse=True)
        own = [self._by_votes.get(key, self.unknown) for key in found.tolist()]
        return np.array(own, dtype=np.uint8)[places].reshape(keys.shape)

    @cached_property
    def _rows(self) -> list[tuple[Fraction, ...]]:
        """Every share that can be, the undivided ones first."""
        whole = [tuple(Fraction(int(n == label)) for n in range(self.labels + 1)) for label in range(self.labels + 1)]
        if self.readers == 1:
            return whole
        problem = f"{self.readers} readers of {self.labels} labels can be divided in more than {MOST} ways"
        refused = PlanError(problem, "task.readers", "Choose majority or staple")
        if math.comb(self.readers + self.labels, self.labels) > MOST:  # already where all of them say something
            raise refused
        rows = list(dict.fromkeys([*whole, *(_share(one) for one in self._divided)]))
        if len(rows) > MOST:
            raise refused
        return rows

    @property
    def _divided(self) -> list[tuple[int, ...]]:
        """Votes for each label, of up to all readers, at least one."""
        chosen = (
            itertools.combinations_with_replacement(range(self.labels + 1), count)
            for count in range(1, self.readers + 1)
        )
        return [tuple(votes.count(label) for label in range(self.labels + 1)) for each in chosen for votes in each]

    @cached_property
    def _by_votes(self) -> dict[int, int]:
        """{combination of votes, which count in powers of readers + 1: its code}, of those that say something."""
        places = {row: place for place, row in enumerate(self._rows)}
        powers = [(self.readers + 1) ** place for place in range(self.labels + 1)]
        return {
            sum(n * power for n, power in zip(counts, powers, strict=True)): places[_share(counts)]
            for counts in self._divided
        }


@cache
def codes_of(labels: int, readers: int) -> Codes:
    """The same each time: a task asks at every step."""
    return Codes(labels, readers)


def _share(counts: Sequence[int]) -> tuple[Fraction, ...]:
    return tuple(Fraction(n, sum(counts)) for n in counts)
