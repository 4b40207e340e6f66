"""Figures at each site, and what a site that is not among them is to expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.errors import UsageError
from hilum.evaluation import ALL, Metrics, Table, intervals, site_pooling
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.evaluation.site_pooling import PooledSites
from hilum.lazy import pandas as pd
from hilum.planning.rules import site_rules
from hilum.report import Paragraph, Section, wording
from hilum.report.figures import charts
from hilum.scoring.auditing.group_audit import AttributeGroups
from hilum.scoring.case_scoring import AuditInput, AuditOutcome
from hilum.tasks import Task
from hilum.values import Estimate, Row

SITES, TITLE = "sites.csv", "Sites"
MEAN, NEW, REST = "mean of sites", "a new site", "the rest"
COLUMNS = ("metric", "label", "site", "value", "low", "high", "se", "n", "patients")
DIFFERENCES = ("difference", "difference_low", "difference_high", "method")
HOW = (
    "Mean of sites: by random effects (Paule-Mandel), with the interval of Hartung and Knapp. A new site: the interval "
    "in which the figure of a further site is expected, if it is one like these; where sites hardly differ, or are "
    "few, it is too short. sites.csv has every figure, with its difference from the rest."
)
CAPTION = "Dot: value, hollow where nobody has measured it. Line: its interval. In brackets: cases."


@dataclass(frozen=True, eq=False)
class SiteFigure:
    """One figure at each site, in all other cases, and pooled."""

    metric: str
    label: str
    at_site: Mapping[str, Estimate]
    elsewhere: Mapping[str, Estimate]
    pooled: PooledSites

    @property
    def lines(self) -> Iterator[tuple[Any, ...]]:
        """Rows of `sites.csv`."""
        pooled, none = {MEAN: self.pooled.mean, NEW: self.pooled.new_site}, Estimate(float("nan"))
        for site, one in {**self.at_site, **pooled}.items():
            error = self.pooled.error if site == MEAN else None if site == NEW else site_pooling.standard_error(one)
            apart = intervals.independent_difference(self.elsewhere.get(site, none), one)
            cells = self.metric, self.label, site, one.value, one.low, one.high, error, one.n, one.patients
            yield *cells, apart.value, apart.low, apart.high, one.method

    def words(self, metrics: Metrics) -> str:
        """What the sites have come to, and what a further one is to expect, in sentences."""
        named = wording.row_name(Row(self.metric, self.label, self.pooled.mean), metrics)
        known = {site: one for site, one in self.at_site.items() if np.isfinite(one.value)}
        if not known:
            return f"{named} is undefined at every site."
        rising = sorted(known, key=lambda site: known[site].value)
        span = " to ".join(f"{wording.value_text(known[site])} ({site})" for site in (rising[0], rising[-1]))
        new = self.pooled.new_site
        if new.low is None or new.high is None:
            return f"{named} by site: {span}. What a new site is to expect is not known: {new.method[6:]}."
        return (
            f"{named} by site: {span}; mean of sites {wording.value_text(new)}. At a new site "
            f"{wording.number_text(new.low)} to {wording.number_text(new.high)} is expected ({new.method})."
        )


def audit_sites(audit: AuditInput) -> AuditOutcome | None:
    """The figures of each site beside the rest; None where no column of sites was named, or one site was scored."""
    column, scored, sites = audit.options.sites, audit.scored, dict[str, str]()
    if column is None:
        return None
    with suppress(UsageError):  # of a test part without the column by which folds were made
        sites = {case: one for case, one in site_rules.sites_of_cases(audit.cases, column).items() if one != UNKNOWN}
    figures: list[SiteFigure] = []
    for part, (task, table) in scored.parts.items():
        rows = table[table["case"].isin(sites)].reset_index(drop=True)
        names = rows["case"].map(sites).to_numpy(dtype=object)
        if len(set(names)) > 1:
            figures += site_figures(rows, names, task, column, part, audit.seed)
    if not figures:
        return None
    lines = [line for one in figures for line in one.lines]
    table = pd.DataFrame(lines, columns=[*COLUMNS, *DIFFERENCES])
    if not audit.patients_known:
        table["patients"] = 0
    main = _main_figure(figures, scored.metrics)
    words, metric = main.words(scored.metrics), scored.metrics.metric_named(main.metric)
    rows_shown = [(column, site, one, True) for site, one in main.at_site.items()]
    rows_shown += [("pooled", MEAN, main.pooled.mean, True), ("pooled", NEW, main.pooled.new_site, False)]
    forest = charts.forest(rows_shown, f"{metric.words} by site", axis=metric.words, caption=f"{CAPTION} {HOW}")
    return AuditOutcome({SITES: table}, sections=[Section(TITLE, [Paragraph(words), forest])], notes=[words])


def site_figures(rows: Table, sites: np.ndarray, task: Task, column: str, part: str, seed: int) -> Iterator[SiteFigure]:
    """Every figure of a table of cases at each site.

    sites: (rows,) where each case was examined
    """
    at_site = {
        site: _estimates(own) for site, own in AttributeGroups(column, part, task, rows, sites, seed).summaries.items()
    }
    elsewhere = {}
    for site in at_site:
        others = rows[sites != site].reset_index(drop=True)
        groups = AttributeGroups(column, part, task, others, np.full(len(others), REST, dtype=object), seed)
        elsewhere[site] = _estimates(groups.summaries[REST])
    none = Estimate(float("nan"), method="none: not among the figures of this site")
    for metric, label in dict.fromkeys(key for own in at_site.values() for key in own):
        here, rest = (
            {site: own.get((metric, label), none) for site, own in found.items()} for found in (at_site, elsewhere)
        )
        kind = task.metrics.metric_named(metric)
        pooled = site_pooling.pool_sites([*here.values()], ends=(kind.least, kind.most))
        yield SiteFigure(metric, f"{part}: {label}" if part else label, here, rest, pooled)


def _estimates(rows: Sequence[Row]) -> dict[tuple[str, str], Estimate]:
    return {(row.metric, row.label): row.estimate for row in rows}


def _main_figure(figures: Sequence[SiteFigure], metrics: Metrics) -> SiteFigure:
    """The first figure of which gaps among groups are tested, else the first."""
    audited = [one for one in figures if metrics.metric_named(one.metric).is_audited]
    return next((one for one in audited if one.label == ALL), (audited or [*figures])[0])
