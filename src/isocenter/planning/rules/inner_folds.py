"""Inner folds: networks beside the main one, by which each training case has a prediction of one that has not seen it.

What a task finds after training, a threshold of probability above all, needs many cases whose predictions are honest;
the validation part of a small set has too few (bench/claims/operating_points.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from isocenter.belief import FEWEST_UNSEEN, OperatingPoint, fewest_for_risk
from isocenter.errors import counted
from isocenter.planning.rules.split import FEWEST_OF_LARGE, Parts, strata_names
from isocenter.tasks import Task, found_after_training, leaves, needs_alignment
from isocenter.values import BY_HAND, Dataset, Decision, Plan, stands_for

INNER_FOLDS = 3
# Below, each of the networks has too few steps to be like the main one.
LEAST_MINUTES = 10.0
FEWEST_PATIENTS = 20
MEASURED = "bench/inner_folds.py"
RULE, THRESHOLDS = "task.operating_point", "task.thresholds"
RISK = "task.risk"
# Thresholds of intervals, and of groups of people: nobody trains three networks more only for these.
NEED_NO_FOLDS = ("conformal", "thresholds_by_group")


def with_inner_folds(plan: Plan, task: Task, dataset: Dataset, parts: Parts) -> Plan:
    """The plan with how many inner folds there are; what was set by hand stays.

    task: as the plan has it, with what was set by hand
    """
    counts = {part: list(parts.values()).count(part) for part in ("train", "val")}
    people = len({case.patient for case in dataset if parts.get(case.id) == "train"})
    few_people = counted(people, "patient" if dataset.patients_known else "case") * (people < FEWEST_PATIENTS)
    promised = _promised(plan, dataset, parts)
    scarce = _scarce(plan, dataset, parts) or promised
    missing = _dense(plan, task, promised) or _without(plan, task, counts, few_people, scarce)
    few = scarce if promised or counts["val"] >= FEWEST_OF_LARGE else counted(counts["val"], "validation case")
    because = missing or (
        f"{few} are too few for what is decided after training: each of the "
        f"{counts['train']} training cases is predicted by the one of these networks that has not seen it"
    )
    folds = Decision(0 if missing else INNER_FOLDS, because, "" if missing else MEASURED)
    name = "split.inner_folds"
    by_hand = name in plan and plan.decision(name).because == BY_HAND
    return plan if by_hand else plan.with_decision(name, folds)


def _scarce(plan: Plan, dataset: Dataset, parts: Parts) -> str:
    """The class or finding that needs more than its validation cases for a threshold by a registered rule, in words.

    Empty where there is none, or where training cases would not be enough either.
    """
    by_hand = [name for name in plan.names if plan.decision(name).because == BY_HAND]
    registered = [name.removesuffix("point") for name in by_hand if stands_for(name, RULE)]
    if not registered or not any(stands_for(name, THRESHOLDS) and plan[name] is None for name in plan.names):
        return ""
    cases = [case for case in dataset if parts.get(case.id) in ("train", "val")]
    points = [OperatingPoint(plan[f"{name}point"], plan[f"{name}confidence"]) for name in registered]
    needed, names = max(one.fewest for one in points), strata_names(cases)
    whose = {(name, case.patient, parts[case.id]) for case in cases for name in names[case.id]}
    patients_of = Counter(name for name, _ in {one[:2] for one in whose})
    select = Counter(name for name, _, part in whose if part == "val")
    enough = {name for name, count in patients_of.items() if name and count >= max(needed, 2 * FEWEST_UNSEEN)}
    rarest = min(sorted(enough), key=select.__getitem__, default="")
    if not rarest or select[rarest] >= needed:
        return ""
    return f"{counted(select[rarest], 'validation patient')} of {rarest}"


def _promised(plan: Plan, dataset: Dataset, parts: Parts) -> str:
    """The patients who are too few for results of a registered risk, in words.

    Empty where no risk is registered, where calibration cases decide, or where training cases would not be enough.
    """
    needed = 0
    for start in (name.removesuffix("risk") for name in plan.names if stands_for(name, RISK)):
        names = [name for name in plan.names if name.startswith(start)]
        settings = {name.removeprefix(start): plan[name] for name in names}
        by_hand = {name.removeprefix(start) for name in names if plan.decision(name).because == BY_HAND}
        needed = max(needed, fewest_for_risk(settings, by_hand))
    if not needed or any(part == "calibration" for part in parts.values()):
        return ""
    patients, val = (
        len({case.patient for case in dataset if parts.get(case.id) in names}) for names in (("train", "val"), ("val",))
    )
    few = counted(val, "validation patient" if dataset.patients_known else "validation case")
    return f"{few}, of {needed} for the registered risk," if val < needed <= patients else ""


def _dense(plan: Plan, task: Task, promised: str) -> str:
    """Why there are none where each image gives many answers; empty where there may be."""
    if all(head.is_vector for head in task.heads.values()):
        return ""
    if plan["preprocessing.cascade"] is not None:
        return "each fold would need a cascade of its own"
    if not promised:
        return "each image gives many answers, so the validation cases give enough of them"
    if len(plan["training.patch"]) > 2:
        return f"networks of volumes need all the minutes; {promised} are few: --folds or inner folds by hand have more"
    return ""


def _without(plan: Plan, task: Task, counts: Mapping[str, int], few_people: str, scarce: str) -> str:
    """Why there are none; empty where there are.

    few_people: how many train, in words, where they are too few
    """
    if plan["split.folds"]:
        return "each fold tests cases that it has not seen"
    if not counts["val"]:
        return "every case trains, and nothing is decided afterwards"
    found = [setting for setting in found_after_training(task) if not setting.endswith(NEED_NO_FOLDS)]
    if not any(_is_open(plan, setting) for setting in found):
        return "nothing is left to decide on validation cases"
    if not needs_alignment(task) and all("train" in one.tuned_on for one in leaves(task).values()):
        return "its outputs need no baseline, and the validation cases give the risk at which cases are parted"
    if counts["val"] >= FEWEST_OF_LARGE and not scarce:
        return f"{counts['val']} validation cases are enough for what is decided after training"
    if few_people:
        return f"{few_people} are too few to split once more"
    if plan.decision("training.steps").because == BY_HAND:
        return "steps were set by hand, so that no minutes are shared: the validation cases alone decide"
    minutes = plan["training.minutes"]
    if minutes is not None and minutes < LEAST_MINUTES:
        return f"{minutes:g} minutes are too few for {INNER_FOLDS + 1} trainings, which take at least {LEAST_MINUTES:g}"
    return ""


def _is_open(plan: Plan, setting: str) -> bool:
    return f"task.{setting}" in plan and plan[f"task.{setting}"] is None
