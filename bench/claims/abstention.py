"""The number of cases that a model without answers names is one with which it would answer."""

from __future__ import annotations

from functools import partial

import numpy as np
from claims.law import Law, Random

from hilum.evaluation import conformal

CLAIM = "a model that answers nothing with 400 cases answers with twice the number that it names"
# How steeply the chance of a class rises: a weak model, and a better one.
SLOPES = {"weak model": 1.5, "better model": 2.0}
RISK, DELTA, CASES = 0.1, 0.1, 400


def answers(random: Random, slope: float, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """How sure the answers of a calibrated model are, and whether they are wrong."""
    chance = 1 / (1 + np.exp(-slope * random.normal(size=cases)))
    return np.maximum(chance, 1 - chance), ((chance > 0.5) != (random.random(cases) < chance)).astype(float)


def answered(random: Random, *, slope: float) -> float:
    """Whether it then answers; NaN where it answered before."""
    known = answers(random, slope, CASES)
    if np.isfinite(conformal.least_sureness(*known, RISK, DELTA)) or not (
        needed := conformal.cases_to_answer(*known, RISK, DELTA)
    ):
        return float("nan")
    return float(np.isfinite(conformal.least_sureness(*answers(random, slope, 2 * needed), RISK, DELTA)))


def _law(name: str) -> Law:
    few = 30 if name == "better model" else 0
    study = partial(answered, slope=SLOPES[name])
    return Law(CLAIM, name, study, low=0.6, draws=1000, few=few, wide=(0.7, 1.0) if few else None)


LAWS: list[Law] = [_law(name) for name in SLOPES]
