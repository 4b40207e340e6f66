"""The plan of sites that train together: the ordinary one for stand-ins, without what needs cases of several sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from isocenter.errors import DatasetError, PlanError
from isocenter.federation.agreement import Introduction
from isocenter.planning import plan_changes, training_memory, typed_sections
from isocenter.planning.plan_sections import FederationSettings
from isocenter.quality.dataset_examination import Examination
from isocenter.runs import plan_request
from isocenter.runs.plan_request import PlanRequest
from isocenter.runtime import hardware
from isocenter.values import BY_HAND, Decision, Plan

SECTION = "federation"
# What a job over sites does without, and why. A person who sets one of them is refused.
WITHOUT: Mapping[str, tuple[Any, str]] = {
    "training.validations": (1, "rounds are looked at by the server: a site looks at its validation cases at the end"),
    "training.early_stop": (None, "all sites take as many steps"),
    "training.networks": (1, "one network travels"),
    "split.inner_folds": (0, "networks of inner folds would need cases of all sites"),
    "split.calibration": (0, "guarantees need cases of all sites"),
    "guard.gate": (False, "the gate needs what the network sees in cases of all sites"),
    "evaluation.image_only": (False, "one network travels"),
    "privacy.epsilon": (None, "a budget counts the patients of one training, and none over sites is built yet"),
}
# Flags of a plan that would need further trainings.
REFUSED = ("split.folds", "split.folds_by", "search.minutes", "search.trials", "search.configurations")


def federation_settings(assignments: Mapping[str, Any], rounds: int) -> dict[str, Decision]:
    """The plan's section `federation`, with what was set by hand; PlanError for what cannot be."""
    for name in assignments:
        if name in WITHOUT or name in REFUSED:
            because = WITHOUT[name][1] if name in WITHOUT else "one network travels"
            raise PlanError(f"cannot be set where sites train together: {because}", name, "Leave it out")
    asked = {name: value for name, value in assignments.items() if name.startswith(f"{SECTION}.")}
    for name, value in asked.items():
        typed_sections.check_value(name, value)
    usual = {f"{SECTION}.{one.name}": one.default for one in fields(FederationSettings)}
    because = "the usual one, until sites have shown that another is better"
    decided = {name: Decision(value, because) for name, value in usual.items()}
    by_hand = {name: Decision(value, BY_HAND) for name, value in asked.items()}
    return decided | {f"{SECTION}.rounds": Decision(rounds, "asked for by --rounds")} | by_hand


def plan_for_sites(
    examination: Examination, agreed: Introduction, request: PlanRequest, settings: Mapping[str, Decision]
) -> Plan:
    """The plan for all sites; examination: of stand-ins. DatasetError where no site has enough cases to send any."""
    if not len(examination.dataset):
        least = settings["federation.min_count"].value
        problem = f"no site has {least} like training cases, so there is nothing to plan by"
        raise DatasetError(problem, "the sites", "Lower federation.min_count, as far as the sites agree")
    others = {name: value for name, value in request.assignments.items() if not name.startswith(f"{SECTION}.")}
    wished = replace(request, task=agreed.task, assignments=others, everything=True, folds=0).effective_request
    device = hardware.announced_device(request.device or "auto")
    machine = training_memory.this_machine(device.value, request.threads, None)
    plan = plan_request.plan_examined(wished, examination, "", device, machine).plan
    if plan["preprocessing.cascade"] is not None:
        because = "the first network of a cascade would be a training over all sites of its own"
        plan = plan_changes.without_cascade(plan, because)
    without = {name: Decision(value, because) for name, (value, because) in WITHOUT.items() if name in plan}
    method = Decision("drawn", "each site draws its own parts, by patients")
    plan = plan.with_decisions({**without, "split.method": method, **settings})
    return replace(plan, data="", data_hash="", options={})
