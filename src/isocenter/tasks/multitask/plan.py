"""Plans for several kinds of problem on one network: settings, decisions that the parts share, refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from isocenter.belief import NOT_KEPT
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.tasks.answers import Traits
from isocenter.tasks.shared import COARSEST
from isocenter.values import Dataset, Decision, Fingerprint, Sentence

if TYPE_CHECKING:
    from isocenter.tasks.task import Task

# Between the names of kinds, and between a kind and its setting.
SIGN, SETTING = "+", "."
SELECTED = "mean_of_parts"
WEIGHTINGS = ("uncertainty", "fixed")
KENDALL = "arXiv:1705.07115"
CARUANA = "doi:10.1023/A:1007379606734"
SENTENCES: Mapping[str, Sentence] = {
    "weighting": Sentence("The losses of the parts are weighed by {value} weights"),
    "loss_weights": Sentence("The loss of each part counts by {each}"),
}


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
        own = kind.settings_for(dataset, fingerprint.only(known))
        drawn = kind.of({key: decision.value for key, decision in own.items()}).under("natural")
        own |= {key.removeprefix("task."): decision for key, decision in drawn.items() if key.startswith("task.")}
        made |= {f"{kind.name}{SETTING}{key}": decision for key, decision in own.items()}
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
    return Decision(weights, "no weights of the parts were asked for")


def check_settings(rest: Mapping[str, Any], parts: Sequence[str]) -> None:
    """PlanError for a setting that neither a part nor the whole has, or that cannot be; rest: the whole's settings."""
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
        problem = f"{weights!r} are not weights of {', '.join(parts)}"
        raise PlanError(problem, "task.loss_weights", "Give one number above 0 for each part")
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise PlanError(
                f"{value!r} for {name}", "task.loss_weights", "Give a number above 0, or leave the part out"
            )


def joined_traits(kinds: Sequence[type[Task] | Task]) -> Traits:
    """The traits of the parts, under the names that their settings have here; a case may lack references of a part."""
    own = {kind.name: kind.traits for kind in kinds}
    return Traits(
        tunes=tuple(f"{name}{SETTING}{key}" for name, traits in own.items() for key in traits.tunes),
        tuned_on=max((traits.tuned_on for traits in own.values()), key=len),
        registers={
            f"{name}{SETTING}{key}": f"{words} of {name}"
            for name, traits in own.items()
            for key, words in traits.registers.items()
        },
        alternatives=tuple(kind.needs for kind in kinds),
        search_values={
            f"{name}{SETTING}{key}": values
            for name, traits in own.items()
            for key, values in traits.search_values.items()
        },
        sentences={
            **SENTENCES,
            **{f"{name}{SETTING}{key}": one for name, traits in own.items() for key, one in traits.sentences.items()},
        },
        metric_names={
            SELECTED: "the mean over the tasks",
            **{metric: name for traits in own.values() for metric, name in traits.metric_names.items()},
        },
        errors=frozenset().union(*(traits.errors for traits in own.values())),
        calibration=tuple(dict.fromkeys(metric for traits in own.values() for metric in traits.calibration)),
        audited=tuple(dict.fromkeys(metric for traits in own.values() for metric in traits.audited)),
        belief=tuple(dict.fromkeys(metric for traits in own.values() for metric in traits.belief)),
        suited=partial(_suited, own),
        unkept=partial(_unkept, own),
    )


def of_part(name: str, decision: str) -> str:
    """task.loss as task.<part>.loss"""
    return f"task.{name}{SETTING}{decision.removeprefix('task.')}"


def _suited(parts: Mapping[str, Traits], settings: Mapping[str, Any]) -> dict[str, Decision]:
    return {
        of_part(name, decision): value
        for name, traits in parts.items()
        for decision, value in traits.suited(_given_for(name, settings)).items()
    }


def _unkept(parts: Mapping[str, Traits], decisions: Mapping[str, Decision]) -> Sequence[str]:
    """Their sentences, each with the part whose rule it is."""
    return [
        one.replace(NOT_KEPT, f" of {name}{NOT_KEPT}", 1)
        for name, traits in parts.items()
        for one in traits.unkept(_given_for(name, decisions))
    ]


def _given_for(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given for a part, under the names that the part itself has for it."""
    start = f"{part}{SETTING}"
    return {key.removeprefix(start): value for key, value in given.items() if key.startswith(start)}


def agreed(each: Mapping[str, Mapping[str, Decision]]) -> dict[str, Decision]:
    """The parts' decisions about training, brought to one each; parts with an output for every voxel come first.

    The smallest augmentation is taken, and the largest batch.
    """
    first, names = next(iter(each)), " and ".join(each)
    made: dict[str, Decision] = {}
    for decisions in each.values():
        for key, decision in decisions.items():
            made[key] = _more_careful(key, made[key], decision) if key in made else decision
    if not all(COARSEST in decisions for decisions in each.values()):
        made.pop(COARSEST, None)
    chosen, primary = each[first]["network.name"], each[first]["evaluation.primary"]
    others = ", ".join(f"{own['evaluation.primary'].value} of {name}" for name, own in each.items() if name != first)
    selected = " and ".join(f"{own['training.selection'].value} of {name}" for name, own in each.items())
    return made | {
        "network.name": Decision(chosen.value, f"{first}: {chosen.because}; it serves {names} at once", CARUANA),
        "training.sampling": Decision(
            "natural", "cases drawn by the class of one part would change what the others see"
        ),
        "training.epochs": Decision(None, "no number of epochs was measured for kinds of problem that share a network"),
        "training.networks": Decision(1, "one network gets all the minutes"),
        "training.selection": Decision(SELECTED, f"it is the mean of {selected}, of the validation cases that have it"),
        "evaluation.primary": Decision(
            primary.value, f"{first}: {primary.because}; also reported: {others}", primary.source
        ),
    }


def _more_careful(key: str, mine: Decision, other: Decision) -> Decision:
    """The more careful of two decisions of different parts; the first where no rule prefers the other."""
    if mine.value == other.value:
        return mine
    if key in ("preprocessing.reduction", COARSEST):
        return min(mine, other, key=lambda decision: decision.value)
    if key == "training.batch":
        return max(mine, other, key=lambda decision: decision.value)
    if key.startswith("augmentation."):
        least = min(mine, other, key=lambda decision: abs(float(decision.value or 0)))
        return Decision(least.value, least.because, least.source)
    return mine
