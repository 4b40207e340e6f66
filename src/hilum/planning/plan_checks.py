"""A plan as checked settings: each section may be possible by itself, and impossible with the others.

What a rule demands of other decisions is checked beside that rule; here are names, and the network as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.networks import factory
from hilum.planning import typed_sections
from hilum.planning.plan_sections import PlanSettings, SplitSettings
from hilum.planning.rules import (
    augmentation_rules,
    cascade_rules,
    group_rules,
    learning_rules,
    objective_rules,
    painting_rules,
    preprocessing_rules,
    privacy_rules,
    skipping,
    split_rules,
)
from hilum.runtime import Context, hardware, torch_networks
from hilum.tasks import properties
from hilum.values import BY_HAND, Assignments, Plan

# What follows from the data and the rest of the plan, and what a person changes instead.
FOLLOWS = {
    "split.method": "Give another training.seed, split.seed or split.folds",
    "training.memory": "Give another training.patch, training.batch or network.size",
}
# What each rule demands of the other decisions, in this order.
CHECKS: tuple[Callable[[PlanSettings], None], ...] = (
    preprocessing_rules.check_preprocessing,
    cascade_rules.check_cascade,
    skipping.check_skip,
    augmentation_rules.check_mirroring,
    learning_rules.check_learning,
    group_rules.check_fairness,
    augmentation_rules.check_mixing,
    painting_rules.check_painting,
    learning_rules.check_search,
    cascade_rules.check_configurations,
    learning_rules.check_transfer,
    objective_rules.check_objectives,
    privacy_rules.check_privacy,
)
# Networks that were led over their patches, by all that decides the outcome: a run asks several times for the same.
KNOWN_TO_FIT: set[str] = set()


def checked_settings(plan: Plan) -> PlanSettings:
    """The plan as typed values, every section checked; PlanError names the decision that cannot be."""
    chosen = typed_sections.typed_plan(plan)
    _check_names(plan, chosen)
    for check in CHECKS:
        check(chosen)
    _check_prior(plan, chosen)
    _check_network(chosen)
    return chosen


def check_wishes(assignments: Assignments, *, folds: int = 0, device: str = "auto") -> None:
    """Refuse wishes that cannot be followed, before the data are read; `checked_settings` checks all the rest.

    assignments: {"section.name": value} set by hand
    Raises PlanError for what no plan could hold, ResourceError for a device that is not here.
    """
    split_rules.check_folds(SplitSettings("folds", folds))
    for name, value in assignments.items():
        typed_sections.check_value(name, value)
        _refuse_following(name)
    if "network.name" in assignments:
        factory.refuse_unknown_family(assignments["network.name"])
    for asked in {device, str(assignments.get("training.device", device))} - {"auto", "cpu"}:
        hardware.choose_device(asked)  # only where it may be lacking: to look takes torch
    _check_file(assignments.get("network.pretrained"))
    if assignments.get("training.deterministic"):
        if assignments.get("training.steps") is None:
            raise learning_rules.endless_training_error("no number of steps, which two equal runs need")
        if assignments.get("search.minutes") is not None and assignments.get("search.trials") is None:
            raise learning_rules.endless_search_error()


def _check_names(plan: Plan, chosen: PlanSettings) -> None:
    factory.refuse_unknown_family(chosen.network.name)
    task = chosen.task
    _refuse_other("training.selection", chosen.training.selection, {task.selects_by}, f"{task.name} has no")
    _refuse_other("evaluation.primary", chosen.evaluation.primary, task.primaries, f"{task.name} has no")
    called = all(part.uncertainty in ("classes", "labels") for part in properties.leaf_tasks(task).values())
    if chosen.guard.error is not None and not called:
        problem = f"an answer of {task.name} is neither right nor wrong"
        raise PlanError(problem, "guard.error", "Leave it out: it is for classes, findings and label maps")
    for name in FOLLOWS:
        if name in plan and plan.decision(name).because == BY_HAND:
            _refuse_following(name)
    source = chosen.network.pretrained
    if source == "auto" and factory.family_of(chosen.network.name).published is None:
        remedy = "Give a file: --pretrained FILE, or --set network.name=timm"
        raise PlanError(f"{chosen.network.name} has no published weights", "network.pretrained", remedy)
    _check_file(source)


def _check_file(source: Any) -> None:
    if source not in (None, "auto") and not Path(str(source)).is_file():
        raise PlanError(f"there is no file {source}", "network.pretrained", "Give a file of weights, or auto")


def _refuse_following(name: str) -> None:
    if name in FOLLOWS:
        raise PlanError("it follows from other decisions and cannot be set", name, FOLLOWS[name])


def _check_prior(plan: Plan, chosen: PlanSettings) -> None:
    """Refuse a correction of probabilities that does not fit how cases are sampled, unless somebody chose it."""
    for name, decision in chosen.task.under(chosen.training.sampling).items():
        if name in plan and plan[name] != decision.value and plan.decision(name).because != BY_HAND:
            problem = f"{plan[name]} does not go with training.sampling {chosen.training.sampling} and the weights"
            raise PlanError(problem, name, f"Give {decision.value}")


def _refuse_other(name: str, value: Any, choices: Collection[str], problem: str) -> None:
    if value not in choices:
        raise PlanError(f"{problem} {value!r}", name, f"Choose one of {', '.join(sorted(choices))}")


def _check_network(chosen: PlanSettings) -> None:
    """Builds the network and leads it over both patches on torch's meta device: without memory or arithmetic.

    Over the patch of training it is led as it trains, a batch at a time: what normalises over a batch needs two values.
    """
    training = chosen.training
    entries = len(Context.from_settings(chosen.network.context))
    inputs = chosen.preprocessing.inputs
    decisive = repr((chosen.architecture, chosen.task.heads, training.patch, training.batch, chosen.inference.patch))
    if decisive in KNOWN_TO_FIT:
        return
    with torch.device("meta"), torch.inference_mode():
        network = torch_networks.build_module(chosen.task, chosen.architecture)
        for where, patch, batch, learns in (
            ("training.patch", training.patch, training.batch, True),
            ("inference.patch", chosen.inference.patch, 1, False),
        ):
            covariates = [torch.empty(batch, entries)] if entries else []
            try:
                network.train(learns)(torch.empty(batch, inputs, *patch), *covariates)
            except (RuntimeError, ValueError) as error:  # ValueError: a normalisation of a single value
                problem = f"{patch} in batches of {batch} does not fit {chosen.network.name} ({error})"
                remedy = "Give sizes that its strides divide, a larger batch, or another --set network.name"
                raise PlanError(problem, where, remedy) from error
    KNOWN_TO_FIT.add(decisive)
