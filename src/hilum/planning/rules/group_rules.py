"""Rules of groups of people: those that an evaluation compares, and how training treats them alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hilum.errors import PlanError, UsageError
from hilum.evaluation.fairness import group_attributes
from hilum.lazy import torch
from hilum.networks import factory, network_parts
from hilum.planning.plan_sections import SAMPLED_BY_GROUPS, PlanSettings
from hilum.runtime import torch_networks
from hilum.values import Dataset, Decision, Vector

RULE = "every covariate with 2 to 8 levels"


def groups_decision(dataset: Dataset, cases: Collection[str]) -> Decision:
    """The covariates whose levels make groups among these cases."""
    groups = group_attributes.default_groups(group_attributes.covariates_by_name(dataset, cases))
    return Decision(groups, RULE if groups else f"there is none: {RULE}")


def refuse_groups(asked: Any, dataset: Dataset, cases: Collection[str], where: str) -> None:
    """PlanError, of the decision `where`, for groups that the covariates of these cases do not make."""
    if asked is None:
        return
    if not isinstance(asked, str):
        raise PlanError(f"{asked!r} names no groups", where, "Give a text such as sex,age:40:60")
    try:
        group_attributes.groups_by_attribute(group_attributes.covariates_by_name(dataset, cases), asked)
    except UsageError as error:
        raise PlanError(error.problem, where, error.remedy) from error


def check_fairness(settings: PlanSettings) -> None:
    """PlanError for a treatment of groups that has none, or that the network, the loss or the sampling rule out."""
    training = settings.training
    family = factory.family_of(settings.network.name)
    if training.fairness == "none":
        return
    if training.protected is None:
        remedy = "Give --set training.protected=sex, or another covariate"
        raise PlanError(f"{training.fairness} needs groups", "training.protected", remedy)
    attributes = [name.strip() for name in training.protected.split(",") if name.strip()]
    if len(attributes) != 1 or attributes == ["none"]:
        remedy = "Give one covariate, as in sex, age:60, or sex*site for groups by both"
        raise PlanError(f"{training.protected!r} is not one attribute", "training.protected", remedy)
    if training.fairness == "adversarial" and (not family.features or family.sees_targets):
        problem = "the adversary needs the network's features, which this family does not expose"
        raise PlanError(problem, "training.fairness", "Give group_dro, or another --set network.name, such as resnet")
    if training.fairness in SAMPLED_BY_GROUPS and training.sampling != "natural":
        problem = f"cases cannot be sampled {training.sampling} and by groups at once"
        raise PlanError(problem, "training.sampling", "Give natural")
    if training.fairness == "reweigh" and settings.task.weighs_classes:
        problem = "it adds up losses of single classes, and in this loss a class decides how much its cases count"
        remedy = (
            "Give resample, or a task.loss without weights of classes, and task.order cumulative or softmax for corn"
        )
        raise PlanError(problem, "training.fairness", remedy)
    if training.fairness == "constraint":
        _check_constraint(settings)


def _check_constraint(settings: PlanSettings) -> None:
    """Calls of classes or findings are right or wrong, and the layer that makes them is linear."""
    task = settings.task
    family = factory.family_of(settings.network.name)
    where = "training.fairness"
    instead = "Give balanced_batches or group_dro"
    [head, *others] = task.heads.items()
    outputs = len(task.labels) if task.uncertainty in ("classes", "labels") else 0
    if others or not head[1].is_vector or head[1] != Vector(outputs):
        raise PlanError(f"a {task.name} has no classes that could be called as often in every group", where, instead)
    with torch.device("meta"):
        network = torch_networks.build_module(task, settings.architecture)
    layer = network_parts.last_layers(network, family.features).get(head[0]) if family.features else None
    has_own_loss = family.sees_targets or family.has_loss
    if has_own_loss or not isinstance(layer, torch.nn.Linear) or layer.bias is None:
        problem = f"the last layer of {settings.network.name} is not linear"
        raise PlanError(problem, where, f"{instead}, or another network")
