"""Rules of private training: what it needs of the rest of a plan, and whom it protects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from hilum import errors
from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.networks import factory, network_family
from hilum.objectives.objective_terms import SUPERVISED
from hilum.planning.plan_sections import PlanSettings
from hilum.runtime import Context, torch_networks
from hilum.tasks import Task, properties, task_catalogue
from hilum.values import BY_HAND, Dataset, Decision, Fingerprint, Plan

SECTION = "privacy"
EPSILON = "privacy.epsilon"
DELTA = "privacy.delta"
# The error that noise brings grows with the number of weights: Bassily, Smith and Thakurta 2014.
FEWER_WEIGHTS = "arXiv:1405.7085"
DECISIONS = {
    "epsilon": Decision(None, "no bound on what the weights tell of a person was asked for"),
    "delta": Decision(None, "it follows from how many are protected"),
    "clip": Decision(1.0, "the noise follows it, so that with AdamW its size hardly matters", "arXiv:2204.13650"),
    "unit": Decision("patient", "it follows from whether the patients are known"),
    "accountant": Decision("rdp", "it is an upper bound, without numerical integration", "arXiv:1702.07476"),
}
# Of one over the number of units: by giving away a single record, a mechanism may reach one over that number.
DELTA_SHARE = 0.1
# What makes one image of several of a batch.
JOINS_IMAGES = ("mixup", "cutmix", "paste", "style")
# More samples a step than usual: noise is added once a step, whatever the batch.
BATCH_FACTOR = 4


def with_privacy(plan: Plan) -> Plan:
    """The plan with the section on privacy; a section that is there stays."""
    missing = {f"{SECTION}.{name}": decision for name, decision in DECISIONS.items()}
    return plan.with_decisions({name: decision for name, decision in missing.items() if name not in plan})


def following_decisions(plan: Plan) -> dict[str, Decision]:
    """What a private training needs of other decisions, where nobody set them by hand."""
    because = "a private training takes the gradient of each sample by itself"
    once = "each further training would spend the privacy budget again"
    follows = {
        f"augmentation.{name}": Decision(0.0, f"{because}: no image is made of several") for name in JOINS_IMAGES
    }
    follows |= {
        "training.compute": Decision("eager", because),
        "training.precision": Decision("float32", "gradients of single samples took 3 times as long in bfloat16"),
        "training.epochs": Decision(None, "noise keeps the network from learning cases by heart"),
        "training.networks": Decision(1, once),
        "evaluation.image_only": Decision(False, once),
        "training.sampling": Decision("natural", "a batch is sampled by chance alone, as the accountant assumes"),
        "training.batch": Decision(
            BATCH_FACTOR * int(plan["training.batch"]),
            f"{BATCH_FACTOR} times as many as usual: the noise of a step is the same for all its samples together",
            "arXiv:2204.13650",
        ),
    }
    size = plan["network.size"]
    if isinstance(size, Mapping):
        norm = {"norm": "group"} if _chooses_norm(str(plan["network.name"])) else {}
        why = f"{plan.decision('network.size').because}; half as wide, because each weight gets noise of its own"
        why += "; groups of maps are normalised, which looks at no other image" * bool(norm)
        follows["network.size"] = Decision({**network_family.widen_settings(size, 0.5), **norm}, why, FEWER_WEIGHTS)
    return follows


def with_units(plan: Plan, dataset: Dataset, training: Fingerprint, *, least: int = 1) -> Plan:
    """The plan with whom it protects, and how likely it may fail; the same plan where no budget is asked for.

    training: of the training cases
    least:    delta follows from no fewer units, whose number it would tell
    Raises PlanError for a delta above one in the number of units, for unknown patients, and for a loss that compares
    cases.
    """
    if EPSILON not in plan or plan[EPSILON] is None:
        return plan
    ids = {one.id for one in training.cases}
    cases = [case for case in dataset if case.id in ids]
    by_hand = {name for name in ("unit", "delta") if plan.decision(f"{SECTION}.{name}").because == BY_HAND}
    if "unit" not in by_hand:
        unit, why = ("patient", "all images of a patient") if dataset.patients_known else ("case", "each image alone")
        known = "known" if dataset.patients_known else "unknown"
        plan = plan.with_decision(f"{SECTION}.unit", Decision(unit, f"the patients are {known}: it protects {why}"))
    elif plan[f"{SECTION}.unit"] == "patient" and not dataset.patients_known:
        problem = "nobody knows the patients of these cases"
        raise PlanError(problem, f"{SECTION}.unit", "Give case, or --column patient=")
    units = len({case.patient for case in cases}) if plan[f"{SECTION}.unit"] == "patient" else len(cases)
    if "delta" not in by_hand:
        counted = max(least, units)
        because = f"a tenth of one in {errors.count_phrase(counted, plan[f'{SECTION}.unit'])}"
        plan = plan.with_decision(DELTA, Decision(DELTA_SHARE / counted, because))
    refuse_delta(plan[DELTA], units)
    task: Task = task_catalogue.build_task({name: one.value for name, one in plan.sections["task"].items()})
    if any(part.compared_cases(cases) is not None for part in properties.leaf_tasks(task).values()):
        raise _refusal(f"the loss of {task.name} compares cases with each other", "task.name")
    return plan


def refuse_delta(delta: float, units: int) -> None:
    """PlanError for a delta above one in the number of units: it would allow to publish one of them whole."""
    if delta > 1 / units:
        problem = f"{delta:g} is above one in {units}: whoever publishes one of them whole would keep such a promise"
        raise PlanError(problem, DELTA, f"Give at most {1 / units:.2g}")


def check_privacy(settings: PlanSettings) -> None:
    """PlanError for what looks at several samples at once, and for what would train on the same cases again."""
    if settings.privacy.epsilon is None:
        return
    training = settings.training
    name = settings.network.name
    varied = settings.augmentation
    family = factory.family_of(name)
    joined = [one for one in JOINS_IMAGES if getattr(varied, one) > 0]
    objectives = [one for one in settings.terms if one != SUPERVISED]
    refused: Mapping[str, str] = {
        f"augmentation.{''.join(joined[:1])}": "it makes one image of several" * bool(joined),
        "objectives.terms": f"{', '.join(objectives)} is over a batch, or over other images" * bool(objectives),
        "network.name": f"{name} has a loss of its own" * (family.has_loss or family.sees_targets),
        "training.sampling": "cases are sampled by what they are" * (training.sampling != "natural"),
        "training.fairness": "groups of people are looked at together" * (training.fairness != "none"),
        "training.networks": "several networks train on the same cases" * (training.networks != 1),
        "split.folds": "each fold would spend the budget again" * bool(settings.split.folds),
        "split.inner_folds": "each fold would spend the budget again" * bool(settings.split.inner_folds),
        "evaluation.image_only": "a second network would spend the budget again" * settings.evaluation.image_only,
        "search.minutes": "each trial would spend the budget again" * settings.search.is_on,
        "search.configurations": "each would spend the budget again" * (settings.search.configurations is not None),
        "preprocessing.cascade": "each stage would spend the budget again"
        * (settings.preprocessing.cascade is not None),
        "transfer.mode": "means of classes are exact" * (settings.transfer.mode == "prototypes"),
        "task.name": "its loss learns numbers of its own" * bool(settings.task.terms)
        or "people point" * settings.task.takes_prompts,
    }
    for where, problem in refused.items():
        if problem:
            raise _refusal(problem, where)
    _check_network(settings)


def _check_network(settings: PlanSettings) -> None:
    """PlanError for a network whose output for a sample depends on others, or that adds to the loss itself."""
    with torch.device("meta"), torch.no_grad():
        network = torch_networks.build_module(settings.task, settings.architecture).train()
        images = torch.empty(2, settings.preprocessing.inputs, *settings.training.patch)
        entries = len(Context.from_settings(settings.network.context))
        outputs = network(images, *([torch.empty(2, entries)] if entries else []))
    if any(isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in network.modules()):
        remedy = 'Give --set network.size={"norm": "group"}' if _chooses_norm(settings.network.name) else ""
        problem = f"{settings.network.name} normalises over the batch"
        raise _refusal(problem, "network.name", remedy or "Choose convnext or unet")
    if "+" in outputs or torch_networks.variational_layers(network):
        raise _refusal(f"{settings.network.name} adds to the loss of a batch", "network.name")


def _chooses_norm(name: str) -> bool:
    """Whether a family normalises over the batch only because its setting `norm` says so."""
    chosen = inspect.signature(factory.family_of(name).build).parameters.get("norm")
    return chosen is not None and chosen.default == "batch"


def _refusal(problem: str, where: str, remedy: str = "") -> PlanError:
    words = f"{problem}, and a private training takes each sample by itself, once"
    return PlanError(words, where, remedy or f"Change it, or leave out {EPSILON}")
