"""What a data set looks like in numbers: what planning decides from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CaseFacts:
    """One case, measured once.

    shape, steps: of the image in canonical order of axes; `steps` in mm where `physical`
    channels:     names, in order
    intensity:    per channel, of valid voxels: min, low and high (0.5th and 99.5th percentile), median, max, mean,
                  deviation
    content:      share of the grid inside the smallest box around what is not the lowest value
    references:   {kind: summary}; of a mask {label value: voxels}, of a class its name
    foreground:   like `intensity`, of the voxels inside the mask; empty without a mask or where it is empty
    thickness:    {label value: voxels} how thin its structure is, the mean run along the axis where runs are shortest
    components:   {label value: pieces} that do not touch, not even at a corner
    """

    id: str
    shape: tuple[int, ...]
    steps: tuple[float, ...]
    physical: bool
    oriented: bool
    channels: tuple[str, ...]
    modality: str
    intensity: tuple[Mapping[str, float], ...]
    content: float = 1.0
    references: Mapping[str, Any] = field(default_factory=dict)
    foreground: tuple[Mapping[str, float], ...] = ()
    thickness: Mapping[int, float] = field(default_factory=dict)
    components: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Fingerprint:
    """The facts of all readable cases."""

    cases: tuple[CaseFacts, ...]

    def __len__(self) -> int:
        return len(self.cases)

    def only(self, ids: set[str]) -> Fingerprint:
        """Of these cases alone: a statistic that enters a plan comes from training cases only."""
        return Fingerprint(tuple(case for case in self.cases if case.id in ids))

    @property
    def shapes(self) -> np.ndarray:
        """(cases, axes)"""
        return np.array([case.shape for case in self.cases])

    @property
    def steps(self) -> np.ndarray:
        """(cases, axes)"""
        return np.array([case.steps for case in self.cases])

    def voxels(self, kind: str = "mask") -> dict[int, int]:
        """{label value: voxels} over all cases that have such a reference."""
        total: dict[int, int] = {}
        for case in self.cases:
            for value, count in case.references.get(kind, {}).items():
                total[int(value)] = total.get(int(value), 0) + count
        return dict(sorted(total.items()))

    def counts(self, kind: str = "class") -> dict[str, int]:
        """{class: cases}"""
        names = [case.references[kind] for case in self.cases if kind in case.references]
        return {name: names.count(name) for name in sorted(set(names))}
