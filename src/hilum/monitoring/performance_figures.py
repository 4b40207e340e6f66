"""Performance of a model in use, month by month: audited, reported, or expected from its own probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import DatasetError, UsageError
from hilum.evaluation import classification, intervals
from hilum.lazy import pandas as pd
from hilum.lazy import special, stats
from hilum.monitoring.case_stream import CONCEPT, INCLUSION, PROBABILITY, CaseStream
from hilum.monitoring.drift_detection import Drift
from hilum.values import Estimate, Floats

AUDITED = "audited"
REPORTED = "reported"
ESTIMATED = "estimated"
# Days from which on figures are given month by month.
LONG = 60
SEED = 0


@dataclass(frozen=True)
class Performance:
    """One row of `performance.csv`.

    since, until: days of the window, the second not in it
    source:       audited (sampled at random and read blind), reported (labels that came otherwise), estimated (from the
                  model's own probabilities)
    """

    since: str
    until: str
    scope: str
    metric: str
    label: str
    estimate: Estimate
    source: str


def performance_rows(stream: CaseStream, by: str | None, rows_of_drift: Sequence[Drift]) -> list[Performance]:
    """The figures of each window: of all cases, and of each group over the whole time.

    A window that ends after the beginning of a concept drift has no estimates: they cannot see such a drift.
    """
    rows = list[Performance]()
    times = [pd.Timestamp(row.since) for row in rows_of_drift if row.kind == CONCEPT and row.alarm_at and not row.scope]
    rings = [stream.local[min(int(stream.at.searchsorted(one)), len(stream) - 1)] for one in times]
    windows = list(_windows(stream.local))
    for start, end in windows:
        part = stream.only(np.asarray((stream.local >= start) & (stream.local < end)))
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


def _figures(part: CaseStream, scope: str, *, is_estimated: bool) -> Iterator[Performance]:
    """The figures of some cases, for each finding; the window is not yet stated."""
    for finding in part.findings:
        p = part.numbers(f"{PROBABILITY}{finding}")
        outcomes = part.outcomes(finding)
        calls = part.calls(finding)
        chance = part.numbers(INCLUSION)
        patients = part.patients
        audited = np.isfinite(outcomes) & np.isfinite(chance)
        reported = np.isfinite(outcomes) & ~np.isfinite(chance)
        stated = np.isfinite(p)
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
                whose = patients[usable]
                called = calls[usable]
                yield made(expected_performance(p[usable], metric, patients=whose, calls=called, seed=SEED), ESTIMATED)
        if (reported & stated).any():
            area = _area(p, outcomes, patients, reported & stated)
            yield Performance("", "", scope, "auroc", finding, area, REPORTED)
        for metric in ("auroc", "brier") if is_estimated and stated.any() else ():
            expected = expected_performance(p[stated], metric, patients=patients[stated], seed=SEED)
            yield Performance("", "", scope, metric, finding, expected, ESTIMATED)


def _rate(metric: str, calls: Floats, outcomes: Floats, patients: np.ndarray, chosen: np.ndarray) -> Estimate:
    """A rate of cases whose label came otherwise than by a sample."""
    chosen = chosen & np.isfinite(calls)
    over, right = parts_of_rate(metric, calls[chosen], outcomes[chosen])
    counts = over > 0
    if len(set(patients[chosen][counts])) < FEWEST_READ:
        return Estimate(float("nan"), n=int(counts.sum()), method="none: too few to judge")
    return intervals.bootstrap(right[counts], patients[chosen][counts], seed=SEED)


def _area(p: Floats, outcomes: Floats, patients: np.ndarray, chosen: np.ndarray) -> Estimate:
    values = p[chosen]
    truth = outcomes[chosen] == 1
    if len(set(patients[chosen])) < FEWEST_READ or len(set(truth)) < 2:
        return Estimate(float("nan"), n=len(truth), method="none: too few to judge")
    return intervals.bootstrap_statistic(
        lambda weights: classification.auroc(values, truth, weights),
        patients[chosen],
        strata=truth,
        seed=SEED,
        compares=True,
    )


DRAWS = 200
LEVEL = 0.95
# Below this number of studies that were read an interval is not given.
FEWEST_READ = 10
EXPECTED = "expected from calibrated probabilities; blind to a change of what images mean"
RATES = ("sensitivity", "specificity", "ppv", "npv")
METRICS = ("auroc", *RATES, "brier")


def expected_performance(
    probabilities: ArrayLike,
    metric: str,
    threshold: float | None = None,
    patients: ArrayLike | None = None,
    *,
    calls: ArrayLike | None = None,
    seed: int = 0,
) -> Estimate:
    """A metric of cases without reference, from their calibrated probabilities, with a 95 % interval over patients.

    probabilities: (cases,) of the finding
    metric:        auroc, brier, or at `threshold` sensitivity, specificity, ppv, npv
    patients:      (cases,) whose case it is; None: each its own
    calls:         (cases,) what the model called, in place of a threshold
    If the probability is right in every case, the expected number of true positives is the sum over called cases, and
    so on; nothing else enters. So it holds under another mix of cases, and it cannot see that images have come to mean
    something else: `watch_calibration` does, from outcomes.
    Raises UsageError for an unknown metric, a rate without threshold, and probabilities outside 0..1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if metric not in METRICS:
        raise UsageError(f"the metric {metric!r}", "expected_performance", f"Choose one of {', '.join(METRICS)}")
    if (threshold is None and calls is None) == (metric in RATES):
        needs = "needs a threshold" if metric in RATES else "has no threshold"
        raise UsageError(f"{metric} {needs}", "expected_performance", "Give the model's operating point for rates only")
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise UsageError("probabilities outside 0..1, or not (cases,)", "expected_performance", "Give (cases,) in 0..1")
    owners = (
        np.arange(len(p)) if patients is None else np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    )
    called = np.asarray(p >= (threshold or 0.0) if calls is None else calls, dtype=np.float64)
    people = int(owners.max()) + 1 if len(p) else 0
    if people < FEWEST_READ:
        value = _area_in_order(np.sort(p), np.ones(len(p))) if metric == "auroc" else _totals(metric, called, p)[0]
        return Estimate(value, n=len(p), patients=people, method=f"none: too few to judge; {EXPECTED}")
    if metric == "auroc":
        value, low, high = _area_with_interval(p, owners, people, seed)
        return Estimate(value, low, high, LEVEL, len(p), people, method=f"patient bootstrap; {EXPECTED}")
    value, error = _totals(metric, called, p, owners)
    if not 0 < value < 1:
        return Estimate(value, n=len(p), patients=people, method=f"none: no such case; {EXPECTED}")
    low, high = _between_0_and_1(value, error, people)
    return Estimate(value, low, high, LEVEL, len(p), people, method=f"ratio of totals over patients; {EXPECTED}")


def audited_performance(
    calls: ArrayLike, truths: ArrayLike, inclusion: ArrayLike, metric: str, *, probabilities: ArrayLike | None = None
) -> Estimate:
    """A rate of a model from studies that were sampled at random to be read blind, with a 95 % interval.

    calls:         (studies,) what the model said of every study, 0 or 1
    truths:        (studies,) what the blind reading said; NaN where a study was not sampled
    inclusion:     (studies,) the chance with which it was sampled, above 0
    metric:        sensitivity, specificity, ppv, npv
    probabilities: (studies,) of the finding. They stand in for readings that are lacking, and the readings correct
                   them, where that makes the interval narrower; it stays right if they are wrong
    Each reading counts by the inverse of its chance, so that called studies may be read more often than others. The
    interval is that of a ratio of totals (Horvitz and Thompson) on the scale of log-odds; with probabilities it is
    prediction-powered (Angelopoulos et al., arXiv:2311.01453). A ratio of 0 or 1 has an exact bound.
    Raises UsageError for another metric or unlike lengths, DatasetError for a chance of 0 or above 1.
    """
    called, truth, chance = (np.asarray(one, dtype=np.float64) for one in (calls, truths, inclusion))
    if metric not in RATES:
        raise UsageError(f"the metric {metric!r}", "audited_performance", f"Choose one of {', '.join(RATES)}")
    if not (called.ndim == 1 and called.shape == truth.shape == chance.shape):
        raise UsageError("arrays of unlike lengths", "audited_performance", "Give (studies,) each")
    read = ~np.isnan(truth)
    if not ((chance[read] > 0) & (chance[read] <= 1)).all():
        problem = "a study that was read has an inclusion of 0 or above 1"
        raise DatasetError(
            problem, "inclusion", "State the chance with which it was sampled; leave reported labels out"
        )
    guessed = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    over, hits = parts_of_rate(metric, called, np.where(read, truth, 0.0))
    found = int(np.count_nonzero(read & (over > 0)))
    if found < FEWEST_READ:
        return Estimate(float("nan"), n=found, method=f"none: too few to judge ({found} read)")
    inverse = np.where(read, 1 / np.where(read, chance, 1.0), 0.0)
    candidates = [(_ratio(hits * inverse, over * inverse), "weighted by the inverse of the chance to be read")]
    if guessed is not None:
        expected_over, expected_hits = parts_of_rate(metric, called, guessed)
        # The sum over all studies of what is expected, corrected by the readings.
        corrected = [guess + inverse * (seen - guess) for seen, guess in ((hits, expected_hits), (over, expected_over))]
        candidates.append((_ratio(*corrected), "prediction-powered: probabilities corrected by the readings"))
    (value, error), method = min(candidates, key=lambda one: one[0][1] if one[0][1] > 0 else np.inf)
    if not 0 < value < 1 or error <= 0:
        value = float(np.clip(value, 0, 1))
        return replace(intervals.clopper_pearson(round(value * found), found), method=f"exact, {method}")
    low, high = _between_0_and_1(value, error, found)
    return Estimate(value, low, high, LEVEL, found, method=method)


def _between_0_and_1(value: float, error: float, n: int) -> tuple[float, float]:
    """The interval of a share, symmetric on the scale of log-odds."""
    reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * error / (value * (1 - value))
    return float(special.expit(special.logit(value) - reach)), float(special.expit(special.logit(value) + reach))


def _totals(metric: str, called: Floats, p: Floats, owners: NDArray[np.intp] | None = None) -> tuple[float, float]:
    """Value of a metric if a case of probability p has the finding in a share p, and its standard error."""
    over, hits = (np.ones(len(p)), p * (1 - p)) if metric == "brier" else parts_of_rate(metric, called, p)
    if owners is not None:
        return _ratio(*(np.bincount(owners, one).astype(np.float64) for one in (hits, over)))
    return _ratio(hits, over)


def _area_with_interval(p: Floats, owners: NDArray[np.intp], people: int, seed: int) -> tuple[float, float, float]:
    random = np.random.default_rng(seed)
    areas = np.empty(DRAWS)
    order = np.argsort(p, kind="stable")
    p = p[order]
    owners = owners[order]
    for draw in range(DRAWS):
        weights = np.bincount(random.integers(people, size=people), minlength=people)
        areas[draw] = _area_in_order(p, weights[owners].astype(np.float64))
    low, high = np.nanquantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return _area_in_order(p, np.ones(len(p))), low, high


def _area_in_order(p: Floats, w: Floats) -> float:
    """Expected share of pairs, one with and one without the finding, that rising probabilities put in order."""
    starts = np.flatnonzero(np.diff(p, prepend=-1.0))
    ill = np.add.reduceat(w * p, starts)
    well = np.add.reduceat(w * (1 - p), starts)
    below = np.cumsum(well) - well
    pairs = ill.sum() * well.sum()
    return float((ill @ (below + well / 2)) / pairs) if pairs > 0 else float("nan")


def parts_of_rate(metric: str, called: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """(what a rate is a share of, what of it is right), for each study; `truth` may be a probability."""
    if metric == "sensitivity":
        return truth, truth * called
    if metric == "specificity":
        return 1 - truth, (1 - truth) * (1 - called)
    if metric == "ppv":
        return called, called * truth
    return 1 - called, (1 - called) * (1 - truth)


def _ratio(numerators: Floats, denominators: Floats) -> tuple[float, float]:
    """A ratio of totals and its standard error, by its linear part."""
    total = denominators.sum()
    if not total > 0:
        return float("nan"), float("nan")
    value = float(numerators.sum() / total)
    residuals: NDArray[np.float64] = numerators - value * denominators
    return value, float(np.sqrt((residuals**2).sum()) / total)
