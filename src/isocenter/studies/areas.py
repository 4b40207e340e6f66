"""Sizes for areas under the ROC curve: one against a value, or two models on the same cases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from isocenter.errors import UsageError
from isocenter.lazy import optimize, special, stats
from isocenter.studies.design import Design, no_effect, normal_power
from isocenter.studies.inputs import Input, Inputs
from isocenter.values import Floats


def area_covariance(first: float, second: float, correlation: float, prevalence: float) -> float:
    """Covariance of the AUROCs of two models on the same cases, times the number of cases.

    correlation: of their scores, which are normal with one spread in both kinds of case; 1 gives a model's variance
    """
    # Two positives above a negative of their own: the chance of Bamber's second moment, the same for two negatives.
    ends = special.ndtri([first, second])
    law = stats.multivariate_normal(cov=[[1.0, correlation / 2], [correlation / 2, 1.0]])
    return float((law.cdf(ends) - first * second) / (prevalence * (1 - prevalence)))


def area_variance(area: float, prevalence: float) -> float:
    """Variance of an AUROC, times the number of cases."""
    return area_covariance(area, area, 1.0, prevalence)


def _gap(inputs: Inputs) -> float:
    return float(inputs["expected"] - inputs["at_least"] + (inputs["margin"] or 0.0))


def _refuse(inputs: Inputs) -> None:
    if inputs["expected"] is not None and _gap(inputs) <= 0:
        raise no_effect("at_least" if inputs["margin"] is None else "at_least less the margin")
    if inputs["at_least"] - (inputs["margin"] or 0.0) < 0.5:
        raise UsageError("an AUROC to beat below 0.5 is worse than chance", "--set at_least", "Give 0.5 or more")


def _power(inputs: Inputs, n: float) -> float:
    expected, least, share, alpha = (inputs[name] for name in ("expected", "at_least", "prevalence", "alpha"))
    if n * min(share, 1 - share) < 2:
        return 0.0
    if inputs["correlation"] is None:
        null = area_variance(least - (inputs["margin"] or 0.0), share)
        return normal_power(_gap(inputs), n, alpha, math.sqrt(null), math.sqrt(area_variance(expected, share)))
    # Both models have the same AUROC under the null hypothesis: that between the two.
    same = (expected + least) / 2
    null = 2 * area_variance(same, share) * (1 - inputs["correlation"])
    one, other = area_variance(expected, share), area_variance(least, share)
    apart = one + other - 2 * inputs["correlation"] * math.sqrt(one * other)
    return normal_power(
        _gap(inputs), n, alpha, math.sqrt(apart if inputs["margin"] is not None else null), math.sqrt(apart)
    )


def _simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The z statistic of AUROCs of normal scores, with DeLong's variance."""
    expected, least, correlated = inputs["expected"], inputs["at_least"], inputs["correlation"]
    shifts = np.sqrt(2) * special.ndtri([expected, least])
    shared = 0.0 if correlated is None else _score_correlation(expected, least, correlated, inputs["prevalence"])
    null = (least if correlated is None else 0.0) - (inputs["margin"] or 0.0)
    found = np.zeros((draws, len(sizes)))
    for draw in range(draws):
        truth = random.random(sizes[-1]) < inputs["prevalence"]
        noise = random.standard_normal((2, sizes[-1]))
        noise[1] = shared * noise[0] + np.sqrt(1 - shared**2) * noise[1]
        scores = noise + shifts[:, None] * truth
        for look, n in enumerate(sizes):
            found[draw, look] = _area_statistic(scores[: 1 if correlated is None else 2, :n], truth[:n], null)
    return found


def _score_correlation(first: float, second: float, correlation: float, prevalence: float) -> float:
    """The correlation of scores whose AUROCs have this one."""
    spread = math.sqrt(area_variance(first, prevalence) * area_variance(second, prevalence))

    def apart(shared: float) -> float:
        return area_covariance(first, second, shared, prevalence) / spread - correlation

    return float(optimize.brentq(apart, -1e-6, 1.0)) if apart(1.0) > 0 else 1.0


def _area_statistic(scores: Floats, truth: np.ndarray, null: float) -> float:
    """The distance of an AUROC, or of the difference of two, from the null hypothesis in standard errors."""
    if min(truth.sum(), (~truth).sum()) < 2:
        return 0.0
    above = np.stack([_share_below(one[truth], one[~truth]) for one in scores])
    below = np.stack([1 - _share_below(one[~truth], one[truth]) for one in scores])
    if len(scores) == 2:
        above, below = above[:1] - above[1:], below[:1] - below[1:]
    variance = above.var(ddof=1) / above.size + below.var(ddof=1) / below.size
    error, area = math.sqrt(max(variance, 1e-12)), float(above.mean())
    if len(scores) == 2:
        return (area - null) / error
    # On the logit scale: a high AUROC has a small variance, so that the plain test finds too much.
    area = min(max(area, 1e-6), 1 - 1e-6)
    return float((special.logit(area) - special.logit(null)) * area * (1 - area) / error)


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Share of the other scores that lie below each score."""
    return np.searchsorted(np.sort(others), scores) / len(others)


AUROC = Design(
    "auroc",
    {
        "expected": Input("fraction", "the AUROC that is expected"),
        "at_least": Input("fraction", "the AUROC to beat; with correlation that of the other model", needed=True),
        "prevalence": Input("fraction", "share of cases with the disease", needed=True),
        "correlation": Input("share", "of the AUROCs of two models on the same cases"),
        "margin": Input("fraction", "how much lower than at_least the AUROC may be (non-inferiority)"),
    },
    "z test of an AUROC, or of the difference of two, whose variance is that of normal scores",
    "Bamber, J Math Psychol 1975, doi:10.1016/0022-2496(75)90001-2; "
    "Obuchowski, Stat Methods Med Res 1998, doi:10.1177/096228029800700405",
    _power,
    _refuse,
    effect=("expected", lambda inputs: (inputs["at_least"] - (inputs["margin"] or 0.0), 1.0)),
    simulation=_simulated,
)
