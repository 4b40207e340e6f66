"""`plan`: how a model for these data would be trained, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from isocenter.errors import UsageError
from isocenter.files import write_text
from isocenter.keywords import takes
from isocenter.options import PlanOptions, TrainOptions, named
from isocenter.planning import Planned, plan_text, relative_to
from isocenter.reading import refuse_taken
from isocenter.runs import PLAN_SUFFIXES, PlanRequest, planned, positive_among

# The covariates that the network gets.
CONTEXT = "network.context"


@takes(PlanOptions)
def plan(options: PlanOptions) -> Planned:
    """Every choice that training on `data` would make, each with its reason.

    out:         a .yaml file to edit and train from; nothing is written without it
    assignments: {"section.name": value} set by hand
    Raises what `check` raises, UsageError for an `out` of another suffix, DatasetError where the data should not be
    trained on, and PlanError for an impossible value.
    """
    if options.out is not None:
        refuse_taken(Path(options.out), options.overwrite)
        if Path(options.out).suffix.lower() not in PLAN_SUFFIXES:
            raise UsageError("is not a file name for a plan", str(options.out), "Give one that ends in .yaml")
    request = PlanRequest(
        options.minutes,
        options.device,
        options.threads,
        options.seed,
        options.task,
        options.everything,
        options.folds,
        by_hand(options),
        options.reading,
        options.device_memory,
    )
    request_plan = planned(options.data, request)
    if options.out is None:
        return request_plan
    write_text(
        Path(options.out),
        plan_text(relative_to(request_plan.plan, Path(options.out).parent)),
        overwrite=options.overwrite,
    )
    return replace(request_plan, out=Path(options.out))


def by_hand(options: PlanOptions | TrainOptions) -> dict[str, Any]:
    """{"section.name": value} of the decisions that a person took; UsageError for one that is stated twice."""
    values = positive_among(options.assignments or {}, options.positive)
    values |= {} if options.groups is None else {"evaluation.groups": options.groups}
    covariates = options.covariates
    if covariates is None:
        return values
    if CONTEXT in values:
        raise UsageError(f"conflicts with --set {CONTEXT}", "--covariates", "Give one of the two")
    names = named(covariates, "--covariates") if isinstance(covariates, str) else covariates
    return {**values, CONTEXT: "all" if names is None else list(names) or None}
