"""Rules of objectives: the terms that training lowers, and a section for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.objectives import objective_catalogue
from hilum.objectives.image_text import COVARIATES
from hilum.objectives.objective_terms import SUPERVISED
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules import covariate_rules
from hilum.tasks import Task, properties
from hilum.values import BY_HAND, Dataset, Decision, Fingerprint, Plan

SECTION = "objectives"
# By bench/findings/few-labels.md: what other objectives gain.
MEASURED = "bench/findings/few-labels.md"
# By bench/findings/shift.md: what images of another scanner bring.
SHIFTED = "bench/findings/shift.md"
TEACHER = "mean_teacher"
MEASURED_TEACHER = (
    "style with a mean teacher closed .59, .62 and .91 of the gaps to three simulated scanners; style alone more of an "
    "inverted contrast (.87), and less than half of a darker one (.43)"
)
NOTHING = Decision(None, "")
TERMS = f"{SECTION}.terms"
UNLABELLED = f"{SECTION}.unlabelled"


def objectives_sections(
    dataset: Dataset, fingerprint: Fingerprint, terms: Decision | None = None
) -> dict[str, Mapping[str, Decision]]:
    """The section of objectives, and those of its terms.

    terms: of the kind of problem, or asked for; None: the task's own loss
    """
    source = f"{MEASURED}: no objective on unlabelled images gained .01 where few were labelled"
    usual = Decision([SUPERVISED], "the task's loss of labelled images", source)
    decisions = {
        "terms": usual if terms is None else terms,
        "unlabelled": Decision([], "no unlabelled images were given (--unlabelled PATH)"),
        "target": Decision([], "no images of a target were given (--target PATH)"),
        "domain": Decision(None, "no column of places was named (--domain COLUMN)"),
        "unlabelled_hash": Decision(None, "no unlabelled images were given"),
        "unlabelled_batch": Decision(None, "a step takes as many unlabelled images as labelled ones"),
    }
    plan = with_objective_settings(with_sections(Plan({SECTION: decisions})), dataset, fingerprint)
    return {name: section for name, section in plan.sections.items() if name in (SECTION, *plan[TERMS])}


def target_decisions(task: Task, network: str, paths: Sequence[str], *, is_cascade: bool) -> dict[str, Decision]:
    """How a network learns from images of a target, by what was measured; nothing where none are given."""
    if not paths:
        return {}
    family = factory.family_of(network)
    unfit = objective_catalogue.objective_kind(TEACHER)().refusal(task)
    unfit = unfit or "the network has a loss of its own" * (family.sees_targets or family.has_loss)
    unfit = unfit or "the first network of a cascade marks no unlabelled images" * is_cascade
    curves = "random curves of intensity and amplitudes of images of the target"
    styled = f"{curves} closed .43, .87 and .89 of the gaps to three simulated scanners, with mean_teacher more evenly"
    taught = Decision([SUPERVISED, TEACHER], MEASURED_TEACHER, SHIFTED)
    return {
        f"{SECTION}.target": Decision(list(paths), BY_HAND),
        "augmentation.style": Decision(1.0, styled, SHIFTED),
        TERMS: Decision([SUPERVISED], f"no {TEACHER}: {unfit}") if unfit else taught,
    }


def without_teacher(plan: Plan, why: str) -> Plan:
    """The plan without the mean teacher that it chose for a target."""
    return with_sections(plan.with_decision(TERMS, Decision([SUPERVISED], f"no {TEACHER} fits into memory: {why}")))


def with_sections(plan: Plan) -> Plan:
    """The plan with a section for each objective that it names, with its defaults, and without those of others.

    PlanError for an objective that does not exist.
    """
    terms = plan[TERMS] if isinstance(plan[TERMS], list | tuple) else []
    kinds = {str(name): objective_catalogue.objective_kind(str(name)) for name in terms}
    sections = dict(plan.sections)
    for name, kind in kinds.items():
        because = "nobody asked for another value, and no rule for these data has one"
        usual = {field.name: Decision(field.default, because) for field in fields(kind)}
        sections[name] = {**usual, **sections.get(name, {})}
    others = {name for name in sections if name in objective_catalogue.objective_names() and name not in kinds}
    return replace(plan, sections={name: section for name, section in sections.items() if name not in others})


def with_objective_settings(plan: Plan, dataset: Dataset, fingerprint: Fingerprint) -> Plan:
    """The plan with what its objectives decide for these training cases, where nobody has decided it by hand."""
    for name in plan[TERMS]:
        for key, decision in objective_catalogue.objective_kind(name).settings_for(dataset, fingerprint).items():
            full = key if "." in key else f"{name}.{key}"
            if full.partition(".")[0] not in plan.sections:
                continue  # until the whole plan is known
            if full not in plan or plan.decision(full).because != BY_HAND:
                plan = plan.with_decision(full, decision)
    if "training" in plan.sections:  # the whole plan is known
        for name in plan[TERMS]:
            section = {key: one.value for key, one in plan.sections[name].items()}
            objective_catalogue.objective_kind(name).check_data(dataset, fingerprint, section)
    return _with_columns(plan, dataset, fingerprint)


def _with_columns(plan: Plan, dataset: Dataset, fingerprint: Fingerprint) -> Plan:
    """The plan with the columns of an objective that reads covariates, as the training cases have them."""
    for name in plan[TERMS]:
        if plan.sections.get(name, {}).get("other", NOTHING).value != COVARIATES:
            continue
        place = f"{name}.columns"
        decision = covariate_rules.context_decision(dataset, fingerprint, plan[place] or covariate_rules.ALL)
        if not decision.value:
            raise PlanError(decision.because, place, "Give a table with covariates")
        plan = plan.with_decision(place, decision)
    return plan


def check_objectives(settings: PlanSettings) -> None:
    """Each objective can teach this kind of problem and gets what it needs; nothing is given that none uses."""
    chosen = settings.objectives
    family = factory.family_of(settings.network.name)
    where = "objectives.terms"
    has_references = properties.learns_from_references(settings.task)
    is_taught = any(one.replaces_references or one.needs.labels or one.needs.taught for one in settings.terms.values())
    if has_references and not is_taught:
        problem = (
            f"{', '.join(settings.terms)} alone cannot teach {settings.task.name}: what is learnt without references"
        )
        remedy = f"Add {SUPERVISED}, or learn features by hilum pretrain"
        raise PlanError(f"{problem} is no answer", where, remedy)
    for name, objective in settings.terms.items():
        if why := objective.refusal(settings.task):
            raise PlanError(f"{name} cannot teach {settings.task.name}: {why}", where, f"Leave out {name}")
        needs = objective.needs
        has_own_loss = family.sees_targets or family.has_loss
        if needs.labels and not has_references:
            problem = f"{name} needs references, and {settings.task.name} has none"
            raise PlanError(problem, where, f"Leave out {name}")
        if settings.training.batch < objective.fewest:
            problem = f"{name} compares {objective.fewest} images or more, and a batch has {settings.training.batch}"
            raise PlanError(problem, "training.batch", f"Give {objective.fewest} or more")
        if needs.upright and settings.augmentation.quarter_turns:
            problem = f"{name} tells quarter turns apart, and the images have no up"
            remedy = f"Leave out {name}, or give --set augmentation.quarter_turns=false where they do have one"
            raise PlanError(problem, where, remedy)
        mixed = settings.augmentation.mixup + settings.augmentation.cutmix > 0
        if needs.second and (mixed or settings.preprocessing.cascade is not None):
            raise PlanError(f"{name} compares views of single images as they are", where, f"Leave out {name}")
        if (needs.takes_unlabelled and has_own_loss) or (needs.features and (has_own_loss or not family.features)):
            problem = f"{name} needs outputs or features that {settings.network.name} does not give without references"
            raise PlanError(problem, where, f"Leave out {name}, or give another --set network.name")
        if needs.unlabelled and not chosen.image_paths:
            remedy = "Give --unlabelled PATH, or --target PATH"
            raise PlanError(f"{name} needs unlabelled images", "objectives.unlabelled", remedy)
        if needs.places and not chosen.target and chosen.domain is None:
            remedy = "Give --target PATH, or --domain COLUMN where the data have several places"
            raise PlanError(f"{name} needs images of several places", "objectives.target", remedy)
        if (needs.unlabelled or needs.places) and settings.preprocessing.cascade is not None:
            problem = f"{name} sees unlabelled images, and the first network of a cascade has not marked these"
            raise PlanError(problem, where, f"Leave out {name}, or give --set preprocessing.cascade=none")
    if not has_references and settings.training.sampling != "natural":
        raise PlanError("cases without references cost nothing by which to sample", "training.sampling", "Give natural")
    is_used = objective_catalogue.joint_needs(settings.terms.values()).takes_unlabelled
    if chosen.image_paths and not is_used and not (chosen.target and settings.augmentation.style):
        able = [
            name
            for name in objective_catalogue.objective_names()
            if objective_catalogue.objective_kind(name).needs.unlabelled
        ]
        remedy = f"Add one, as in --set objectives.terms=[{SUPERVISED},{able[0]}]"
        raise PlanError("no objective sees unlabelled images", where, remedy)
    if chosen.domain is not None and not any(one.needs.places for one in settings.terms.values()):
        problem = f"no objective looks at the places that {chosen.domain} states"
        raise PlanError(problem, "objectives.domain", f"Add one, as in --set objectives.terms=[{SUPERVISED},dann]")
    for path in chosen.image_paths:
        if not Path(path).exists():
            where = f"{SECTION}.{'unlabelled' if path in chosen.unlabelled else 'target'}"
            raise PlanError(f"there is no {path}", where, "Give a folder or a table of images")
