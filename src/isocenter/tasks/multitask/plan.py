"""What follows where several kinds of problem are taught together, and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isocenter.errors import DatasetError, PlanError, counted
from isocenter.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from isocenter.tasks.task import Task

SELECTED = "mean_of_parts"
WEIGHTINGS = ("uncertainty", "fixed")
KENDALL = "arXiv:1705.07115"
CARUANA = "doi:10.1023/A:1007379606734"


def settings_for(kinds: Sequence[type[Task]], dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The settings of every part, called <kind>.<setting>, and how their losses are weighed.

    Raises DatasetError where a part cannot be taught, or no case says anything of one.
    """
    made: dict[str, Decision] = {}
    for kind in kinds:
        known = {case.id for case in fingerprint.cases if kind.needs <= set(case.references)}
        if not known:
            problem = f"no training case has references of the kind {', '.join(sorted(kind.needs))}"
            where = str(dataset.root or dataset.name)
            raise DatasetError(problem, where, f"Leave {kind.name} out of --task, or add its labels")
        found = kind.settings_for(dataset, fingerprint.only(known))
        drawn = kind.of({key: decision.value for key, decision in found.items()}).under("natural")
        found |= {key.removeprefix("task."): one for key, one in drawn.items() if key.startswith("task.")}
        made |= {f"{kind.name}.{key}": decision for key, decision in found.items()}
    return {"weighting": _weighting(kinds, fingerprint), "loss_weights": _weights(kinds), **made}


def _weighting(kinds: Sequence[type[Task]], fingerprint: Fingerprint) -> Decision:
    known = {kind.name: sum(kind.needs <= set(case.references) for case in fingerprint.cases) for kind in kinds}
    cases = ", ".join(f"{name} is known of {count}" for name, count in known.items())
    because = (
        f"of {counted(len(fingerprint), 'training case')} {cases}; their losses have different units, so that how much "
        "each counts is learnt with the weights"
    )
    return Decision("uncertainty", because, KENDALL)


def _weights(kinds: Sequence[type[Task]]) -> Decision:
    weights = {kind.name: 1.0 for kind in kinds}
    return Decision(weights, "nobody said that one part matters more than another")


def check_settings(rest: Mapping[str, Any], parts: Sequence[str]) -> None:
    """PlanError for a setting that is of no part and not of them together, or that cannot be."""
    if unknown := sorted(set(rest) - {"weighting", "loss_weights"}):
        remedy = f"Choose weighting, loss_weights, or a setting of {', '.join(parts)}, as in {parts[0]}.NAME"
        raise PlanError("there is no such setting", f"task.{unknown[0]}", remedy)
    weighting, weights = rest.get("weighting", "uncertainty"), rest.get("loss_weights")
    if weighting not in WEIGHTINGS:
        problem = f"there is no weighting {weighting!r}"
        raise PlanError(problem, "task.weighting", f"Choose one of {', '.join(WEIGHTINGS)}")
    if weights is None:
        return
    if not isinstance(weights, Mapping) or set(weights) - set(parts):
        problem = f"{weights!r} are no weights of {', '.join(parts)}"
        raise PlanError(problem, "task.loss_weights", "Give one number above 0 for each part")
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise PlanError(
                f"{value!r} for {name}", "task.loss_weights", "Give a number above 0, or leave the part out"
            )


def check_together(parts: Mapping[str, Task]) -> None:
    """PlanError for parts of which one would decide on other cases than another after training."""
    tuned = {name: part.traits.tuned_on for name, part in parts.items()}
    if len(set(tuned.values())) > 1:
        said = ", ".join(f"{name} by {which} cases" for name, which in tuned.items())
        problem = f"what training leaves open is decided by other cases in each part ({said})"
        raise PlanError(problem, "task.name", "Leave one of them out of --task")


def agreed(each: Mapping[str, Mapping[str, Decision]]) -> dict[str, Decision]:
    """What the parts say about training, brought to one; the parts come with those of every voxel first.

    What changes images least is taken, and the larger batch.
    """
    first, names = next(iter(each)), " and ".join(each)
    made: dict[str, Decision] = {}
    for name, said in each.items():
        for key, decision in said.items():
            made[key] = _one_of(key, made[key], decision, name) if key in made else decision
    chosen = each[first]["network.name"]
    primary = each[first]["evaluation.primary"]
    others = ", ".join(f"{said['evaluation.primary'].value} of {name}" for name, said in each.items() if name != first)
    selected = " and ".join(f"{said['training.selection'].value} of {name}" for name, said in each.items())
    return made | {
        "network.name": Decision(chosen.value, f"{first}: {chosen.because}; it serves {names} at once", CARUANA),
        "training.sampling": Decision(
            "natural", "cases drawn by the class of one part would change what the others see"
        ),
        "training.epochs": Decision(None, "what more of them do was measured for classes alone"),
        "training.selection": Decision(SELECTED, f"it is the mean of {selected}, of the validation cases that have it"),
        "evaluation.primary": Decision(
            primary.value, f"{first}: {primary.because}; beside it stands {others}", primary.source
        ),
    }


def _one_of(key: str, one: Decision, other: Decision, name: str) -> Decision:
    """The more careful of two decisions of different parts."""
    if one.value == other.value:
        return one
    if key == "training.batch":
        return max(one, other, key=lambda decision: decision.value)
    if key.startswith("augmentation."):
        least = min(one, other, key=lambda decision: abs(float(decision.value or 0)))
        return Decision(least.value, least.because, least.source)
    return one
