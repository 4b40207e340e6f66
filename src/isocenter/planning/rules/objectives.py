"""Rules of objectives: the terms that training lowers, and a section for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from isocenter.objectives import SUPERVISED, objective_kind, objective_names
from isocenter.values import BY_HAND, Dataset, Decision, Fingerprint, Plan

SECTION = "objectives"
# By bench/few_labels.py: what other objectives gain.
MEASURED = "docs/benchmarks/few-labels.md"
TERMS, UNLABELLED = f"{SECTION}.terms", f"{SECTION}.unlabelled"


def objectives_sections(
    dataset: Dataset, fingerprint: Fingerprint, terms: Decision | None = None
) -> dict[str, Mapping[str, Decision]]:
    """The section of objectives, and those of its terms.

    terms: of the kind of problem, or asked for; None: the task's own loss
    """
    because = "the task's loss of labelled images: no objective on unlabelled ones gained .01 where few were labelled"
    usual = Decision([SUPERVISED], because, MEASURED)
    own = {
        "terms": usual if terms is None else terms,
        "unlabelled": Decision([], "no unlabelled images were given (--unlabelled PATH)"),
        "unlabelled_hash": Decision(None, "no unlabelled images were given"),
        "unlabelled_batch": Decision(None, "a step takes as many unlabelled images as labelled ones"),
    }
    plan = with_objective_settings(with_sections(Plan({SECTION: own})), dataset, fingerprint)
    return {name: section for name, section in plan.sections.items() if name in (SECTION, *plan[TERMS])}


def with_sections(plan: Plan) -> Plan:
    """The plan with a section for each objective that it names, with its defaults, and without those of others.

    PlanError for an objective that does not exist.
    """
    terms = plan[TERMS] if isinstance(plan[TERMS], list | tuple) else []
    wanted = {str(name): objective_kind(str(name)) for name in terms}
    sections = dict(plan.sections)
    for name, kind in wanted.items():
        because = "neither these cases nor a person asked for another value"
        usual = {field.name: Decision(field.default, because) for field in fields(kind)}
        sections[name] = {**usual, **sections.get(name, {})}
    others = {name for name in sections if name in objective_names() and name not in wanted}
    return replace(plan, sections={name: section for name, section in sections.items() if name not in others})


def with_objective_settings(plan: Plan, dataset: Dataset, fingerprint: Fingerprint) -> Plan:
    """The plan with what its objectives decide for these training cases, where nobody has decided it by hand."""
    for name in plan[TERMS]:
        for key, decision in objective_kind(name).settings_for(dataset, fingerprint).items():
            full = key if "." in key else f"{name}.{key}"
            if full.partition(".")[0] not in plan.sections:
                continue  # until the whole plan is known
            if full not in plan or plan.decision(full).because != BY_HAND:
                plan = plan.with_decision(full, decision)
    return plan
