"""change-plan.toml: which changes of a model are planned, and by which rules a changed model is accepted.

A plan that could not be executed is refused: every rule must be one that a check can apply to records.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from isocenter.errors import PlanError

CHANGE_PLAN = "change-plan.toml"
# Sections of `model.json` in which a planned change may lie, and the arrays of the weights.
SECTIONS = ("weights", "task", "preprocessing", "inference", "network", "decisions", "guard")
RULES: Mapping[str, str] = {"non-inferior": "margin", "superior": "", "at_least": "value"}
MODELS = ("approved", "current")
TOP: Mapping[str, type] = {"version": int, "approved": str, "modification": list, "acceptance": list, "evidence": dict}
ACCEPTANCE = {"metric", "label", "rule", "margin", "value", "against", "groups"}


def refuse_change_plan(plan: Mapping[str, Any], metrics: Collection[str], where: str) -> None:
    """PlanError for the first thing that a check of a change could not execute.

    metrics: that the model's evaluation has; empty where it has none
    """
    _refuse_unknown(plan, {*TOP, "retrain", "bound"}, where)
    for key, kind in TOP.items():
        if not isinstance(plan.get(key), kind) or isinstance(plan.get(key), bool):
            raise PlanError(
                f"{key} is missing or is no {kind.__name__}", where, "Write it as docs/how-to/document.md shows"
            )
    if plan["version"] != 1:
        raise PlanError(f"version {plan['version']} is not known", where, "Write version = 1")
    if not re.fullmatch(r"[0-9a-f]{64}", plan["approved"]):
        raise PlanError("approved is no SHA-256", where, "Give that of the approved package's manifest.json")
    _each(plan["modification"], "modification", where)
    _each(plan["acceptance"], "acceptance", where)
    for row in plan["modification"]:
        _refuse_modification(row, where)
    for row in plan["acceptance"]:
        _refuse_acceptance(row, metrics, where)
    _refuse_evidence(plan["evidence"], where)


def _each(rows: Sequence[Any], name: str, where: str) -> None:
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise PlanError(f"has no [[{name}]]", where, f"State one [[{name}]] at least")


def _refuse_modification(row: Mapping[str, Any], where: str) -> None:
    _refuse_unknown(row, {"name", "may_change", "because"}, where)
    allowed = row.get("may_change")
    if not row.get("name") or not isinstance(allowed, list) or not allowed:
        raise PlanError("a modification needs name and may_change", where, f"Name parts of {', '.join(SECTIONS)}")
    for part in allowed:
        if str(part).split(".")[0] not in SECTIONS:
            raise PlanError(f"{row['name']}: {part!r} is no part of a model", where, f"Use {', '.join(SECTIONS)}")


def _refuse_acceptance(row: Mapping[str, Any], metrics: Collection[str], where: str) -> None:
    _refuse_unknown(row, ACCEPTANCE, where)
    metric, rule = row.get("metric"), row.get("rule")
    if metrics and metric not in metrics:
        raise PlanError(
            f"acceptance by {metric!r}, which the evaluation lacks", where, f"Use {', '.join(sorted(metrics))}"
        )
    if rule not in RULES:
        raise PlanError(f"{rule!r} is no rule", where, f"Use {', '.join(RULES)}")
    needed = RULES[str(rule)]
    number = row.get(needed) if needed else 0
    if isinstance(number, bool) or not isinstance(number, int | float) or (needed == "margin" and number <= 0):
        raise PlanError(
            f"the rule {rule} of {metric} needs a {needed}", where, f"Write {needed} = 0.02 or another number"
        )
    against = row.get("against", [])
    if rule != "at_least" and (not against or set(against) - set(MODELS)):
        raise PlanError(f"the rule {rule} of {metric} is against nothing", where, f"Name {' and '.join(MODELS)}")


def _refuse_evidence(evidence: Mapping[str, Any], where: str) -> None:
    _refuse_unknown(evidence, {"alpha", "evaluations"}, where)
    alpha, looks = evidence.get("alpha"), evidence.get("evaluations")
    if not isinstance(alpha, float) or not 0 < alpha < 1:
        raise PlanError(f"alpha is {alpha!r}", where, "Write a number between 0 and 1")
    if isinstance(looks, bool) or not isinstance(looks, int) or looks < 1:
        raise PlanError(f"evaluations is {looks!r}", where, "Write how often the locked set may be looked at")


def _refuse_unknown(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    if unknown := sorted(set(table) - set(known)):
        raise PlanError(f"{unknown[0]!r} is not known", where, f"Use {', '.join(sorted(known))}")
