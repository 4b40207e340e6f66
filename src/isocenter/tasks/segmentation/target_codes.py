"""The codes of a segmentation's target: what each value stands for.

Every voxel of a target is one number, so that it follows its image as label maps do: 0 is the background, 1 and on are
the labels, above them lie the ways in which readers can be divided. Where cases know some structures only, the same
follows for each combination of them: a voxel of such a case says which structures are known there. The last code says
that nothing is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
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
    """The codes of so many labels (without the background) and readers (1 where they are not divided).

    partial: for each combination of structures that cases know, the numbers of the labels that their masks can hold
    """

    labels: int
    readers: int = 1
    partial: tuple[tuple[int, ...], ...] = ()

    @property
    def unknown(self) -> int:
        """The code of a voxel of which nothing is known: the last."""
        return len(self.rows)

    @cached_property
    def shares(self) -> Floats:
        """(codes, 1 + labels) share of the readers who drew the background and each label."""
        return np.array([[float(share) for share in row] for row in self._rows])[self.rows]

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """(codes,) the code that says the same where everything is known: a label's number, of undivided readers."""
        return np.concatenate(self._blocks)

    @cached_property
    def combinations(self) -> NDArray[np.intp]:
        """(codes,) the place in `partial` of what is known, counted from 1; 0 where everything is."""
        return np.repeat(np.arange(len(self._blocks)), [len(block) for block in self._blocks])

    def within(self, combination: int) -> NDArray[np.uint8]:
        """(rows + 1,) the code, in cases of a combination, of each code of where everything is known, and of none."""
        codes = np.full(len(self._rows) + 1, self.unknown, dtype=np.uint8)
        chosen = np.flatnonzero(self.combinations == combination)
        codes[self.rows[chosen]] = chosen
        return codes

    def of(self, maps: Sequence[Array]) -> NDArray[np.uint8]:
        """(*spatial) codes of what readers drew, each as label numbers, with labels + 1 where a voxel is unknown.

        As where every structure is known; `within` makes them those of a case that knows some only.
        """
        keys = np.zeros(maps[0].shape, dtype=np.intp)
        for voxel, count in enumerate(votes(maps, self.labels)):
            keys += count.astype(np.intp) * (self.readers + 1) ** voxel
        found, places = np.unique(keys, return_inverse=True)
        codes = [self._by_votes.get(key, len(self._rows)) for key in found.tolist()]
        return np.array(codes, dtype=np.uint8)[places].reshape(keys.shape)

    @cached_property
    def _rows(self) -> list[tuple[Fraction, ...]]:
        """Every share that can be, the undivided ones first."""
        undivided = [
            tuple(Fraction(int(n == label)) for n in range(self.labels + 1)) for label in range(self.labels + 1)
        ]
        if self.readers == 1:
            return undivided
        problem = f"{self.readers} readers of {self.labels} labels can be divided in more than {MOST} ways"
        refused = PlanError(problem, "task.readers", "Choose majority or staple")
        if math.comb(self.readers + self.labels, self.labels) > MOST:  # already where all of them say something
            raise refused
        rows = list(dict.fromkeys([*undivided, *(_share(one) for one in self._divided)]))
        if len(rows) > MOST:
            raise refused
        return rows

    @cached_property
    def _blocks(self) -> list[NDArray[np.intp]]:
        """The rows that voxels can have, of cases that know everything and of those of each combination."""
        present = np.array([[share > 0 for share in row] for row in self._rows])
        blocks = [np.arange(len(present))]
        for labels in self.partial:
            others = [number for number in range(1, self.labels + 1) if number not in labels]
            blocks.append(np.flatnonzero(~present[:, others].any(axis=1)))
        count = sum(len(block) for block in blocks)
        if self.partial and count > MOST:
            problem = f"{len(self.partial)} combinations of known structures need {count} codes, and there are {MOST}"
            raise PlanError(problem, "task.partial", "Leave structures out with --labels, or draw what few cases lack")
        return blocks

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
def codes_of(labels: int, readers: int, partial: tuple[tuple[int, ...], ...] = ()) -> Codes:
    """The same each time: a task asks at every step."""
    return Codes(labels, readers, partial)


def labels_held(
    values: Sequence[int], structures: Mapping[str, Sequence[int]], known: AbstractSet[str]
) -> tuple[int, ...]:
    """The numbers of the labels that masks can hold in which these structures are known.

    Such a label marks one of them; one that marks no structure lies in one of them, or in none at all.
    values: of the labels; structures: {name: its values, first the one that marks it}
    """
    marks = {own[0]: name for name, own in structures.items()}
    lies_in = {value: [name for name, own in structures.items() if value in own] for value in values}
    names = {value: [marks[value]] if value in marks else lies_in[value] for value in values}
    return tuple(n for n, value in enumerate(values, start=1) if not names[value] or not known.isdisjoint(names[value]))


def _share(counts: Sequence[int]) -> tuple[Fraction, ...]:
    return tuple(Fraction(n, sum(counts)) for n in counts)
