"""Plans for several kinds of problem on one network: settings, decisions that the parts share, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import Metric, Metrics
from isocenter.tasks.settings import DOT, task_from
from isocenter.tasks.shared import COARSEST
from isocenter.values import Dataset, Decision, Fingerprint, Sentence, Split, setting

if TYPE_CHECKING:
    from isocenter.tasks.task import Task

# Between the names of kinds.
SIGN = "+"
SELECTED = "mean_of_parts"
KENDALL = "arXiv:1705.07115"
CARUANA = "doi:10.1023/A:1007379606734"


def _weights_from(given: Any) -> dict[str, float] | None:
    """{part: by what its loss is multiplied}, or None; PlanError for what is no weight."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise PlanError(
            f"{given!r} are no weights of parts", "task.loss_weights", "Give one number above 0 for each part"
        )
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            remedy = "Give a number above 0, or leave the part out"
            raise PlanError(f"{value!r} for {name}", "task.loss_weights", remedy)
    return {str(name): float(value) for name, value in given.items()}


@dataclass(frozen=True, kw_only=True)
class LossWeighting:
    """How much the loss of each of several parts counts.

    weighting:    "uncertainty" learns it with the weights of the network, "fixed" keeps `loss_weights`
    loss_weights: {part: by what its loss is multiplied}
    """

    weighting: Literal["uncertainty", "fixed"] = setting(
        "uncertainty", Sentence("The losses of the parts are weighed by {value} weights")
    )
    loss_weights: Mapping[str, float] | None = setting(
        None, Sentence("The loss of each part counts by {each}"), read=_weights_from
    )


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
        drawn = task_from(kind, {key: decision.value for key, decision in own.items()}).under("natural")
        own |= {key.removeprefix("task."): decision for key, decision in drawn.items() if key.startswith("task.")}
        made |= {f"{kind.name}{DOT}{key}": decision for key, decision in own.items()}
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


def check_weights(weights: Mapping[str, float], parts: Sequence[str]) -> None:
    """PlanError for a weight of a part that there is not."""
    if set(weights) - set(parts):
        problem = f"{dict(weights)} are not weights of {', '.join(parts)}"
        raise PlanError(problem, "task.loss_weights", "Give one number above 0 for each part")


def longest_tuning(kinds: Iterable[type[Task] | Task]) -> tuple[Split, ...]:
    """The parts of the cases that decide after training for the kind that takes most of them."""
    return max((kind.tuned_on for kind in kinds), key=len)


def joined_metrics(kinds: Iterable[type[Task] | Task]) -> Metrics:
    """The metrics of the parts, and what selects checkpoints."""
    selecting = Metric(SELECTED, "the mean over the tasks", may_judge=False)
    return Metrics((selecting, *(metric for kind in kinds for metric in kind.metrics)))


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
