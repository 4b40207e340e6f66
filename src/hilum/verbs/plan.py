"""`plan`: how a model for these data would be trained, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hilum import keywords
from hilum.errors import UsageError
from hilum.files.storage import atomic
from hilum.options import shared_flags
from hilum.options.training import PlanOptions, TrainOptions
from hilum.planning import PlannedTraining, plan_file, plan_result
from hilum.planning.plan_result import WARNED
from hilum.planning.rules.painting_rules import SHARE
from hilum.planning.rules.site_rules import FOLDS_BY
from hilum.reading import dataset_reading, verb_results
from hilum.runs import plan_request
from hilum.runs.plan_request import PLAN_SUFFIXES, PlanRequest
from hilum.runtime.parallel import dask_cluster
from hilum.values.plain_values import PlainValue

# The covariates that the network gets.
CONTEXT = "network.context"


@keywords.takes(PlanOptions)
def plan(options: PlanOptions) -> PlannedTraining:
    """Every choice that training on `data` would make, each with its reason.

    out:         a .yaml file to edit and train from; nothing is written without it
    assignments: {"section.name": value} set by hand
    Raises what `check` raises, UsageError for an `out` of another suffix, DatasetError where the data should not be
    trained on, and PlanError for an impossible value.
    """
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), options.overwrite)
        if Path(options.out).suffix.lower() not in PLAN_SUFFIXES:
            raise UsageError("is not a file name for a plan", str(options.out), "Give one that ends in .yaml")
    request = replace(keywords.narrow_options(options, PlanRequest), assignments=decisions_by_hand(options))
    data = dataset_reading.path_for_workers(options.data, options.scheduler)
    with dask_cluster.spread_over(options.scheduler):
        request_plan = plan_request.plan_from_request(data, request)
    if options.out is None:
        return request_plan
    atomic.write_text(
        Path(options.out),
        plan_file.plan_text(plan_result.with_relative_data(request_plan.plan, Path(options.out).parent)),
        overwrite=options.overwrite,
    )
    return replace(request_plan, out=Path(options.out))


def decisions_by_hand(options: PlanOptions | TrainOptions) -> dict[str, PlainValue]:
    """{"section.name": value} of the decisions that a person took; UsageError for one that is stated twice."""
    values = plan_request.positive_among(options.assignments or {}, options.positive)
    values |= {} if options.groups is None else {"evaluation.groups": options.groups}
    values |= {} if options.folds_by is None else {FOLDS_BY: options.folds_by}
    if options.warned is not None and WARNED in values:
        raise UsageError(f"conflicts with --set {WARNED}", "--warned", "Give one of the two")
    values |= {} if options.warned is None else {WARNED: options.warned}
    if options.any_contrast and SHARE in values:
        raise UsageError(f"conflicts with --set {SHARE}", "--any-contrast", "Give one of the two")
    values |= {SHARE: 1.0} if options.any_contrast else {}
    return with_covariates(values, options.covariates)


def with_covariates(values: dict[str, PlainValue], covariates: str | Sequence[str] | None) -> dict[str, PlainValue]:
    """Decisions with the covariates that a person named; UsageError where they are among the decisions already."""
    if covariates is None:
        return values
    if CONTEXT in values:
        raise UsageError(f"conflicts with --set {CONTEXT}", "--covariates", "Give one of the two")
    names = shared_flags.parse_names(covariates, "--covariates") if isinstance(covariates, str) else covariates
    return {**values, CONTEXT: "all" if names is None else list(names) or None}
