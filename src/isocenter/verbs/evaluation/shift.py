"""Comparison of scored cases with those that calibrated a model, by what its network sees in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isocenter.evaluation import energy_test, one_of_each
from isocenter.runtime import Guard
from isocenter.values import Array

# So often cases of the same source are called different.
LEVEL = 0.01
# With fewer patients on a side no difference could reach that level.
FEWEST = 5


@dataclass(frozen=True)
class Shift:
    """The two-sample test between the patients whose cases are scored and those whose cases calibrated.

    p:    the probability of such a difference between patients of one source
    unit: "patients", or "cases" where each only stands for a patient
    """

    p: float
    scored: int
    calibrated: int
    level: float = LEVEL
    unit: str = "patients"

    @property
    def is_found(self) -> bool:
        """Whether the scored cases come from another source."""
        return self.p < self.level

    @property
    def note(self) -> str:
        """The finding in a sentence."""
        how = f"two-sample test on what the network sees in {self.scored} and {self.calibrated} {self.unit}"
        how += f", p {self.p:.2g}, level {self.level:g}"
        if not self.is_found:
            return f"No difference shown between the scored cases and those that calibrated the model ({how})."
        words = "The scored cases differ from those that calibrated the model: no guarantee holds for them"
        return f"{words}, neither of sets, intervals or risks nor of the gate ({how})."

    def as_record(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {**asdict(self), "found": self.is_found, "note": self.note}


def shift_of(
    guard: Guard | None, features: Mapping[str, tuple[str, Array]], *, seed: int, patients_known: bool
) -> Shift | None:
    """The test on {case: (patient, features)}, one scored case of each; None where there is nothing to compare."""
    if guard is None or not features:
        return None
    calibrated = guard.calibrated
    known = list(features.values())
    scored = np.stack([known[n][1] for n in one_of_each([patient for patient, _ in known])])
    if min(len(scored), len(calibrated)) < FEWEST:
        return None
    unit = "patients" if patients_known else "cases"
    return Shift(energy_test(calibrated, scored, seed=seed), len(scored), len(calibrated), unit=unit)
