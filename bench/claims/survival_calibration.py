"""The p-value of D-calibration is below 5 % for 5 % of right models, whoever is censored when."""

from __future__ import annotations

from functools import partial

import numpy as np
from claims.law import ALARMS, Law, Random

from hilum.evaluation import survival

CLAIM = "D-calibration rejects right curves"
# {who is censored: the rate of leaving, and the end of the study}, in mean times to the event.
CENSORED = {
    "nobody censored": (0.0, np.inf),
    "two in five censored at random": (0.5, np.inf),
    "two in three censored at random": (2.0, np.inf),
    "half censored at the end of the study": (0.0, 0.7),
    "four in five censored at its early end": (0.0, 0.2),
    "two in three censored in both ways": (0.7, 0.7),
}
CASES = (60, 100, 300)


def rejected(random: Random, *, cases: int, rate: float, end: float) -> float:
    """Whether p is below 5 % for the curves by which the times are sampled."""
    hazard = random.gamma(2, 0.5, cases)
    event = random.exponential(1 / hazard)
    left = np.minimum(random.exponential(1 / rate, cases) if rate else np.inf, end)
    p = survival.d_calibration(np.exp(-hazard * np.minimum(event, left)), event <= left)[1]
    return float(p < 0.05) if np.isfinite(p) else float("nan")


def _law(cases: int, name: str) -> Law:
    rate, end = CENSORED[name]
    few = 400 if (cases, rate) == (100, 0.5) else 0
    # With the variance of counted events 0.1 to 0.8 % are rejected.
    study = partial(rejected, cases=cases, rate=rate, end=end)
    return Law(CLAIM, f"{cases} cases, {name}", study, *ALARMS, draws=2000, few=few, wide=(0.017, 0.1) if few else None)


LAWS: list[Law] = [_law(cases, name) for name in CENSORED for cases in CASES]
