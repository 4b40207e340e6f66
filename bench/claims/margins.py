"""How often a model that is worse by just the margin is called non-inferior, and how often one that is as good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from claims.comparisons import diagnosed, readings
from claims.law import Law, Random, Study
from scipy import stats

from hilum.evaluation.significance import auroc_tests, margins, paired_tests
from hilum.evaluation.significance.testing import DifferenceTest

WRONGLY = "non-inferior at the margin, of a model that is worse by it (2.5 % allowed)"
RIGHTLY = "non-inferior at the margin of .05, of a model that is as good"
# Of 2.5 %; what held in 0.8 of studies before there was a further patient has to hold in so many of them still.
MOST, LEAST = 0.035, 0.8
MARGIN = 0.05
IMAGES_ALIKE = 0.6
EXCHANGES = 999
# The interval of AUROCs needs no exchanges.
EXCHANGED = partial(paired_tests.permutation_test, draws=1)
# Of Dice: a beta law with mean .85, and of one with a longer tail.
DICE, TAILED = (8.5, 1.5), (4.25, 0.75)


def latent(random: Random, patients: int, images: int = 1, alike: float = 0.5) -> np.ndarray:
    """(2, patients * images) standard normal: alike between two models, and within a patient."""
    sampled = random.normal(size=(3, patients, images))
    if images > 1:
        of_patient = random.normal(size=(3, patients, 1))
        sampled = np.sqrt(IMAGES_ALIKE) * of_patient + np.sqrt(1 - IMAGES_ALIKE) * sampled
    flat = sampled.reshape(3, -1)
    return np.sqrt(alike) * flat[0] + np.sqrt(1 - alike) * flat[1:]


def shown(test: DifferenceTest, margin: float) -> float:
    """Whether the second model is called non-inferior; of however few patients."""
    # Just above the margin, so that rounding of shares decides nothing.
    return float(margins.non_inferiority(replace(test, too_few=""), margin - 1e-9).p < 0.025)


def of_means(first: np.ndarray, second: np.ndarray, owner: np.ndarray, margin: float) -> float:
    return shown(paired_tests.permutation_test(first, second, None, owner, worst=0.0, draws=EXCHANGES), margin)


def failing(random: Random, patients: int, share: float, alike: float = 0.5, images: int = 1) -> float:
    """Dice of a model that is as good, but fails in this share of patients, by which its mean falls by the margin."""
    first, second = stats.beta.ppf(stats.norm.cdf(latent(random, patients, images, alike)), *DICE)
    owner = np.repeat(np.arange(patients), images)
    second[(random.random(patients) < share)[owner]] = 0.0
    return of_means(first, second, owner, share * DICE[0] / sum(DICE))


def moved(
    random: Random, patients: int, by: float = MARGIN, law: tuple[float, float] = DICE, alike: float = 0.5
) -> float:
    first, second = stats.beta.ppf(stats.norm.cdf(latent(random, patients, 1, alike)), *law)
    return of_means(first, second - by, np.arange(patients), MARGIN)


def tailed(random: Random, patients: int, images: int = 1) -> float:
    """Beta laws with means .85 and less by the margin, whose tail is longer."""
    shares = stats.norm.cdf(latent(random, patients, images))
    first, second = (
        stats.beta.ppf(shares[0], *DICE),
        stats.beta.ppf(shares[1], 5 * (0.85 - MARGIN), 5 * (0.15 + MARGIN)),
    )
    return of_means(first, second, np.repeat(np.arange(patients), images), MARGIN)


def areas(
    random: Random, patients: int, area: float, images: int = 1, by: Callable[..., DifferenceTest] = EXCHANGED
) -> float:
    (first, second), truth, owner = diagnosed(random, patients, images, area, -MARGIN)
    return shown(by(first, second, truth, owner), MARGIN)


def areas_apart(random: Random, patients: int) -> float:
    """Of other patients each."""
    (first, _), truth, _ = diagnosed(random, patients, 1, 0.85, 0.0)
    (_, second), other, _ = diagnosed(random, patients, 1, 0.85, -MARGIN)
    return shown(auroc_tests.delong_unpaired(first, second, truth, other), MARGIN)


def calls(random: Random, patients: int, share: float, images: int = 1, by_score: bool = True) -> float:
    """Right calls: latent numbers below the share's quantile."""
    first, second = latent(random, patients, images) < stats.norm.ppf([share, share - MARGIN])[:, None]
    owner = np.repeat(np.arange(patients), images)
    return (
        shown(paired_tests.mcnemar_test(first, second, owner), MARGIN)
        if by_score
        else of_means(1.0 * first, 1.0 * second, owner, MARGIN)
    )


def read(random: Random, patients: int, structure: str, kind: str) -> float:
    """Five readers by Roe and Metz' model, whose area is less by the margin in the second modality."""
    return shown(auroc_tests.mrmc(*readings(5, structure, kind, random, patients, -MARGIN), readers=kind), MARGIN)


def wrongly(
    study: Callable[..., float], cell: str, sizes: tuple[int, ...], draws: int = 1000, few: int = 0
) -> list[Law]:
    """A law for each number of patients; `few`: of the first."""
    return [
        Law(
            WRONGLY,
            f"{cell}, {n} patients",
            _of(study, n),
            high=MOST,
            draws=draws,
            few=few * (n == sizes[0]),
            wide=(0, 0.1),
        )
        for n in sizes
    ]


def _of(study: Callable[..., float], patients: int) -> Study:
    return lambda random: study(random, patients)


FAILURES = (50, 100, 200)
LAWS: list[Law] = [
    *wrongly(partial(failing, share=0.06), "Dice, fails in 6 %", FAILURES),
    *wrongly(partial(failing, share=0.03), "Dice, fails in 3 %", FAILURES),
    *wrongly(partial(failing, share=0.06, alike=0.9), "Dice alike to .9, fails in 6 %", FAILURES),
    *wrongly(partial(failing, share=0.03, alike=0.9), "Dice alike to .9, fails in 3 %", FAILURES, few=60),
    *wrongly(partial(failing, share=0.06, images=2), "Dice of two images, fails in 6 %", FAILURES),
    *wrongly(moved, "Dice, moved", (50, 100)),
    *wrongly(tailed, "Dice, longer tail", (50, 100)),
    *wrongly(partial(tailed, images=2), "Dice of two images, longer tail", (50, 100)),
    *wrongly(partial(areas, area=0.85), "AUROC .85", (20, 50, 100)),
    *wrongly(partial(areas, area=0.95), "AUROC .95", (20, 50, 100)),
    *wrongly(partial(areas, area=0.85, images=2), "AUROC .85 of two images", (20, 50, 100)),
    *wrongly(partial(areas, area=0.85, by=auroc_tests.delong), "AUROC .85 by DeLong's test", (400,)),
    *wrongly(areas_apart, "AUROC .85, other patients each", (50, 100)),
    *wrongly(partial(calls, share=0.8), "right calls .80", (20, 50, 100)),
    *wrongly(partial(calls, share=0.95), "right calls .95", (20, 50, 100)),
    *wrongly(partial(calls, share=0.8, images=2), "right calls .80 of two images", (20, 50, 100)),
    *wrongly(partial(calls, share=0.95, by_score=False), "right calls .95, by exchanges", (50, 100)),
    *wrongly(partial(read, structure="HL", kind="random"), "five random readers, HL", (50, 100)),
    *wrongly(partial(read, structure="LH", kind="random"), "five random readers, LH", (50, 100)),
    *wrongly(partial(read, structure="HL", kind="fixed"), "five fixed readers, HL", (50, 100)),
    *(
        Law(RIGHTLY, f"{cell}, 100 patients", _of(partial(moved, by=0.0, **given), 100), low=LEAST * before,
            few=30 * (not given), wide=(0.6, 1.0))
        for cell, given, before in (
            ("Dice", {}, 0.99),
            ("Dice alike to .8", {"alike": 0.8}, 1.0),
            ("Dice with a longer tail", {"law": TAILED}, 0.90),
        )
    ),
]  # fmt: skip
