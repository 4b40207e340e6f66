"""Performance of a model in use, month by month: audited, reported, or estimated without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from isocenter.evaluation import auroc, bootstrap, bootstrap_statistic
from isocenter.lazy import pandas as pd
from isocenter.monitoring.drift import Drift
from isocenter.monitoring.estimates import (
    FEWEST_READ,
    RATES,
    audited_performance,
    expected_performance,
    parts_of_rate,
)
from isocenter.monitoring.stream import CONCEPT, INCLUSION, PROBABILITY, Stream
from isocenter.values import Estimate, Floats

AUDITED, REPORTED, ESTIMATED = "audited", "reported", "estimated"
# Days from which on figures are given month by month.
LONG = 60
SEED = 0


@dataclass(frozen=True)
class Performance:
    """One row of `performance.csv`.

    since, until: days of the window, the second not in it
    source:       audited (drawn at random and read blind), reported (labels that came otherwise), estimated (from the
                  model's own probabilities)
    """

    since: str
    until: str
    scope: str
    metric: str
    label: str
    estimate: Estimate
    source: str


def performances(stream: Stream, by: str | None, rows_of_drift: Sequence[Drift]) -> list[Performance]:
    """The figures of each window: of all cases, and of each group over the whole time.

    A window that ends after the beginning of a concept drift has no estimates: they cannot see such a drift.
    """
    rows = list[Performance]()
    rings = [pd.Timestamp(row.since) for row in rows_of_drift if row.kind == CONCEPT and row.alarm_at and not row.scope]
    windows = list(_windows(stream.at))
    for start, end in windows:
        part = stream.only(np.asarray((stream.at >= start) & (stream.at < end)))
        days = (start.date().isoformat(), end.date().isoformat())
        withheld = any(since < end for since in rings)
        rows += [replace(row, since=days[0], until=days[1]) for row in _figures(part, "", is_estimated=not withheld)]
    days = (windows[0][0].date().isoformat(), windows[-1][1].date().isoformat())
    for name, levels in stream.groups(by).items():
        for level in sorted(set(map(str, levels))):
            part = stream.only(np.asarray(levels == level))
            own = _figures(part, f"{name}={level}", is_estimated=not rings)
            rows += [replace(row, since=days[0], until=days[1]) for row in own]
    return rows


def performance_table(rows: Sequence[Performance]) -> pd.DataFrame:
    """The rows as `performance.csv` has them."""
    return pd.DataFrame(
        [
            {
                "from": row.since,
                "to": row.until,
                "scope": row.scope,
                "metric": row.metric,
                "label": row.label,
                "value": row.estimate.value,
                "low": row.estimate.low,
                "high": row.estimate.high,
                "n": row.estimate.n,
                "patients": row.estimate.patients,
                "source": row.source,
                "method": row.estimate.method,
            }
            for row in rows
        ],
        columns=["from", "to", "scope", "metric", "label", "value", "low", "high", "n", "patients", "source", "method"],
    )


def _windows(at: pd.DatetimeIndex) -> Iterator[tuple[pd.Timestamp, pd.Timestamp]]:
    first, last = at.min().normalize(), at.max().normalize() + pd.Timedelta(days=1)
    if (last - first).days < LONG:
        yield first, last
        return
    start = first
    while start < last:
        end = min((start + pd.offsets.MonthBegin(1)).normalize(), last)
        yield start, end
        start = end


def _figures(part: Stream, scope: str, *, is_estimated: bool) -> Iterator[Performance]:
    """The figures of some cases, for each finding; the window is not yet stated."""
    for finding in part.findings:
        p, outcomes, calls = part.numbers(f"{PROBABILITY}{finding}"), part.outcomes(finding), part.calls(finding)
        chance, patients = part.numbers(INCLUSION), part.patients
        audited = np.isfinite(outcomes) & np.isfinite(chance)
        reported, stated = np.isfinite(outcomes) & ~np.isfinite(chance), np.isfinite(p)
        for metric in RATES if np.isfinite(calls).any() else ():
            made = partial(Performance, "", "", scope, metric, finding)
            asked = np.isfinite(calls) & stated & ~reported
            if audited.any():
                truths = np.where(audited, outcomes, np.nan)[asked]
                yield made(
                    audited_performance(calls[asked], truths, chance[asked], metric, probabilities=p[asked]), AUDITED
                )
            if reported.any():
                yield made(_rate(metric, calls, outcomes, patients, reported), REPORTED)
            if is_estimated:
                usable = stated & np.isfinite(calls)
                whose, called = patients[usable], calls[usable]
                yield made(expected_performance(p[usable], metric, patients=whose, calls=called, seed=SEED), ESTIMATED)
        if (reported & stated).any():
            area = _area(p, outcomes, patients, reported & stated)
            yield Performance("", "", scope, "auroc", finding, area, REPORTED)
        for metric in ("auroc", "brier") if is_estimated and stated.any() else ():
            expected = expected_performance(p[stated], metric, patients=patients[stated], seed=SEED)
            yield Performance("", "", scope, metric, finding, expected, ESTIMATED)


def _rate(metric: str, calls: Floats, outcomes: Floats, patients: np.ndarray, kept: np.ndarray) -> Estimate:
    """A rate of cases whose label came without a draw."""
    kept = kept & np.isfinite(calls)
    over, right = parts_of_rate(metric, calls[kept], outcomes[kept])
    counts = over > 0
    if len(set(patients[kept][counts])) < FEWEST_READ:
        return Estimate(float("nan"), n=int(counts.sum()), method="none: too few to judge")
    return bootstrap(right[counts], patients[kept][counts], seed=SEED)


def _area(p: Floats, outcomes: Floats, patients: np.ndarray, kept: np.ndarray) -> Estimate:
    values, truth = p[kept], outcomes[kept] == 1
    if len(set(patients[kept])) < FEWEST_READ or len(set(truth)) < 2:
        return Estimate(float("nan"), n=len(truth), method="none: too few to judge")
    return bootstrap_statistic(
        lambda weights: auroc(values, truth, weights), patients[kept], strata=truth, seed=SEED, compares=True
    )
