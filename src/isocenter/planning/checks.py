"""A plan as checked settings: each section may be possible by itself, and impossible with the others.

What a rule demands of other decisions is checked beside that rule; here are names, and the network as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.planning.rules.augmentation import check_mirroring, check_mixing
from isocenter.planning.rules.cascade import check_cascade, check_configurations
from isocenter.planning.rules.groups import check_fairness
from isocenter.planning.rules.learning import check_learning, check_search, check_transfer, endless, unending
from isocenter.planning.rules.objectives import check_objectives
from isocenter.planning.rules.preprocessing import check_preprocessing
from isocenter.planning.rules.skipping import check_skip
from isocenter.planning.rules.split import check_folds
from isocenter.planning.sections import Settings, Splitting
from isocenter.planning.typed import check_value, typed
from isocenter.runtime import Context, build_module, choose_device
from isocenter.tasks import leaves
from isocenter.values import BY_HAND, Plan

# What follows from the data and the rest of the plan, and what a person changes instead.
FOLLOWS = {
    "split.method": "Give another training.seed, split.seed or split.folds",
    "training.memory": "Give another training.patch, training.batch or network.size",
}
# What each rule demands of the other decisions, in this order.
CHECKS: tuple[Callable[[Settings], None], ...] = (
    check_preprocessing,
    check_cascade,
    check_skip,
    check_mirroring,
    check_learning,
    check_fairness,
    check_mixing,
    check_search,
    check_configurations,
    check_transfer,
    check_objectives,
)
# Networks that were led over their patches, by all that decides the outcome: a run asks several times for the same.
KNOWN_TO_FIT: set[str] = set()


def settings(plan: Plan) -> Settings:
    """The plan as typed values, every section checked; PlanError names the decision that cannot be."""
    chosen = typed(plan)
    _check_names(plan, chosen)
    for check in CHECKS:
        check(chosen)
    _check_prior(plan, chosen)
    _check_network(chosen)
    return chosen


def check_wishes(assignments: Mapping[str, Any], *, folds: int = 0, device: str = "auto") -> None:
    """Refuse wishes that cannot be followed, before the data are read; `settings` checks all the rest.

    assignments: {"section.name": value} set by hand
    Raises PlanError for what no plan could hold, ResourceError for a device that is not here.
    """
    check_folds(Splitting("folds", folds))
    for name, value in assignments.items():
        check_value(name, value)
        _refuse_following(name)
    if "network.name" in assignments:
        _refuse_other("network.name", assignments["network.name"], networks.names(), "there is no network")
    for asked in {device, str(assignments.get("training.device", device))} - {"auto", "cpu"}:
        choose_device(asked)  # only where it may be lacking: to look takes torch
    _check_file(assignments.get("network.pretrained"))
    if assignments.get("training.deterministic"):
        if assignments.get("training.steps") is None:
            raise endless("no number of steps, which two equal runs need")
        if assignments.get("search.minutes") is not None and assignments.get("search.trials") is None:
            raise unending()


def _check_names(plan: Plan, chosen: Settings) -> None:
    _refuse_other("network.name", chosen.network.name, networks.names(), "there is no network")
    task = chosen.task
    _refuse_other("training.selection", chosen.training.selection, {task.selects_by}, f"{task.name} has no")
    _refuse_other("evaluation.primary", chosen.evaluation.primary, task.primaries, f"{task.name} has no")
    called = all(part.uncertainty in ("classes", "labels") for part in leaves(task).values())
    if chosen.guard.error is not None and not called:
        problem = f"an answer of {task.name} is neither right nor wrong"
        raise PlanError(problem, "guard.error", "Leave it out: it is for classes, findings and label maps")
    for name in FOLLOWS:
        if name in plan and plan.decision(name).because == BY_HAND:
            _refuse_following(name)
    source = chosen.network.pretrained
    if source == "auto" and networks.family_of(chosen.network.name).published is None:
        remedy = "Give a file: --pretrained FILE, or --set network.name=timm"
        raise PlanError(f"{chosen.network.name} has no published weights", "network.pretrained", remedy)
    _check_file(source)


def _check_file(source: Any) -> None:
    if source not in (None, "auto") and not Path(str(source)).is_file():
        raise PlanError(f"there is no file {source}", "network.pretrained", "Give a file of weights, or auto")


def _refuse_following(name: str) -> None:
    if name in FOLLOWS:
        raise PlanError("it follows from other decisions and cannot be set", name, FOLLOWS[name])


def _check_prior(plan: Plan, chosen: Settings) -> None:
    """Refuse a correction of probabilities that does not fit how cases are drawn, unless somebody chose it."""
    for name, decision in chosen.task.under(chosen.training.sampling).items():
        if name in plan and plan[name] != decision.value and plan.decision(name).because != BY_HAND:
            problem = f"{plan[name]} does not go with training.sampling {chosen.training.sampling} and the weights"
            raise PlanError(problem, name, f"Give {decision.value}")


def _refuse_other(name: str, value: Any, choices: Collection[str], problem: str) -> None:
    if value not in choices:
        raise PlanError(f"{problem} {value!r}", name, f"Choose one of {', '.join(sorted(choices))}")


def _check_network(chosen: Settings) -> None:
    """Builds the network and leads it over both patches on torch's meta device: without memory or arithmetic.

    Over the patch of training it is led as it trains, a batch at a time: what normalises over a batch needs two values.
    """
    training, entries, inputs = chosen.training, len(Context.of(chosen.network.context)), chosen.preprocessing.inputs
    decisive = repr((chosen.architecture, chosen.task.heads, training.patch, training.batch, chosen.inference.patch))
    if decisive in KNOWN_TO_FIT:
        return
    with torch.device("meta"), torch.inference_mode():
        network = build_module(chosen.task, chosen.architecture)
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
