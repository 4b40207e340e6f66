"""The size of a trial of times to an event."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from isocenter.errors import UsageError
from isocenter.lazy import optimize
from isocenter.studies.design import Design, no_effect, normal_power, two_arms
from isocenter.studies.inputs import Input, Inputs
from isocenter.values import Floats


def _gap(inputs: Inputs) -> float:
    """Distance of the log hazard ratio from that of the null hypothesis."""
    ratio = math.log(inputs["hazard_ratio"])
    return abs(ratio) if inputs["margin"] is None else math.log(inputs["margin"]) - ratio


def _refuse(inputs: Inputs) -> None:
    if inputs["margin"] is not None and inputs["margin"] <= 1:
        problem = f"margin is {inputs['margin']:g}: a hazard ratio above 1 that is still accepted"
        raise UsageError(problem, "--set margin", "Give a number above 1")
    if inputs["hazard_ratio"] is not None and _gap(inputs) <= 0:
        raise no_effect("a hazard ratio of 1" if inputs["margin"] is None else "the margin")


def _share(inputs: Inputs) -> float:
    return float(inputs["event_probability"] or 1.0)


def _power(inputs: Inputs, n: float) -> float:
    return normal_power(_gap(inputs), n * _share(inputs), inputs["alpha"], math.sqrt(2), math.sqrt(2))


def _simulated(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """The log-rank statistic of exponential times, less that of the margin."""
    ratio, share = inputs["hazard_ratio"], min(_share(inputs), 1 - 1e-6)

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
        "hazard_ratio": Input("positive", "hazard of the new arm over that of the other"),
        "event_probability": Input("fraction", "share of participants with an event; without it only events are given"),
        "margin": Input("positive", "hazard ratio above 1 that is still accepted (non-inferiority)"),
    },
    "log-rank test, events = 4 (z_alpha + z_power)² / ln(hazard_ratio)²",
    "Schoenfeld, Biometrics 1983, doi:10.2307/2531021",
    _power,
    _refuse,
    effect=("hazard_ratio", lambda inputs: (inputs["margin"] or 1.0, 1e-3)),
    groups=two_arms,
    events=_share,
    simulation=_simulated,
)
