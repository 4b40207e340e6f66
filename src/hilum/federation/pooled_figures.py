"""Figures of several sites from sums alone: of what adds the pooled figure, of all else the mean of sites."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hilum import errors
from hilum.evaluation import Metrics, intervals, site_pooling
from hilum.evaluation.metric import MEMBERSHIP_AUC
from hilum.federation.exchanges import Arrays
from hilum.lazy import pandas as pd
from hilum.scoring.auditing.site_audit import COLUMNS, SiteFigure
from hilum.values import Estimate, Row

DRAWS = 2000
COUNTS = ("n", "patients")


def draws_of_site(rows: Sequence[Row], rng: np.random.Generator) -> dict[int, np.ndarray]:
    """{number of a row: (2, ratios, 1 + draws)} sums whose ratio the figure is, as they are and in bootstrap samples.

    Only of figures that are such ratios, or means of several; rng: whose seed nobody knows.
    """
    found = dict[int, np.ndarray]()
    for number, row in enumerate(rows):
        recipe = row.estimate.recipe
        sums = None if recipe is None else recipe.ratios if recipe.sums is None else recipe.sums[:, None]
        if recipe is None or sums is None or not len(recipe.people):
            continue
        weights = np.zeros((DRAWS, len(recipe.people)))
        for stratum in np.unique(recipe.strata):
            own = np.flatnonzero(recipe.strata == stratum)
            weights[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=DRAWS)
        found[number] = np.concatenate([sums.sum(axis=-1, keepdims=True), sums @ weights.T], axis=-1)
    return found


@dataclass(frozen=True, eq=False)
class SiteScores:
    """What a site has sent: its figures, and of those that add the sums, as `draws_of_site` makes them."""

    rows: Sequence[Row]
    sums: Arrays = field(default_factory=dict)


def pool_scores(
    sites: Mapping[str, SiteScores], metrics: Metrics, least: int = 1
) -> tuple[list[Row], list[SiteFigure]]:
    """The figures of all sites' test cases, and each of them by site.

    A figure that adds is that of all cases, with an interval of patients resampled within their sites; any other is the
    mean of sites by random effects, which needs three of them. Counts below the least are 0.
    """
    keys = dict.fromkeys((row.metric, row.label) for one in sites.values() for row in one.rows)
    rows = list[Row]()
    figures = list[SiteFigure]()
    for metric, label in keys:
        here = dict[str, Estimate]()
        sums = list[np.ndarray]()
        for site in sorted(sites):
            for number, row in enumerate(sites[site].rows):
                if (row.metric, row.label) == (metric, label):
                    here[site] = row.estimate
                    if str(number) in sites[site].sums:
                        sums.append(sites[site].sums[str(number)])
        kind = metrics.metric_named(metric)
        pooled = site_pooling.pool_sites([*here.values()], ends=(kind.least, kind.most))
        figures.append(SiteFigure(metric, label, here, {}, pooled))
        defined = [one for one in here.values() if math.isfinite(one.value)]
        is_sum = len(sums) == len(defined) > 0 and len({one.shape for one in sums}) == 1
        figure = _joined(defined, sums) if is_sum else pooled.mean
        counts: dict[str, Any] = {name: one if (one := getattr(figure, name)) >= least else 0 for name in COUNTS}
        rows.append(Row(metric, label, replace(figure, **counts)))
    return rows, figures


def _joined(defined: Sequence[Estimate], sums: Sequence[np.ndarray]) -> Estimate:
    """The figure of all cases."""
    numerators, denominators = np.sum(sums, axis=0)
    value, *draws = (numerators / np.where(denominators > 0, denominators, np.nan)).mean(axis=0)
    cases, patients = (sum(getattr(one, name) for one in defined) for name in COUNTS)
    figure = Estimate(float(value), n=cases, patients=patients, unit=defined[0].unit)
    return intervals.interval_of_draws(figure, np.array(draws), len(sums))


def membership_sentences(figure: SiteFigure, metrics: Metrics) -> list[str]:
    """What the sites' attacks on the model have come to, and why a site has none; nothing for any other figure."""
    if figure.metric != MEMBERSHIP_AUC.name:
        return []
    blank = {site: one.method for site, one in figure.at_site.items() if not math.isfinite(one.value)}
    reasons = [f"{site} ({method.removeprefix('none: ')})" for site, method in blank.items()]
    return [figure.words(metrics), *([f"Not attacked: {errors.list_phrase(reasons)}."] if reasons else [])]


def sites_table(figures: Sequence[SiteFigure], least: int) -> pd.DataFrame:
    """`sites.csv`: the columns of `evaluate --sites`, counts below the least blank."""
    lines = [dict(zip(COLUMNS, line, strict=False)) for one in figures for line in one.lines]
    for line in lines:
        line |= {name: line[name] if line[name] >= least else None for name in COUNTS}
    return pd.DataFrame(lines, columns=[*COLUMNS])
