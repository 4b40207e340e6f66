"""Facts of cases that were never read: for what is decided from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hilum.planning.training_memory import Machine
from hilum.quality import _intensities
from hilum.values import Case, CaseFacts, Dataset, Decision, Fingerprint, Label

LAPTOP = Machine("cpu", 2, 16.0, 16.0, False)
SAMPLED = Decision("sampled", "for a test")


def facts(
    shape: Sequence[int] = (40, 48, 44),
    steps: Sequence[float] | None = None,
    *,
    name: str = "c0",
    physical: bool = True,
    oriented: bool = True,
    modality: str = "unknown",
    channels: Sequence[str] = ("0",),
    intensity: Mapping[str, float] | None = None,
    inside: Mapping[str, float] | None = None,
    references: Mapping[str, Any] | None = None,
) -> CaseFacts:
    """One case; a mask of 1 in 100 voxels unless it is said otherwise."""
    numbers = {"min": 0.0, "low": 1.0, "median": 50.0, "high": 99.0, "max": 100.0, "mean": 50.0, "deviation": 20.0}
    return CaseFacts(
        name,
        tuple(shape),
        tuple(steps or [1.0] * len(shape)),
        physical,
        oriented,
        tuple(channels),
        modality,
        tuple(dict(numbers | dict(intensity or {})) for _ in channels),
        references=references or {"mask": {0: 990, 1: 10}},
        foreground=tuple(dict(numbers | dict(inside)) for _ in channels) if inside else (),
        thickness={1: 5.0},
        components={1: 1},
    )


def cohort(cases: Sequence[CaseFacts], labels: Sequence[str] = ("lesion",), name: str = "set") -> Dataset:
    """A data set of these cases, without images."""
    declared = tuple(Label(value, label) for value, label in enumerate(labels, start=1))
    kind = next(iter(cases[0].references))
    made = tuple(Case(one.id, one.id, {}, dict(one.references)) for one in cases)
    return Dataset(made, name=name, classes={kind: declared} if kind == "mask" else {}, patients_known=True)


def several(count: int, **given: Any) -> Fingerprint:
    return Fingerprint(tuple(facts(name=f"c{n}", **given) for n in range(count)))


def intensity(values: np.ndarray) -> Mapping[str, float]:
    """Statistics of these intensities."""
    return _intensities.measure_intensities(values).statistics
