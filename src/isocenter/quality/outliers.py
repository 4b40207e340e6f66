"""Cases that are unlike the others: blurred, noisy, clipped, with echoes, of another size, spacing or intensity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isocenter.quality.thumbnail import Look
from isocenter.values import CaseFacts, Floats, Problem

# With fewer cases nobody knows what is usual.
FEWEST = 8
# So many cases are outliers in a set of any size.
FEW = 2
# Stands for the unit of spacings: mm, of a series that of its axis.
UNIT = "{unit}"
Measure = Callable[[CaseFacts, Look], Sequence[float]]


@dataclass(frozen=True)
class Rule:
    """When a measure is unlike the others': its distance from the median, in robust standard deviations.

    measure: one number or several (an axis or a channel each) of a case
    side:    which way is odd
    limit:   1.4826 times the median absolute deviation counts as one; Iglewicz and Hoaglin 1993 take 3.5, but where
             thousands of measures are looked at that is too often
    spread:  the deviation is taken as at least this: where all are alike a hair is no outlier
    least:   the measure itself has to be this high, whatever the others are; -inf where it need not
    most:    share of the cases; where more are odd, the set has several kinds and no outliers
    """

    severity: Literal["warning", "note"]
    measure: Measure
    side: Literal["low", "high", "both"]
    spread: float
    what: Callable[[Floats, float], str]
    why: str
    remedy: str
    limit: float = 6.0
    least: float = -np.inf
    most: float = 1.0


def outliers(facts: Sequence[CaseFacts], looks: Mapping[str, Look]) -> Iterator[Problem]:
    """Cases far from those of the same modality, channels and number of axes."""
    kinds: dict[tuple[str, int, int], list[CaseFacts]] = {}
    for case in facts:
        # A colour picture is measured in its luma, as a grey one is.
        kinds.setdefault((case.modality, len(looks[case.id].quality), len(case.shape)), []).append(case)
    for alike in kinds.values():
        if len(alike) >= FEWEST:
            for rule in RULES:
                yield from _beyond(rule, alike, looks)


def robust_z(values: Floats, spread: float) -> Floats:
    """(cases, ...) distance from the median over cases in robust standard deviations; NaN stays NaN."""
    middle = np.nanmedian(values, axis=0)
    deviation = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    return np.asarray((values - middle) / np.maximum(deviation, spread))


def _beyond(rule: Rule, facts: Sequence[CaseFacts], looks: Mapping[str, Look]) -> Iterator[Problem]:
    values = np.array([rule.measure(one, looks[one.id]) for one in facts], dtype=np.float64)
    values = values[:, np.isfinite(values).sum(axis=0) >= FEWEST]
    if not values.size:
        return
    z = robust_z(values, rule.spread)
    far = {"low": -z, "high": z, "both": np.abs(z)}[rule.side]
    odd: NDArray[np.bool_] = (far > rule.limit) & (values >= rule.least)
    chosen = tuple(facts[int(n)].id for n in np.flatnonzero(odd.any(axis=1)))
    if 0 < len(chosen) <= max(FEW, rule.most * len(facts)):
        usual = float(np.nanmedian(values[:, odd.any(axis=0).argmax()]))
        what = rule.what(values[odd], usual).replace(UNIT, facts[0].unit)
        yield Problem(rule.severity, what, chosen, rule.why, rule.remedy)


def _of_channels(name: str) -> Measure:
    return lambda facts, look: [measures[name] for measures in look.quality]


def _noise(facts: CaseFacts, look: Look) -> Sequence[float]:
    return [float(np.log(max(measures["noise"], 1e-3))) for measures in look.quality]


def _level(facts: CaseFacts, look: Look) -> Sequence[float]:
    """The place of the mean between low and high: it has no unit, so scanners can be compared."""
    return [
        (one["mean"] - one["low"]) / (one["high"] - one["low"]) if one["high"] > one["low"] else np.nan
        for one in facts.intensity[: len(look.quality)]
    ]


def _range(facts: CaseFacts, look: Look) -> Sequence[float]:
    return [
        float(np.log(one["high"] - one["low"])) if one["high"] > one["low"] else np.nan
        for one in facts.intensity[: len(look.quality)]
    ]


def _spacing(facts: CaseFacts, look: Look) -> Sequence[float]:
    return np.log(facts.steps).tolist() if facts.physical else [np.nan] * len(facts.steps)


def _size(facts: CaseFacts, look: Look) -> Sequence[float]:
    return np.log(facts.shape).tolist()


def _times(values: Floats, usual: float) -> str:
    """Logarithms as multiples of the usual."""
    return " to ".join(f"{ratio:.2g}" for ratio in np.unique(np.exp([values.min() - usual, values.max() - usual])))


def _span(values: Floats) -> str:
    return " to ".join(f"{value:.3g}" for value in np.unique([values.min(), values.max()]))


LOOK = "Check them: leave them out, or confirm that such images belong to the data"
RULES = (
    Rule(
        "warning",
        _of_channels("sharpness"),
        "low",
        0.15,
        lambda values, usual: (
            f"blurred: fine detail (variance of the Laplacian) is {_times(values, usual)} of the usual"
        ),
        "small structures cannot be seen in them",
        LOOK,
    ),
    Rule(
        "warning",
        _noise,
        "high",
        0.15,
        lambda values, usual: f"noisy: {_times(values, usual)} times the usual noise",
        "noise hides fine structures",
        LOOK,
        least=float(np.log(0.02)),  # 2 % of the range: less is hardly seen
    ),
    Rule(
        "warning",
        _of_channels("clipped"),
        "high",
        0.002,
        lambda values, usual: (
            f"clipped: {_span(100 * values)} % of the voxels have the highest value, usually {100 * usual:.2g} %"
        ),
        "what was brighter is lost, or white is painted in",
        LOOK,
        least=0.02,
    ),
    Rule(
        "warning",
        _of_channels("echo"),
        "high",
        0.01,
        lambda values, usual: (
            f"ghosts or motion: a moved copy of strength {_span(values)} lies over the image, usually {usual:.2g}"
        ),
        "edges appear where nothing is",
        LOOK,
        limit=7.0,
    ),
    Rule(
        "note",
        _level,
        "both",
        0.05,
        lambda values, usual: (
            f"intensities lie unusually: the mean at {_span(values)} of the range, usually {usual:.2g}"
        ),
        "inverted, empty or another protocol",
        LOOK,
        most=0.1,
    ),
    Rule(
        "note",
        _range,
        "both",
        0.25,
        lambda values, usual: f"intensities spread unusually: {_times(values, usual)} times the usual range",
        "another unit or scanner; nothing is wrong where each image is normalised by itself",
        LOOK,
        most=0.1,
    ),
    Rule(
        "warning",
        _spacing,
        "both",
        0.05,
        lambda values, usual: f"spacing is unusual: {_span(np.exp(values))} {UNIT}, usually {np.exp(usual):.3g} {UNIT}",
        "another protocol, or a wrong header: structures would have wrong sizes",
        "Compare with the scanner's record",
        most=0.25,
    ),
    Rule(
        "note",
        _size,
        "both",
        0.1,
        lambda values, usual: (
            f"size is unusual: {_span(np.exp(values))} voxels along an axis, usually {np.exp(usual):.3g}"
        ),
        "another field of view, or a part is missing",
        LOOK,
        most=0.1,
    ),
)
