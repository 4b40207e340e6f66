"""Labels that may be wrong: few are named where all are right, and where some are exchanged those are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from claims.law import Law, Random

from hilum.evaluation import label_errors

PARTS, STEPS, RIDGE = 5, 12, 1e-2
ALL_RIGHT = "labels that may be wrong: the share that is named though all are right"
FOUND = "labels that may be wrong: the share of the wrong ones that is found"
FALSE = "labels that may be wrong: the share of the named ones that is right"


def out_of_fold(seen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(cases, 2) probabilities by logistic regressions on (cases,) numbers, each fitted to the other parts."""
    rows, odds = np.stack([np.ones(len(seen)), seen], axis=1), np.empty(len(seen))
    part = np.arange(len(seen)) % PARTS
    for own in range(PARTS):
        others, weights = rows[part != own], np.zeros(2)
        for _ in range(STEPS):
            chance = 1 / (1 + np.exp(-others @ weights))
            bent = (others * (chance * (1 - chance))[:, None]).T @ others + RIDGE * np.eye(2)
            weights += np.linalg.solve(bent, others.T @ (labels[part != own] - chance) - RIDGE * weights)
        odds[part == own] = rows[part == own] @ weights
    return np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1)


def audited(
    random: Random, *, apart: float, wrong: tuple[float, float], cases: int, ill: float
) -> tuple[np.ndarray, np.ndarray]:
    """(cases,) whether each label is named, and whether it is wrong.

    apart: standard deviations between two classes
    wrong: shares of the healthy and of the ill that are labelled as the others
    """
    truth = (random.random(cases) < ill).astype(int)
    seen = random.normal(size=cases) + apart * truth
    is_wrong = random.random(cases) < np.array(wrong)[truth]
    labels = np.where(is_wrong, 1 - truth, truth)
    return label_errors.probable_label_errors(out_of_fold(seen, labels), labels) >= 0, is_wrong


def named(apart: float, cases: int, ill: float = 0.5) -> Callable[[Random], float]:
    def study(random: Random) -> float:
        return float(audited(random, apart=apart, wrong=(0.0, 0.0), cases=cases, ill=ill)[0].mean())

    return study


def exchanged(
    figure: Callable[[np.ndarray, np.ndarray], float],
    apart: float,
    *,
    cases: int = 400,
    wrong: tuple[float, float] = (0.05, 0.05),
    ill: float = 0.5,
) -> Callable[[Random], float]:
    """A figure of which labels are named and which are wrong, where some are."""

    def study(random: Random) -> float:
        return figure(*audited(random, apart=apart, wrong=wrong, cases=cases, ill=ill))

    return study


def found(is_named: np.ndarray, is_wrong: np.ndarray) -> float:
    return float(is_named[is_wrong].mean()) if is_wrong.any() else float("nan")


def false(is_named: np.ndarray, is_wrong: np.ndarray) -> float:
    return float((is_named & ~is_wrong).sum() / max(1, is_named.sum()))


RARE = "4 SD apart, 20 % of the ill missed, one in ten ill, 1,000 cases"
MISSED = {"cases": 1000, "wrong": (0.0, 0.2), "ill": 0.1}
# Of classes 3, 3.5 and 4 apart a rule that knows both laws, and names one right label in ten, finds .63, .82 and .93.
LAWS = [
    Law(ALL_RIGHT, "1.5 SD apart, 400 cases", named(1.5, 400), high=0.01, few=10, wide=(0, 0.02), draws=200),
    Law(ALL_RIGHT, "1.5 SD apart, 100 cases", named(1.5, 100), high=0.01, draws=200),
    Law(ALL_RIGHT, "1.5 SD apart, 1,000 cases, one in ten ill", named(1.5, 1000, 0.1), high=0.01, draws=200),
    Law(ALL_RIGHT, "3 SD apart, 400 cases", named(3.0, 400), high=0.01, draws=200),
    Law(FOUND, "3 SD apart, 5 % exchanged, 400 cases (at most .63 can be)", exchanged(found, 3.0), low=0.8, draws=200),
    Law(FOUND, "3.5 SD apart, 5 % exchanged, 400 cases (.82)", exchanged(found, 3.5), low=0.7, draws=200),
    Law(
        FOUND,
        "4 SD apart, 5 % exchanged, 400 cases (.93)",
        exchanged(found, 4.0),
        low=0.8,
        few=6,
        wide=(0.6, 1),
        draws=200,
    ),
    Law(FOUND, RARE, exchanged(found, 4.0, **MISSED), low=0.5, draws=200),
    Law(FALSE, "3 SD apart, 5 % exchanged, 400 cases", exchanged(false, 3.0), high=0.13, draws=200),
    Law(FALSE, "3 SD apart, 5 % exchanged, 2,000 cases", exchanged(false, 3.0, cases=2000), high=0.12, draws=60),
    Law(FALSE, RARE, exchanged(false, 4.0, **MISSED), high=0.13, draws=200),
]
