"""Interim looks: bounds that spend the type I error, and the power of a trial that has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from hilum.lazy import optimize, special
from hilum.values import Floats

# Points of the integral over one look: bounds and power hold to 1e-5.
POINTS = 401
# Standard errors on each side of the mean that the integral covers.
REACH = 8.0


@dataclass(frozen=True)
class InterimLook:
    """One analysis of a trial.

    look:     its number
    fraction: share of the trial's information that it has
    bound:    the z statistic from which it stops with a finding, on either side
    """

    look: int
    fraction: float
    bound: float


def spent_alpha(fraction: float, alpha: float, spending: str) -> float:
    """The share of a one-sided type I error that is used up at a fraction of the information.

    Lan and DeMets, Biometrika 1983, doi:10.1093/biomet/70.3.659
    """
    if spending == "pocock":
        return alpha * math.log(1 + (math.e - 1) * fraction)
    return float(2 * special.ndtr(special.ndtri(alpha / 2) / math.sqrt(fraction)))


def equally_spaced_looks(looks: int, alpha: float, spending: str) -> list[InterimLook]:
    """Equally spaced looks whose bounds spend a two-sided alpha, half on each side."""
    return looks_at_fractions([number / looks for number in range(1, looks + 1)], alpha, spending)


def looks_at_fractions(fractions: Sequence[float], alpha: float, spending: str) -> list[InterimLook]:
    """The same at rising fractions of the information, of which later ones need not be known yet."""
    found: list[float] = []
    paths: _Paths | None = None
    for fraction in fractions:
        already = spent_alpha(fractions[len(found) - 1], alpha / 2, spending) if found else 0.0
        more = spent_alpha(fraction, alpha / 2, spending) - already
        if paths is None:
            bound = float(-special.ndtri(more))
        else:
            bound = paths.bound_beyond(fraction, more)
        found.append(bound)
        paths = _Paths.first(fraction, bound, 0.0) if paths is None else paths.after(fraction, bound)
    return [InterimLook(number, t, z) for number, (t, z) in enumerate(zip(fractions, found, strict=True), start=1)]


def crossing_chance(looks: Sequence[InterimLook], drift: float) -> float:
    """Chance that a trial passes one of its upper bounds.

    drift: mean of the z statistic with all the information
    """
    first, *rest = looks
    chance = float(special.ndtr(drift * math.sqrt(first.fraction) - first.bound))
    paths = _Paths.first(first.fraction, first.bound, drift)
    for look in rest:
        chance += paths.beyond(look.fraction, look.bound)
        paths = paths.after(look.fraction, look.bound)
    return min(chance, 1.0)


@dataclass(frozen=True, eq=False)
class _Paths:
    """Trials that have not stopped: the density of their score at a look, on a grid.

    A score is z times the root of the fraction, so that its increments are independent: Armitage, McPherson and Rowe,
    J R Stat Soc A 1969, doi:10.2307/2343787
    """

    fraction: float
    scores: Floats
    mass: Floats
    drift: float

    @classmethod
    def first(cls, fraction: float, bound: float, drift: float) -> _Paths:
        """Bound of the first look."""
        scores, weights = _grid(fraction, bound, drift)
        return cls(fraction, scores, weights * _density(scores - drift * fraction, fraction), drift)

    def beyond(self, fraction: float, bound: float) -> float:
        """Mass that passes the upper bound of the next look."""
        more = fraction - self.fraction
        reach = (self.scores + self.drift * more - bound * math.sqrt(fraction)) / math.sqrt(more)
        return float(self.mass @ special.ndtr(reach))

    def bound_beyond(self, fraction: float, mass: float) -> float:
        """The bound of the next look that so much mass passes."""
        return float(optimize.brentq(lambda bound: self.beyond(fraction, bound) - mass, 0.0, 10.0, xtol=1e-8))

    def after(self, fraction: float, bound: float) -> _Paths:
        """Bound of the next look."""
        more = fraction - self.fraction
        scores, weights = _grid(fraction, bound, self.drift)
        steps = scores[:, None] - self.scores[None, :] - self.drift * more
        return _Paths(fraction, scores, weights * (_density(steps, more) @ self.mass), self.drift)


def _density(step: Floats, variance: float) -> Floats:
    return cast("Floats", np.exp(-(step**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance))


def _grid(fraction: float, bound: float, drift: float) -> tuple[Floats, Floats]:
    """Scores between the bounds, and Simpson's weights."""
    root = math.sqrt(fraction)
    low, high = max(-bound * root, drift * fraction - REACH * root), min(bound * root, drift * fraction + REACH * root)
    low = min(low, high - 1e-9)  # a trial whose drift is far beyond its bounds has no path left
    scores = np.linspace(low, high, POINTS)
    weights = np.full(POINTS, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return scores, weights * (high - low) / (3 * (POINTS - 1))
