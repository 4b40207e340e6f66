"""The size of a stepped wedge: clusters that change to the new care one after another, in random order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from isocenter.errors import UsageError
from isocenter.studies.design import Design, no_effect, normal_power
from isocenter.studies.inputs import Input, Inputs
from isocenter.values import Floats


def _schedule(inputs: Inputs) -> Floats:
    """(sequences, periods): 1 where a cluster of the sequence has the new care; the first period has none."""
    periods = inputs["periods"]
    return np.triu(np.ones((periods - 1, periods)), k=1)


def _error(inputs: Inputs, clusters: float) -> float:
    """Standard error of the effect with so many clusters in a sequence, equation 8 of Hussey and Hughes."""
    plan, (sequences, periods) = _schedule(inputs), _schedule(inputs).shape
    mean = (inputs["first"] + inputs["second"]) / 2
    within, between = mean * (1 - mean) / (inputs["size"] * (1 - inputs["dropout"])), inputs["tau"] ** 2
    number = clusters * sequences
    u, w, v = (
        plan.sum() * clusters,
        ((plan.sum(axis=0) * clusters) ** 2).sum(),
        (plan.sum(axis=1) ** 2).sum() * clusters,
    )
    below = (number * u - w) * within + (u**2 + number * periods * u - periods * w - number * v) * between
    return math.sqrt(number * within * (within + periods * between) / below)


def _power(inputs: Inputs, n: float) -> float:
    clusters = n / (inputs["periods"] * inputs["size"])
    error = _error(inputs, clusters)
    return normal_power(abs(inputs["first"] - inputs["second"]), 1.0, inputs["alpha"], error, error)


def _refuse(inputs: Inputs) -> None:
    if inputs["periods"] < 3:
        raise UsageError("with fewer than 3 periods all clusters change at once", "--set periods", "Give 3 or more")
    if inputs["first"] == inputs["second"]:
        raise no_effect("second")
    if inputs["clusters"] is not None and inputs["clusters"] < 2:
        raise UsageError("one cluster cannot be compared with another", "--set clusters", "Give 2 clusters or more")


def _simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The z statistic of the weighted least squares of the means of clusters and periods."""
    if len(sizes) > 1:
        raise UsageError("a stepped wedge is not simulated with looks", "--simulate", "Leave out --simulate, or looks")
    plan = np.repeat(_schedule(inputs), sizes[-1] // (inputs["periods"] * inputs["size"]), axis=0)
    (clusters, periods), tau = plan.shape, inputs["tau"]
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
        "first": Input("fraction", "the proportion with the new care", needed=True),
        "second": Input("fraction", "the proportion without", needed=True),
        "periods": Input("count", "periods; one more than steps", needed=True),
        "size": Input("count", "participants of a cluster in a period", needed=True),
        "tau": Input("share", "standard deviation of the proportion between clusters", needed=True),
        "clusters": Input("count", "clusters in all, a multiple of the steps, to learn the power"),
    },
    "z test of the weighted least squares of a linear mixed model with periods and random clusters",
    "Hussey and Hughes, Contemp Clin Trials 2007, doi:10.1016/j.cct.2006.05.007",
    _power,
    _refuse,
    groups=lambda inputs: int(inputs["periods"]) - 1,
    unit=lambda inputs: int(inputs["periods"] * inputs["size"]),
    simulation=_simulated,
    is_clustered=False,
)
