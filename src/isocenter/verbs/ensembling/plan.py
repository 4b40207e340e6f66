"""The plan of an ensemble: that of its first member, with where the others differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten

from isocenter.planning import counts_of
from isocenter.runtime import Model
from isocenter.tasks import found_after_training, settings_of
from isocenter.values import Decision, Plan
from isocenter.verbs.ensembling.members import Member, Parts

# Letters of a value that another member has.
LONGEST = 80
PROMISE = "evaluation.registered"
SPLIT_BECAUSE = (
    "test: patients that no member was trained or selected on; validation: those that no member was trained on"
)


def plan_of(
    members: Sequence[Member],
    model: Model,
    parts: Parts,
    decisions: Mapping[str, Decision],
    root: Path | None,
) -> Plan:
    """The first member's plan, with where the others differ and what was decided of the ensemble."""
    first, *others = members
    plan = replace(first.plan, data=str(root or ""))
    for name, decision in first.plan:
        differing = [each for each in others if name in each.plan and each.plan[name] != decision.value]
        if differing:
            values = "; ".join(f"{each.name}: {shorten(str(each.plan[name]), LONGEST)}" for each in differing)
            plan = plan.with_decision(
                name, replace(decision, because=f"{decision.because} (of {first.name}; {values})")
            )
    promises = {next((one.value for name, one in each.plan if name == PROMISE), None) for each in members}
    if len(promises) > 1:
        plan = plan.with_decision(
            PROMISE, Decision(None, "the members registered different metrics, margins or groups")
        )
    for name in found_after_training(model.task):
        value = settings_of(model.task)[name]
        if f"task.{name}" in plan and plan[f"task.{name}"] != value:
            plan = plan.with_decision(f"task.{name}", Decision(value, "no validation case of the ensemble decides it"))
    for name, decision in decisions.items():
        plan = plan.with_decision(name, decision)
    for key, value in model.inference.settings.items():
        if f"inference.{key}" in plan and plan[f"inference.{key}"] != value:
            plan = plan.with_decision(f"inference.{key}", Decision(value, "what all members have in common"))
    scale, own = (one.preprocessing.settings["normalisation"] for one in (model, first.models[0]))
    if scale != own:
        because = "the widest of the members', each of which has its own"
        plan = plan.with_decision("preprocessing.normalisation", Decision(scale, because))
    return plan.with_decision("split.method", Decision(plan["split.method"], f"{counts_of(parts)}; {SPLIT_BECAUSE}"))
