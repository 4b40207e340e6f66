"""Error bars of voxels: the width that holds the stated share of a patient's voxels.

A copy of what decodes travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum import errors
from hilum.belief.covering_results import Belief, UnseenCases
from hilum.belief.prediction_sets import APPROXIMATE, CRC, EXACT
from hilum.evaluation import conformal
from hilum.values import Decision, Floats

# Factors that are tried, a hundredth apart.
FACTORS = np.exp(np.arange(np.log(0.05), np.log(50.0), 0.01))


@dataclass(frozen=True, eq=False)
class ErrorBarBelief(Belief):
    """Error bars of each voxel; of its rows outputs are, for each case, errors over deviations that are stated.

    coverage: of a patient's voxels the share that error bars are to hold, on average over patients
    factor:   by which stated deviations are multiplied; None until it is found
    """

    coverage: float
    factor: float | None

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """The smallest factor with which error bars hold the share, by conformal risk control over patients."""
        if self.factor is not None:
            return {}
        losses = missed_shares(rows.outputs)
        people = errors.count_phrase(len(np.unique(rows.patients)), "patient")
        place = conformal.setting_controlled_on_average(losses, 1 - self.coverage, rows.patients)
        if place < 0:
            because = (
                f"{people} are too few to control a share of {100 * self.coverage:g} %: the factor is what held theirs"
            )
            held = float(np.quantile(np.concatenate(list(rows.outputs)), self.coverage)) if len(rows) else 1.0
            return {"task.error_factor": Decision(round(held, 4), because + APPROXIMATE, CRC)}
        because = f"with it error bars hold {100 * self.coverage:g} % of the voxels of a new patient, by {people}"
        because += EXACT if exact else APPROXIMATE
        return {"task.error_factor": Decision(round(float(FACTORS[place]), 4), because, CRC)}


def missed_shares(ratios: Sequence[Any]) -> Floats:
    """(cases, factors) of each case the share of voxels whose error is larger than each factor of its deviation."""
    return np.array([1 - np.searchsorted(np.sort(one), FACTORS, side="right") / max(1, len(one)) for one in ratios])
