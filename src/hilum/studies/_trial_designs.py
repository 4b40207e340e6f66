"""Sizes of trials with other outcomes than one number a participant: times to an event, stepped wedges, clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hilum.errors import UsageError
from hilum.lazy import optimize, special, stats
from hilum.studies import _study_design
from hilum.studies._study_design import ClusterMeans, Design, DesignInput, Inputs
from hilum.values import Floats

# Of a stepped wedge: published ones have up to some dozens.
MOST_PERIODS = 200


def _gap(inputs: Inputs) -> float:
    """Distance of the log hazard ratio from that of the null hypothesis."""
    ratio = math.log(inputs["hazard_ratio"])
    return abs(ratio) if inputs["margin"] is None else math.log(inputs["margin"]) - ratio


def _survival_refuse(inputs: Inputs) -> None:
    if inputs["margin"] is not None and inputs["margin"] <= 1:
        problem = f"margin is {inputs['margin']:g}: a hazard ratio above 1 that is still accepted"
        raise UsageError(problem, "--set margin", "Give a number above 1")
    if inputs["hazard_ratio"] is not None and _gap(inputs) <= 0:
        raise _study_design.no_effect_error("a hazard ratio of 1" if inputs["margin"] is None else "the margin")


def _share(inputs: Inputs) -> float:
    return float(inputs["event_probability"] or 1.0)


def _survival_power(inputs: Inputs, n: float) -> float:
    return _study_design.normal_power(_gap(inputs), n * _share(inputs), inputs["alpha"], math.sqrt(2), math.sqrt(2))


def _survival_simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The log-rank statistic of exponential times, less that of the margin."""
    ratio = inputs["hazard_ratio"]
    share = min(_share(inputs), 1 - 1e-6)

    def events_until(time: float) -> float:
        return 1 - (math.exp(-time) + math.exp(-ratio * time)) / 2 - share

    end = float(optimize.brentq(events_until, 0.0, 100.0 / min(ratio, 1.0)))
    times = random.exponential(size=(draws, 2, sizes[-1])) / np.array([1.0, ratio])[:, None]
    # The new arm has fewer events where its hazard is lower: that counts as positive.
    sign = 1.0 if inputs["margin"] is not None or ratio < 1 else -1.0
    null = 1.0 if inputs["margin"] is None else inputs["margin"]
    return np.stack([sign * _log_rank(times[:, :, :n], end, null) for n in sizes], axis=1)


def _log_rank(times: Floats, end: float, null: float) -> Floats:
    """Expected less observed events of the second arm, in standard deviations, where its hazard is `null` times."""
    draws, _, n = times.shape
    flat = times.reshape(draws, 2 * n)
    order = np.argsort(flat, axis=1)
    is_event = np.take_along_axis(flat, order, axis=1) < end
    is_new = (order >= n).astype(float)
    at_risk = np.arange(2 * n, 0, -1, dtype=float)
    new_at_risk = np.cumsum(is_new[:, ::-1], axis=1)[:, ::-1]
    chance = null * new_at_risk / (null * new_at_risk + at_risk - new_at_risk)
    excess = ((chance - is_new) * is_event).sum(axis=1)
    variance = (chance * (1 - chance) * is_event).sum(axis=1)
    return np.asarray(excess / np.sqrt(np.maximum(variance, 1e-12)))


SURVIVAL = Design(
    "survival",
    {
        "hazard_ratio": DesignInput("positive", "hazard of the new arm over that of the other"),
        "event_probability": DesignInput(
            "fraction", "share of participants with an event; without it only events are given"
        ),
        "margin": DesignInput("positive", "hazard ratio above 1 that is still accepted (non-inferiority)"),
    },
    "log-rank test, events = 4 (z_alpha + z_power)² / ln(hazard_ratio)²",
    "Schoenfeld, Biometrics 1983, doi:10.2307/2531021",
    _survival_power,
    _survival_refuse,
    effect=("hazard_ratio", lambda inputs: (inputs["margin"] or 1.0, 1e-3)),
    groups=_study_design.two_arms,
    events=_share,
    simulation=_survival_simulated,
)


def _schedule(inputs: Inputs) -> Floats:
    """(sequences, periods): 1 where a cluster of the sequence has the new care; the first period has none."""
    periods = inputs["periods"]
    return np.triu(np.ones((periods - 1, periods)), k=1)


def _error(inputs: Inputs, clusters: float) -> float:
    """Standard error of the effect with so many clusters in a sequence, equation 8 of Hussey and Hughes."""
    plan = _schedule(inputs)
    sequences, periods = _schedule(inputs).shape
    mean = (inputs["first"] + inputs["second"]) / 2
    within = mean * (1 - mean) / (inputs["size"] * (1 - inputs["dropout"]))
    between = inputs["tau"] ** 2
    number = clusters * sequences
    u = plan.sum() * clusters
    w = ((plan.sum(axis=0) * clusters) ** 2).sum()
    v = (plan.sum(axis=1) ** 2).sum() * clusters
    below = (number * u - w) * within + (u**2 + number * periods * u - periods * w - number * v) * between
    return math.sqrt(number * within * (within + periods * between) / below)


def _wedge_power(inputs: Inputs, n: float) -> float:
    clusters = n / (inputs["periods"] * inputs["size"])
    error = _error(inputs, clusters)
    return _study_design.normal_power(abs(inputs["first"] - inputs["second"]), 1.0, inputs["alpha"], error, error)


def _wedge_refuse(inputs: Inputs) -> None:
    if inputs["periods"] < 3:
        raise UsageError("with fewer than 3 periods all clusters change at once", "--set periods", "Give 3 or more")
    if inputs["periods"] > MOST_PERIODS:
        problem = f"{inputs['periods']} periods are more than any stepped wedge has"
        raise UsageError(problem, "--set periods", f"Give at most {MOST_PERIODS}")
    if inputs["first"] == inputs["second"]:
        raise _study_design.no_effect_error("second")
    if inputs["clusters"] is not None and inputs["clusters"] < 2:
        raise UsageError("one cluster cannot be compared with another", "--set clusters", "Give 2 clusters or more")


def _wedge_simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The z statistic of the weighted least squares of the means of clusters and periods."""
    if len(sizes) > 1:
        raise UsageError("a stepped wedge is not simulated with looks", "--simulate", "Leave out --simulate, or looks")
    plan = np.repeat(_schedule(inputs), sizes[-1] // (inputs["periods"] * inputs["size"]), axis=0)
    clusters, periods = plan.shape
    tau = inputs["tau"]
    chance = np.where(plan > 0, inputs["first"], inputs["second"]) + tau * random.standard_normal((draws, clusters, 1))
    means = random.binomial(inputs["size"], np.clip(chance, 0, 1)) / inputs["size"]
    mean = (inputs["first"] + inputs["second"]) / 2
    block = np.eye(periods) * mean * (1 - mean) / inputs["size"] + tau**2
    weight = np.kron(np.eye(clusters), np.linalg.inv(block))
    table = np.column_stack([plan.ravel(), np.tile(np.eye(periods), (clusters, 1))])
    covariance = np.linalg.inv(table.T @ weight @ table)
    fitted = means.reshape(draws, -1) @ (weight @ table @ covariance)
    sign = np.sign(inputs["first"] - inputs["second"])
    return np.asarray(sign * fitted[:, :1] / math.sqrt(covariance[0, 0]))


STEPPED_WEDGE = Design(
    "stepped-wedge",
    {
        "first": DesignInput("fraction", "the proportion with the new care", needed=True),
        "second": DesignInput("fraction", "the proportion without", needed=True),
        "periods": DesignInput("count", "periods; one more than steps", needed=True),
        "size": DesignInput("count", "participants of a cluster in a period", needed=True),
        "tau": DesignInput("share", "standard deviation of the proportion between clusters", needed=True),
        "clusters": DesignInput("count", "clusters in all, a multiple of the steps, to learn the power"),
    },
    "z test of the weighted least squares of a linear mixed model with periods and random clusters",
    "Hussey and Hughes, Contemp Clin Trials 2007, doi:10.1016/j.cct.2006.05.007",
    _wedge_power,
    _wedge_refuse,
    groups=lambda inputs: int(inputs["periods"]) - 1,
    unit=lambda inputs: int(inputs["periods"] * inputs["size"]),
    simulation=_wedge_simulated,
    is_clustered=False,
)


def cluster_statistics(
    means_of: ClusterMeans, inputs: Inputs, clusters: Sequence[int], draws: int, random: np.random.Generator
) -> Floats:
    """(draws, looks) t statistics of the clusters' means, as the z of the same p-value, positive for the effect.

    clusters: of an arm, at each look
    """
    arms = (True,) if inputs.get("paired") else (True, False)
    sizes = _sizes(inputs, (len(arms), draws, clusters[-1]), random)
    means = np.stack([means_of(inputs, is_new, own, random) for is_new, own in zip(arms, sizes, strict=True)])
    # A large cluster tells more, but not in proportion: its participants are alike.
    weights = 1 / (inputs["icc"] + (1 - inputs["icc"]) / sizes)
    found = []
    for number in clusters:
        weight = weights[:, :, :number]
        seen = means[:, :, :number]
        total = weight.sum(axis=2)
        centre = (weight * seen).sum(axis=2) / total
        free = len(arms) * (number - 1)
        spread = (weight * (seen - centre[:, :, None]) ** 2).sum(axis=(0, 2)) / free
        gap = centre[0] - centre[1] if len(arms) == 2 else centre[0]
        expected = inputs.get("difference")
        expected = inputs["first"] - inputs["second"] if expected is None else expected
        if inputs["margin"] is None:
            gap = np.sign(expected) * gap
        statistic = (gap + (inputs["margin"] or 0.0)) / np.sqrt(np.maximum(spread * (1 / total).sum(axis=0), 1e-300))
        found.append(-special.ndtri(np.clip(stats.t.sf(statistic, free), 1e-300, 1.0)))
    return np.stack(found, axis=1)


def _sizes(inputs: Inputs, shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    """Participants of clusters with an outcome: a gamma distribution with the coefficient of variation, at least 1."""
    mean = inputs["cluster"] * (1 - inputs["dropout"])
    cv = inputs["cv"]
    if not cv:
        return np.full(shape, max(1.0, float(np.floor(mean))))
    return np.maximum(1.0, np.round(random.gamma(1 / cv**2, mean * cv**2, shape)))
