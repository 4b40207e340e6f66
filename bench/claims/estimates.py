"""Performance of a model in use without labels, and by studies that were sampled to be read."""

from __future__ import annotations

from functools import partial

import numpy as np
from claims.law import Law, Random
from scipy import special, stats

from hilum.monitoring import performance_figures
from hilum.values import Estimate

METRICS = {"auroc": None, "sensitivity": 0.3, "specificity": 0.3, "ppv": 0.3, "npv": 0.3, "brier": None}
# Cases by which the truth of a metric is counted.
MANY = 400_000
# How often a reader who sees the answer takes over a negative one that is wrong.
SWAYED = 0.5


def probabilities(random: Random, cases: int, shift: float) -> np.ndarray:
    """Calibrated probabilities of cases whose log-odds lie elsewhere than those of the cases that trained."""
    return special.expit(random.normal(-1 + shift, 1.5, size=cases))


def metric_of(metric: str, p: np.ndarray, truth: np.ndarray) -> float:
    """A metric of cases with outcomes."""
    if metric == "brier":
        return float(((p - truth) ** 2).mean())
    if metric == "auroc":
        ranks, ill = stats.rankdata(p), truth.sum()
        return float((ranks[truth].sum() - ill * (ill + 1) / 2) / (ill * (len(p) - ill)))
    called = p >= METRICS[metric]
    over = {"sensitivity": truth, "specificity": ~truth, "ppv": called, "npv": ~called}[metric]
    right = called == truth
    return float(right[over].mean())


def true_metric(metric: str, shift: float, kept: dict[tuple[str, float], float] = {}) -> float:  # noqa: B006
    """The metric of very many cases."""
    if (metric, shift) not in kept:
        random = np.random.default_rng(0)
        p = probabilities(random, MANY, shift)
        kept[metric, shift] = metric_of(metric, p, random.random(MANY) < p)
    return kept[metric, shift]


def off(random: Random, metric: str, shift: float) -> float:
    """By how much the metric that is expected of 5,000 cases is off."""
    p = probabilities(random, 5000, shift)
    return performance_figures.expected_performance(p, metric, METRICS[metric]).value - true_metric(metric, shift)


def holds(random: Random, metric: str, shift: float) -> float:
    """Whether the interval of 500 cases holds the truth of those who may come."""
    low, high = _interval(
        performance_figures.expected_performance(probabilities(random, 500, shift), metric, METRICS[metric])
    )
    return float(low <= true_metric(metric, shift) <= high)


def _interval(estimate: Estimate) -> tuple[float, float]:
    return (np.nan, np.nan) if estimate.low is None else (estimate.low, estimate.high)


def audited(random: Random, way: str) -> float:
    """Sensitivity as stated, less the true one, of 3,000 studies of which half the called ones and few others are read.

    way: "audited" by readers who do not see the answer, with the chances known; "naive" by those who see it, of the
    same studies, as if each counted alike.
    """
    p = probabilities(random, 3000, 0.0)
    truth, called = random.random(len(p)) < p, p >= 0.5
    chance = np.where(called, 0.5, 0.25)
    read = random.random(len(p)) < chance
    if way == "naive":
        said = truth & (called | (random.random(len(p)) >= SWAYED))
        return float(called[read & said].mean() - called[truth].mean())
    seen = np.where(read, truth, np.nan)
    return performance_figures.audited_performance(called, seen, chance, "sensitivity", probabilities=p).value - float(
        called[truth].mean()
    )


EXPECTED = "performance expected without labels, under other cases than those of training: bias at 5,000 cases"
COVERED = "performance expected without labels, under other cases than those of training: coverage at 500 cases"
AUDITED = "sensitivity of a model in use: how far what is stated is off"
LAWS: list[Law] = [
    *(
        Law(EXPECTED, f"{metric}, log-odds {shift:+g}", partial(off, metric=metric, shift=shift), -0.01, 0.01,
            draws=200)
        for metric in METRICS for shift in (-1.0, 1.0)
    ),
    *(
        Law(COVERED, f"{metric}, log-odds {shift:+g}", partial(holds, metric=metric, shift=shift), 0.92, 0.98)
        for metric in METRICS for shift in (-1.0, 1.0)
    ),
    Law(AUDITED, "read blind, weighted by the chance", partial(audited, way="audited"), -0.02, 0.02, few=40),
    Law(AUDITED, "read beside the answer, each alike", partial(audited, way="naive")),
]  # fmt: skip
