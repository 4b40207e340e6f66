"""The verdict on each method: what its tests found over cases, and whether it passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from isocenter.errors import counted
from isocenter.evaluation import bootstrap
from isocenter.values import Estimate

# Of the tests below. It rises with every change of what they measure or demand, so that verdicts kept before are made
# anew: since 2 the correlation with maps of redrawn weights is absolute, since 3 occlusion is even at borders.
TESTS_VERSION = 3
# Cases from which a method is judged, and of which it is judged if not said otherwise.
FEWEST: int = 5
TESTED: int = 20
# Absolute rank correlation with maps of redrawn weights that a method may have, and rank correlation with maps of noisy
# images that it needs.
MOST_ALIKE, LEAST_STABLE = 0.5, 0.5
# Beside which maps both curves have to be better.
OTHERS = {"random": "random maps", "edges": "an edge filter"}
CURVES = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict of tests of a method on a model.

    passed:   whether all were passed; None where one of them could not be made
    because:  the reason in words
    measures: {test: mean over cases, with its interval}
    """

    passed: bool | None
    because: str
    measures: Mapping[str, Estimate]

    @property
    def record(self) -> dict[str, Any]:
        """The verdict as `explanations.json` holds it."""
        numbers = {name: plain_estimate(one) for name, one in self.measures.items()}
        return {"passed": self.passed, "because": self.because, **numbers}


def verdict_of(tested: Sequence[Mapping[str, float]], patients: Sequence[str], *, seed: int) -> Verdict:
    """The verdict from what was found on each case; patients are resampled for the intervals."""
    measures = {
        name: bootstrap([one.get(name, np.nan) for one in tested], patients, seed=seed, unit="share")
        for name in dict.fromkeys(name for one in tested for name in one)
    }
    if len(tested) < FEWEST:
        return Verdict(None, f"tested on {counted(len(tested), 'case')}, which is too few to judge", measures)
    faults = list(_faults(measures))
    if faults:
        return Verdict(False, "; ".join(faults), measures)
    if not np.isfinite(measures["randomisation"].value):
        return Verdict(None, "the weights cannot be redrawn without torch; it passed the other tests", measures)
    because = (
        f"absolute rank correlation {measures['randomisation'].value:.2f} with maps of redrawn weights; deletion and "
        "insertion better than of random maps and of an edge filter"
    )
    return Verdict(True, because, measures)


def _faults(measures: Mapping[str, Estimate]) -> Iterator[str]:
    alike, stability = measures["randomisation"].value, measures["stability"].value
    if alike > MOST_ALIKE:
        yield f"maps stay alike when weights are redrawn (absolute rank correlation {alike:.2f})"
    for other, words in OTHERS.items():
        lows = {curve: measures[f"{curve}_over_{other}"].low for curve in CURVES}
        if worse := [curve for curve, low in lows.items() if low is None or not low > 0]:
            yield f"{' and '.join(worse)} not shown to be better than of {words}"
    if not stability >= LEAST_STABLE:
        yield f"noise of 1 % changes the map (rank correlation {stability:.2f})"


def plain_estimate(estimate: Estimate) -> dict[str, Any]:
    """The estimate as a JSON record."""
    content = asdict(replace(estimate, draws=None, recipe=None))
    return {name: content[name] for name in ("value", "low", "high", "n", "method")}
