"""A series of events before and after a change: its size, and segmented regression with autocorrelation.

Lopez Bernal et al., Int J Epidemiol 2017, doi:10.1093/ije/dyw098. Level and slope may change at one moment; errors are
a first-order autoregression, fitted by Prais and Winsten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.lazy import stats
from hilum.studies import _study_design
from hilum.studies._study_design import Design, DesignInput, Inputs
from hilum.values import Floats
from hilum.values.table_cells import TableRow

SOURCE = "Lopez Bernal et al., Int J Epidemiol 2017, doi:10.1093/ije/dyw098"
# Points on either side: with fewer a slope of its own rests on the noise of each.
LEAST_POINTS = 4
# Of the autocorrelation: nearer to 1 a series is a random walk, of which a level means nothing.
MOST_CORRELATED = 0.95
ROUNDS = 20
TERMS = ("level before", "slope before", "change of level", "change of slope")


@dataclass(frozen=True, eq=False)
class SegmentedFit:
    """A fit. table: rows of term, value, low, high, p; fitted, unchanged: (points,) with and without the change"""

    table: tuple[TableRow, ...]
    correlation: float
    fitted: Floats
    unchanged: Floats


def segment_columns(points: int, after: int, season: int = 0) -> Floats:
    """(points, terms): level, slope, change of level and of slope from point `after`, and a wave of `season` points."""
    time = np.arange(points, dtype=float)
    is_after = (time >= after).astype(float)
    columns = [np.ones(points), time, is_after, is_after * (time - after)]
    if season:
        turn = 2 * math.pi * time / season
        columns += [np.sin(turn), np.cos(turn)]
    return np.stack(columns, axis=1)


def fit_segments(values: Sequence[float] | Floats, after: int, *, season: int = 0, level: float = 0.95) -> SegmentedFit:
    """Segmented regression of equally spaced values, whose change lies before point `after` (from 0).

    season: points of a yearly or weekly wave, 0 for none
    DatasetError for fewer than four points on either side, or values that a line meets exactly.
    """
    outcome = np.asarray(values, dtype=float)
    table = segment_columns(len(outcome), after, season)
    least = LEAST_POINTS + (2 if season else 0)
    if min(after, len(outcome) - after) < least:
        before, rest = (errors.count_phrase(count, "point") for count in (after, len(outcome) - after))
        problem = f"{before} before the change and {rest} from then on are too few for a line on each side"
        raise DatasetError(problem, "before-after", f"Give {least} or more on either side")
    values_of, spread, correlation = (one[0] for one in _prais_winsten(table, outcome[None]))
    if not (spread > np.ptp(outcome) * 1e-9).all():
        raise DatasetError("the values lie on a line without any noise", "before-after", "Give measured values")
    free = len(outcome) - table.shape[1] - 1
    reach = stats.t.isf((1 - level) / 2, free) * spread
    chances = 2 * stats.t.sf(np.abs(values_of / spread), free)
    names = (*TERMS, *(("season, sine", "season, cosine") if season else ()))
    rows = zip(
        names, values_of.tolist(), (values_of - reach).tolist(), (values_of + reach).tolist(), chances, strict=True
    )
    unchanged = table.copy()
    unchanged[:, 2:4] = 0
    return SegmentedFit(
        tuple(
            {"term": name, "value": value, "low": low, "high": high, "p": float(p)}
            for name, value, low, high, p in rows
        ),
        float(correlation),
        table @ values_of,
        unchanged @ values_of,
    )


def _prais_winsten(table: Floats, outcomes: Floats) -> tuple[Floats, Floats, Floats]:
    """(series, terms) coefficients and their standard errors, and (series,) autocorrelation, of (series, points)."""
    points, terms = table.shape
    correlation: Floats = np.zeros(len(outcomes))
    for _ in range(ROUNDS):
        left = _whitened(np.broadcast_to(table, (len(outcomes), points, terms)), correlation)
        right = _whitened(outcomes[..., None], correlation)
        inverse = np.linalg.inv(left.mT @ left)
        found = (inverse @ (left.mT @ right))[..., 0]
        rest = outcomes - found @ table.T
        # The residuals of a fit are less correlated than errors are: a term more for each that was fitted.
        seen = (rest[:, 1:] * rest[:, :-1]).sum(axis=1) / np.maximum((rest**2).sum(axis=1), 1e-300)
        new: Floats = np.clip(seen + terms / points, -MOST_CORRELATED, MOST_CORRELATED)
        if np.abs(new - correlation).max() < 1e-8:
            break
        correlation = new
    noise = ((right[..., 0] - (left @ found[..., None])[..., 0]) ** 2).sum(axis=1) / (points - terms - 1)
    return found, np.sqrt(noise[:, None] * np.diagonal(inverse, axis1=1, axis2=2)), correlation


def _whitened(series: Floats, correlation: Floats) -> Floats:
    """(series, points, columns) less the correlated part of the point before."""
    share = correlation[:, None, None]
    return np.concatenate([series[:, :1] * np.sqrt(1 - share**2), series[:, 1:] - share * series[:, :-1]], axis=1)


def _segments(inputs: Inputs, n: float) -> tuple[int, int]:
    """Points, and the first of them after the change."""
    points = int(n + 1e-9)
    return points, round(points * inputs["share_before"])


def _power(inputs: Inputs, n: float) -> float:
    points, after = _segments(inputs, n)
    if min(after, points - after) < LEAST_POINTS:
        return 0.0
    correlation = np.array([inputs["autocorrelation"]])
    left = _whitened(segment_columns(points, after)[None], correlation)[0]
    error = math.sqrt((1 - correlation[0] ** 2) * np.linalg.inv(left.T @ left)[2, 2])
    free = points - len(TERMS) - 1
    return float(stats.nct.sf(stats.t.isf(inputs["alpha"] / 2, free), free, abs(inputs["level"]) / error))


def _refuse(inputs: Inputs) -> None:
    if inputs["level"] == 0:
        raise _study_design.no_effect_error("level")
    if inputs["autocorrelation"] > MOST_CORRELATED:
        problem = f"autocorrelation is {inputs['autocorrelation']:g}: such a series has no level that could change"
        raise UsageError(problem, "--set autocorrelation", f"Give at most {MOST_CORRELATED}")


def _simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The t statistic of the change of level, on the side of the effect and as a z of the same chance."""
    if len(sizes) > 1:
        raise UsageError("a series before and after is not simulated with looks", "--simulate", "Leave out looks")
    points, after = _segments(inputs, sizes[-1])
    share = inputs["autocorrelation"]
    steps = random.standard_normal((draws, points)) * math.sqrt(1 - share**2)
    noise = np.empty((draws, points))
    noise[:, 0] = random.standard_normal(draws)
    for point in range(1, points):
        noise[:, point] = share * noise[:, point - 1] + steps[:, point]
    outcomes = noise + abs(inputs["level"]) * (np.arange(points) >= after)
    found, spread, _ = _prais_winsten(segment_columns(points, after), outcomes)
    chance = stats.t.sf(found[:, 2] / spread[:, 2], points - len(TERMS) - 1)
    return np.asarray(stats.norm.isf(np.clip(chance, 1e-300, 1)))[:, None]


BEFORE_AFTER = Design(
    "before-after",
    {
        "level": DesignInput("number", "change of the level, in standard deviations of a point around its line"),
        "share_before": DesignInput("fraction", "share of the points that lie before the change", 0.5),
        "autocorrelation": DesignInput("share", "correlation of a point with the one before it", 0.2),
    },
    "t test of the change of level in a segmented regression with first-order autocorrelation; n counts points in time",
    SOURCE,
    _power,
    _refuse,
    effect=("level", lambda inputs: (0.0, 20.0)),
    simulation=_simulated,
    is_clustered=False,
    counted="points in time",
)
