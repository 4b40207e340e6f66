"""The effect of an arm on times to an event: the hazard ratio of Cox's model."""

from __future__ import annotations

import warnings

import numpy as np

from isocenter.errors import UsageError
from isocenter.evaluation import kaplan_meier
from isocenter.lazy import statsmodels_hazards
from isocenter.studies.effects import Effect
from isocenter.values import Floats

Truths = np.ndarray
# Of the longest direction of the covariates, what a further one has at least.
NO_LENGTH = 1e-9


def hazard_effect(times: Floats, happened: Truths, is_new: Truths, covariates: Floats) -> Effect:
    """The log hazard ratio, new over control, adjusted for covariates; ties by Efron.

    times:    (participants,) to the event, or to the last contact; happened: (participants,) whether it was the event
    Cox, J R Stat Soc B 1972, doi:10.1111/j.2517-6161.1972.tb00899.x; Efron, J Am Stat Assoc 1977
    Raises UsageError where an arm has no event, or fewer events are there than covariates.
    """
    events = [int(happened[is_new == side].sum()) for side in (False, True)]
    if min(events) == 0:
        arm = "the new arm" if events[1] == 0 else "the control"
        raise UsageError(f"nobody in {arm} had the event: there is no hazard ratio", "analysis", "Follow them longer")
    centred = covariates - covariates.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    known = left[:, lengths > NO_LENGTH * max(float(lengths.max(initial=0.0)), 1.0)] * np.sqrt(len(times))
    if sum(events) <= known.shape[1] + 1:
        problem = f"{sum(events)} events for {known.shape[1]} covariates"
        raise UsageError(problem, "analysis", "Plan fewer covariates or strata")
    table = np.column_stack([is_new.astype(float), known])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what does not converge is seen by its error below
        found = statsmodels_hazards.PHReg(times, table, status=happened.astype(int), ties="efron").fit()
    ratio, error = float(found.params[0]), float(found.bse[0])
    if not (np.isfinite(ratio) and 0 < error < 1e3):
        raise UsageError("the events bear no hazard ratio", "analysis", "Plan fewer covariates, or follow longer")
    return Effect(ratio, error**2, np.inf, "log hazard ratio, Cox, ties by Efron")


def median_time(times: Floats, happened: Truths) -> float | None:
    """The time until which half of the people had the event, by Kaplan-Meier; None where fewer had it."""
    curve = kaplan_meier(times, happened)
    reached = np.flatnonzero(curve.values <= 0.5)
    return float(curve.times[reached[0]]) if len(reached) else None
