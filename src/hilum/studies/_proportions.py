"""Sizes for proportions and means: one against a value, two arms, or two measurements of the same cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from hilum.errors import UsageError
from hilum.lazy import special, stats, statsmodels_power, statsmodels_proportion
from hilum.studies import _study_design
from hilum.studies._study_design import Design, DesignInput, Inputs
from hilum.values import Floats

# A share of cases times their number is a whole number in spite of rounding.
ROUNDING = 1e-9
# A specificity is counted over cases without the finding, all else over those with it.
SENSITIVITY, SPECIFICITY = MEASURES = "sensitivity", "specificity"


def _share(inputs: Inputs) -> float:
    """Share of cases that a proportion is counted over: a specificity over those without the finding."""
    share = float(inputs["prevalence"] or 1.0)
    return 1 - share if share < 1 and inputs["measure"] == SPECIFICITY else share


def _positives(inputs: Inputs, n: Floats) -> Floats:
    """Cases that a proportion such as sensitivity is counted over."""
    return cast("Floats", np.floor(n * _share(inputs) + ROUNDING))


def _proportion_powers(inputs: Inputs, n: Floats) -> Floats:
    """Powers of the exact binomial test: of so many successes or more as have at most alpha / 2 without effect."""
    counts = _positives(inputs, n)
    most = stats.binom.isf(inputs["alpha"] / 2, np.maximum(counts, 1), inputs["at_least"])
    return np.where(counts > 0, stats.binom.sf(most, np.maximum(counts, 1), inputs["expected"]), 0.0)


def _proportion_power(inputs: Inputs, n: float) -> float:
    return float(_proportion_powers(inputs, np.array([n]))[0])


def _proportion_number(inputs: Inputs) -> float | None:
    if inputs["half_width"] is None:
        return None
    count = statsmodels_proportion.samplesize_confint_proportion(
        inputs["expected"], inputs["half_width"], inputs["alpha"]
    )
    return float(count) / _share(inputs)


def _refuse_proportion(inputs: Inputs) -> None:
    if (inputs["at_least"] is None) == (inputs["half_width"] is None):
        problem = "needs at_least, the value to beat, or half_width, of its interval, and not both"
        raise UsageError(f"proportion {problem}", "--set", "Add --set at_least=VALUE or --set half_width=VALUE")
    if inputs["half_width"] is not None and inputs["expected"] is None:
        raise UsageError("half_width needs expected", "--set", "Add --set expected=VALUE")
    if inputs["at_least"] is not None and inputs["expected"] is not None and inputs["expected"] <= inputs["at_least"]:
        raise _study_design.no_effect_error("at_least")


def _simulated_proportion(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The exact one-sided p-value of the successes, as z."""
    counts = _positives(inputs, np.asarray(sizes, dtype=float)).astype(int)
    seen = random.binomial(np.diff(counts, prepend=0), inputs["expected"], size=(draws, len(counts))).cumsum(axis=1)
    chances = stats.binom.sf(seen - 1, counts, inputs["at_least"])
    return np.asarray(-special.ndtri(np.clip(chances, 1e-300, 1.0)))


PROPORTION = Design(
    "proportion",
    {
        "expected": DesignInput("fraction", "the proportion, such as the sensitivity, that is expected"),
        "at_least": DesignInput("fraction", "the proportion to beat"),
        "half_width": DesignInput("fraction", "half the width of the interval, where nothing is to be beaten"),
        "prevalence": DesignInput("fraction", "share of cases with the finding; without it all cases count"),
        "measure": DesignInput("word", "which cases count: those with the finding, or without", words=MEASURES),
    },
    "exact binomial test, the smallest n from which the power stays; with half_width n = z² p (1 - p) / half_width²; "
    "both divided by the share of cases that count",
    "Chernick and Liu, Am Stat 2002, doi:10.1198/000313002317572835; "
    "Buderer, Acad Emerg Med 1996, doi:10.1111/j.1553-2712.1996.tb03538.x",
    _proportion_power,
    _refuse_proportion,
    number=_proportion_number,
    effect=("expected", lambda inputs: (inputs["at_least"], 1.0)),
    simulation=_simulated_proportion,
    powers=_proportion_powers,
)


def _proportion_gap(inputs: Inputs) -> float:
    """Distance of two proportions from the null hypothesis: no difference, or one of the margin."""
    difference = inputs["first"] - inputs["second"]
    return float(abs(difference) if inputs["margin"] is None else difference + inputs["margin"])


def _refuse_proportions(inputs: Inputs) -> None:
    if inputs["first"] is not None and _proportion_gap(inputs) <= 0:
        raise _study_design.no_effect_error("second" if inputs["margin"] is None else "second less the margin")


def null_variance(first: Floats, second: Floats, margin: float) -> Floats:
    """Variance of a difference, times the participants of an arm, of the likeliest proportions that are a margin apart.

    Farrington and Manning, Stat Med 1990, doi:10.1002/sim.4780091208, for arms of the same size
    """
    b = -(2 + first + second - 3 * margin)
    c = margin**2 - margin * (2 * first + 2) + first + second
    d = first * margin * (1 - margin)
    v = b**3 / 216 - b * c / 24 + d / 4
    u = np.where(v < 0, -1.0, 1.0) * np.sqrt(np.maximum(b**2 / 36 - c / 6, 1e-300))
    own = 2 * u * np.cos((np.pi + np.arccos(np.clip(v / u**3, -1, 1))) / 3) - b / 6
    own = np.clip(own, 0, 1 - margin)
    other = own + margin
    return np.asarray(own * (1 - own) + other * (1 - other))


def _proportions_power(inputs: Inputs, n: float) -> float:
    first, second = inputs["first"], inputs["second"]
    apart = math.sqrt(first * (1 - first) + second * (1 - second))
    null = math.sqrt(float(null_variance(first, second, inputs["margin"] or 0.0)))
    return _study_design.normal_power(_proportion_gap(inputs), n, inputs["alpha"], null, apart)


def _simulated_proportions(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The z statistic of two counts, with the variance of the null hypothesis."""
    more = np.diff(sizes, prepend=0)
    first, second = (
        random.binomial(more, inputs[name], size=(draws, len(sizes))).cumsum(axis=1) / sizes
        for name in ("first", "second")
    )
    variance = null_variance(first, second, inputs["margin"] or 0.0)
    sign = 1.0 if inputs["margin"] is not None or inputs["first"] > inputs["second"] else -1.0
    error = np.sqrt(np.maximum(variance, 1e-12) / np.asarray(sizes))
    return np.asarray((sign * (first - second) + (inputs["margin"] or 0.0)) / error)


def _cluster_proportions(inputs: Inputs, is_new: bool, sizes: Floats, random: np.random.Generator) -> Floats:
    """Proportions of clusters whose own chances have a beta distribution with the intraclass correlation."""
    chance = inputs["first" if is_new else "second"]
    icc = inputs["icc"]
    own = random.beta(chance * (1 - icc) / icc, (1 - chance) * (1 - icc) / icc, sizes.shape) if icc else chance
    return np.asarray(random.binomial(sizes.astype(int), own) / sizes)


_TWO = {
    "first": DesignInput("fraction", "the proportion in the new arm, or of the new method"),
    "second": DesignInput("fraction", "the proportion in the other", needed=True),
    "margin": DesignInput("fraction", "how much lower the first may be (non-inferiority of what should be high)"),
}

PROPORTIONS = Design(
    "proportions",
    _TWO,
    "z test of two proportions, variance pooled under the null hypothesis; with margin the score test",
    "Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions 2003, doi:10.1002/0471445428; "
    "Farrington and Manning, Stat Med 1990, doi:10.1002/sim.4780091208",
    _proportions_power,
    _refuse_proportions,
    effect=("first", lambda inputs: (inputs["second"] - (inputs["margin"] or 0.0), 1.0)),
    groups=_study_design.two_arms,
    simulation=_simulated_proportions,
    cluster_means=_cluster_proportions,
)


def _paired_power(inputs: Inputs, n: float) -> float:
    discordance = inputs["discordance"]
    difference = inputs["first"] - inputs["second"]
    apart = math.sqrt(max(discordance - difference**2, 0.0))
    null = math.sqrt(discordance) if inputs["margin"] is None else apart
    return _study_design.normal_power(_proportion_gap(inputs), n, inputs["alpha"], null, apart)


def _refuse_paired(inputs: Inputs) -> None:
    _refuse_proportions(inputs)
    if inputs["first"] is None:
        return
    first = inputs["first"]
    second = inputs["second"]
    discordance = inputs["discordance"]
    least, most = abs(first - second), min(first + second, 2 - first - second)
    if not least - ROUNDING <= discordance <= most + ROUNDING:
        problem = f"discordance is {discordance:g}, and with proportions of {first:g} and {second:g} it lies in "
        raise UsageError(f"{problem}{least:g} to {most:g}", "--set discordance", "Give a share in this range")


def _simulated_paired(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """McNemar's z, or that of the difference and margin."""
    discordance = inputs["discordance"]
    difference = inputs["first"] - inputs["second"]
    chances = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    more = np.diff(sizes, prepend=0)
    cells = random.multinomial(more, np.clip(chances, 0, 1), size=(draws, len(sizes))).cumsum(axis=1)
    better = cells[..., 0]
    worse = cells[..., 1]
    if inputs["margin"] is None:
        return np.asarray(np.sign(difference) * (better - worse) / np.sqrt(np.maximum(better + worse, 1)))
    seen = (better - worse) / sizes
    variance = np.maximum((better + worse) / sizes - seen**2, 1e-12)
    return np.asarray((seen + inputs["margin"]) / np.sqrt(variance / sizes))


PAIRED_PROPORTIONS = Design(
    "paired-proportions",
    _TWO
    | {
        "first": DesignInput("fraction", "the proportion by the new method", needed=True),
        "discordance": DesignInput("fraction", "share of cases on which both methods disagree", needed=True),
    },
    "McNemar's test, n = (z_alpha sqrt(discordance) + z_power sqrt(discordance - difference²))² / difference²; "
    "with margin Wald's test of the difference",
    "Connor, Biometrics 1987, doi:10.2307/2531961",
    _paired_power,
    _refuse_paired,
    simulation=_simulated_paired,
)


def _mean_gap(inputs: Inputs) -> float:
    difference = inputs["difference"]
    return float(abs(difference) if inputs["margin"] is None else difference + inputs["margin"])


def _refuse(inputs: Inputs) -> None:
    if inputs["difference"] is not None and _mean_gap(inputs) <= 0:
        raise _study_design.no_effect_error("no difference" if inputs["margin"] is None else "the margin")


def _power(inputs: Inputs, n: float) -> float:
    if n <= 1:
        return 0.0
    size = _mean_gap(inputs) / inputs["sd"]
    alpha = inputs["alpha"] / 2
    if inputs["paired"]:
        return float(statsmodels_power.TTestPower().power(size, n, alpha, alternative="larger"))
    return float(statsmodels_power.TTestIndPower().power(size, n, alpha, alternative="larger"))


def _simulate(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
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
        "difference": DesignInput("number", "the difference of the means, new less other"),
        "sd": DesignInput("positive", "standard deviation of one arm; with paired of the differences", needed=True),
        "paired": DesignInput("yes or no", "whether both measurements are of the same participants", False),
        "margin": DesignInput(
            "positive", "how much lower the new mean may be (non-inferiority of what should be high)"
        ),
    },
    "t test, power by the noncentral t distribution",
    "Cohen, Statistical Power Analysis for the Behavioral Sciences 1988, doi:10.4324/9780203771587",
    _power,
    _refuse,
    effect=("difference", lambda inputs: (-(inputs["margin"] or 0.0), 20 * inputs["sd"])),
    groups=lambda inputs: 1 if inputs["paired"] else 2,
    simulation=_simulate,
    cluster_means=_cluster_means,
)
