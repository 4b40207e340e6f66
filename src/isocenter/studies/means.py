"""Sizes for means: of two arms, or of two measurements of the same participants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.lazy import special, stats, statsmodels_power
from isocenter.studies.design import Design, no_effect
from isocenter.studies.inputs import Input, Inputs
from isocenter.values import Floats


def _gap(inputs: Inputs) -> float:
    difference = inputs["difference"]
    return float(abs(difference) if inputs["margin"] is None else difference + inputs["margin"])


def _refuse(inputs: Inputs) -> None:
    if inputs["difference"] is not None and _gap(inputs) <= 0:
        raise no_effect("no difference" if inputs["margin"] is None else "the margin")


def _power(inputs: Inputs, n: float) -> float:
    if n <= 1:
        return 0.0
    size, alpha = _gap(inputs) / inputs["sd"], inputs["alpha"] / 2
    if inputs["paired"]:
        return float(statsmodels_power.TTestPower().power(size, n, alpha, alternative="larger"))
    return float(statsmodels_power.TTestIndPower().power(size, n, alpha, alternative="larger"))


def _simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The t statistic, as the z of the same p-value."""
    arms = 1 if inputs["paired"] else 2
    values = random.standard_normal((arms, draws, sizes[-1])) * inputs["sd"]
    values[0] += inputs["difference"] * (1.0 if inputs["margin"] is not None else np.sign(inputs["difference"]))
    found = []
    for n in sizes:
        seen = values[:, :, :n]
        gap = seen[0].mean(axis=1) - (seen[1].mean(axis=1) if arms == 2 else 0.0) + (inputs["margin"] or 0.0)
        error = np.sqrt(seen.var(axis=2, ddof=1).sum(axis=0) / n)
        chance = stats.t.sf(gap / error, arms * (n - 1))
        found.append(-special.ndtri(np.clip(chance, 1e-300, 1.0)))
    return np.stack(found, axis=1)


def _cluster_means(inputs: Inputs, is_new: bool, sizes: Floats, random: np.random.Generator) -> Floats:
    """Means of clusters, which vary between clusters and with their participants."""
    variance = inputs["sd"] ** 2 * (inputs["icc"] + (1 - inputs["icc"]) / sizes)
    return np.asarray(is_new * inputs["difference"] + np.sqrt(variance) * random.standard_normal(sizes.shape))


MEANS = Design(
    "means",
    {
        "difference": Input("number", "the difference of the means, new less other"),
        "sd": Input("positive", "standard deviation of one arm; with paired of the differences", needed=True),
        "paired": Input("yes or no", "whether both measurements are of the same participants", False),
        "margin": Input("positive", "how much lower the new mean may be (non-inferiority of what should be high)"),
    },
    "t test, power by the noncentral t distribution",
    "Cohen, Statistical Power Analysis for the Behavioral Sciences 1988, doi:10.4324/9780203771587",
    _power,
    _refuse,
    effect=("difference", lambda inputs: (-(inputs["margin"] or 0.0), 20 * inputs["sd"])),
    groups=lambda inputs: 1 if inputs["paired"] else 2,
    simulation=_simulated,
    cluster_means=_cluster_means,
)
