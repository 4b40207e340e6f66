"""The interval of a new site holds the figure of a further site in 95 % of meta-analyses, where sites differ by luck.

Figures of sites have errors of .02 to .04, as AUROCs of 100 to 300 patients do; how far sites lie apart differs.
"""

from __future__ import annotations

from functools import partial

from claims.law import COVERAGE, Law, Random

from hilum.evaluation import site_pooling
from hilum.evaluation.regression import NORMAL_95
from hilum.values import Estimate

CLAIM = "the interval of a new site holds its value"
SITES, LEAST_ERROR, MOST_ERROR, MEAN = (5, 10), 0.02, 0.04, 0.8
# Standard deviation between sites, in mean errors of a site.
APART = (0.0, 0.5, 1.0, 2.0, 4.0)


def covered(random: Random, *, sites: int, apart: float) -> float:
    """Whether the interval of these sites holds the true figure of a further one."""
    between = apart * (LEAST_ERROR + MOST_ERROR) / 2
    errors, true = random.uniform(LEAST_ERROR, MOST_ERROR, sites), random.normal(MEAN, between, sites + 1)
    measured = random.normal(true[:sites], errors)
    estimates = [
        Estimate(value, value - NORMAL_95 * error, value + NORMAL_95 * error)
        for value, error in zip(measured.tolist(), errors.tolist(), strict=True)
    ]
    new = site_pooling.pool_sites(estimates).new_site
    return float("nan") if new.low is None or new.high is None else float(new.low <= true[sites] <= new.high)


LAWS: list[Law] = [
    Law(
        CLAIM,
        f"{sites} sites, {apart:g} errors apart",
        partial(covered, sites=sites, apart=apart),
        *COVERAGE,
        few=200 if (sites, apart) == (10, 4.0) else 0,
        wide=(0.9, 0.99),
    )
    for sites in SITES
    for apart in APART
]
