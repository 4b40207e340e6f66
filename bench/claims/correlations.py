"""95 % intervals of correlations hold the true correlation in 95 % of studies, of images and of clustered images."""

from __future__ import annotations

from functools import partial

import numpy as np
from claims.law import COVERAGE, Law, Random

from hilum.evaluation import intervals, regression

CLAIM = "95 % interval of {}'s correlation holds the truth"
# {name: the figure, its scale, and what it is of normal values with such a correlation}
FIGURES = {
    "Pearson": (regression.pearson, "correlation", lambda true: true),
    "Spearman": (regression.spearman, "rank correlation", lambda true: 6 / np.pi * np.arcsin(true / 2)),
}
TRUE = (-0.5, 0.0, 0.2, 0.5, 0.9)
# Patients, images of each, and the share of the variance that is the patient's.
SAMPLES = ((20, 1, 1.0), (60, 1, 1.0), (200, 1, 1.0), (20, 3, 0.5), (60, 3, 1.0))
DRAWS = 300


def measured(random: Random, true: float, patients: int, images: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """(images, 2) normal values whose correlation is true within and between patients, and whose they are."""
    owner, turn = np.repeat(np.arange(patients), images), np.linalg.cholesky([[1, true], [true, 1]]).T
    people, rest = random.normal(size=(patients, 2)), random.normal(size=(len(owner), 2))
    return (np.sqrt(alike) * people[owner] + np.sqrt(1 - alike) * rest) @ turn, owner


def covered(random: Random, *, name: str, true: float, patients: int, images: int, alike: float) -> float:
    """Whether the interval holds the truth."""
    figure, scale, truth = FIGURES[name]
    values, owner = measured(random, true, patients, images, alike)
    seed = int(random.integers(2**31))
    estimate = intervals.bootstrap_statistic(
        partial(figure, *values.T), owner, seed=seed, draws=DRAWS, exact=False, scale=scale
    )
    if estimate.low is None or estimate.high is None:
        return float("nan")
    return float(estimate.low <= truth(true) <= estimate.high)


def _law(name: str, true: float, patients: int, images: int, alike: float) -> Law:
    each = {(1, 1.0): "", (3, 0.5): ", three images of each", (3, 1.0): ", three images of each, alike"}[images, alike]
    study = partial(covered, name=name, true=true, patients=patients, images=images, alike=alike)
    few = 40 if (true, patients, images) == (0.0, 60, 1) else 0
    # Half of the studies would miss this by the rule for shares of pairs.
    given = {"draws": 1000, "few": few, "wide": (0.8, 1.0) if few else None}
    return Law(CLAIM.format(name), f"true {true:g}, {patients} patients{each}", study, *COVERAGE, **given)


LAWS: list[Law] = [_law(name, true, *sample) for name in FIGURES for sample in SAMPLES for true in TRUE]
