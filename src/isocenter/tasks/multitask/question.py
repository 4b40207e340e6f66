"""Multi-task: a task made of tasks, each with heads of its own on one backbone.

Caruana, Machine Learning 1997, doi:10.1023/A:1007379606734. Every part is a kind of problem as it is by itself; this
file has only what follows from their sharing a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import Metric, Metrics
from isocenter.lazy import torch
from isocenter.tasks.multitask.answering import is_dense
from isocenter.tasks.multitask.scoring import PartScoring
from isocenter.tasks.parts import head_of
from isocenter.tasks.settings import DOT, of_part, task_from
from isocenter.tasks.shared import COARSEST, place_of_target
from isocenter.tasks.task import Outputs, Task
from isocenter.values import (
    KNOWN,
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Head,
    Label,
    Sentence,
    Several,
    Split,
    Target,
    setting,
)

if TYPE_CHECKING:
    from torch import Tensor


# Between the names of kinds.
SIGN = "+"
SELECTED = "mean_of_parts"
KENDALL = "arXiv:1705.07115"
CARUANA = "doi:10.1023/A:1007379606734"
# Of the logarithms of variances: a loss counts at most e^5 times, and at least 1 / e^5 times, as much as it is.
LARGEST_LOG = 5.0


def _weights_from(weights: Any) -> dict[str, float] | None:
    """{part: by what its loss is multiplied}, or None; PlanError for what is no weight."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise PlanError(
            f"{weights!r} are no weights of parts", "task.loss_weights", "Give one number above 0 for each part"
        )
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            remedy = "Give a number above 0, or leave the part out"
            raise PlanError(f"{value!r} for {name}", "task.loss_weights", remedy)
    return {str(name): float(value) for name, value in weights.items()}


@dataclass(frozen=True, kw_only=True)
class LossWeighting:
    """Weighting of the losses of several parts.

    weighting:    "uncertainty" learns it with the weights of the network, "fixed" keeps `loss_weights`
    loss_weights: {part: by what its loss is multiplied}
    """

    weighting: Literal["uncertainty", "fixed"] = setting(
        "uncertainty", Sentence("The losses of the parts are weighed by {value} weights")
    )
    loss_weights: Mapping[str, float] | None = setting(
        None, Sentence("The loss of each part counts by {each}"), read=_weights_from
    )


@dataclass(frozen=True)
class Joined(LossWeighting):
    """Kinds of problem that share a network, in the order of their names."""

    kinds: tuple[type[Task], ...]
    by_name: ClassVar[bool] = False

    @classmethod
    def of_kinds(cls, kinds: Sequence[type[Task]]) -> Joined:
        """Make a task of at least two different kinds; PlanError where one is named twice."""
        ordered = tuple(sorted(kinds, key=lambda kind: kind.name))
        if len({kind.name for kind in ordered}) < len(ordered) or len(ordered) < 2:
            named = SIGN.join(kind.name for kind in ordered)
            raise PlanError(f"{named} is not a set of different kinds", "task.name", "Name each kind once")
        return cls(ordered)

    @property
    def name(self) -> str:
        """The names of the kinds, joined with "+"."""
        return SIGN.join(kind.name for kind in self.kinds)

    @property
    def parts(self) -> Mapping[str, type[Task]]:
        """{name: kind}"""
        return {kind.name: kind for kind in self.kinds}

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of reference that its parts need."""
        return frozenset().union(*(kind.needs for kind in self.kinds))

    @property
    def tuned_on(self) -> tuple[Split, ...]:
        """The parts of the cases that decide for the kind that needs most of them."""
        return longest_tuning(self.kinds)

    @property
    def alternatives(self) -> tuple[frozenset[str], ...]:
        """References that each kind needs: a case may lack those of a part."""
        return tuple(kind.needs for kind in self.kinds)

    @property
    def metrics(self) -> Metrics:
        """The metrics of the parts."""
        return joined_metrics(self.kinds)

    def settings_for(self, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The settings of every part, and how their losses are weighed; DatasetError where a part cannot be taught."""
        return settings_for(self.kinds, dataset, fingerprint)


@dataclass(frozen=True)
class Multitask(LossWeighting, PartScoring):
    """Several tasks on one backbone.

    parts: {kind: task}
    """

    parts: Mapping[str, Task] = field()
    selects_by: ClassVar[str] = SELECTED

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Always raises NotImplementedError: `Joined` states the settings of kinds before there are tasks."""
        raise NotImplementedError("the kinds are joined before they have settings")

    def checked(self) -> Multitask:
        """Put parts that have an output for every voxel first; PlanError for weights of other parts."""
        check_weights(self.loss_weights or {}, list(self.parts))
        ordered = dict(sorted(self.parts.items(), key=lambda item: (not is_dense(item[1]), item[0])))
        return replace(self, parts=ordered)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The names of the parts, joined with "+"."""
        return SIGN.join(sorted(self.parts))

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The kinds of reference that its parts need."""
        return frozenset().union(*(part.needs for part in self.parts.values()))

    @property
    def tuned_on(self) -> tuple[Split, ...]:  # type: ignore[override]
        """The parts of the cases that decide for the part that needs most of them."""
        return longest_tuning(self.parts.values())

    @property
    def alternatives(self) -> tuple[frozenset[str], ...]:  # type: ignore[override]
        """References that each part needs: a case may lack those of a part."""
        return tuple(part.needs for part in self.parts.values())

    @property
    def metrics(self) -> Metrics:  # type: ignore[override]
        """The metrics of the parts."""
        return joined_metrics(self.parts.values())

    @property
    def heads(self) -> Mapping[str, Head]:
        """The heads of all parts, as <kind>_<head>."""
        return {head_of(name, key): head for name, part in self.parts.items() for key, head in part.heads.items()}

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels of the first part: of the label map, where there is one."""
        return self._first.labels

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """The channels of all parts, one after the other; None where one of them must not be mirrored."""
        order: list[int] = []
        for part in self.parts.values():
            if part.mirrored is None:
                return None
            order += [len(order) + place for place in part.mirrored]
        return tuple(order)

    @property
    def terms(self) -> Mapping[str, Sequence[float]]:
        """Learnt terms of the loss: with learnt weighting a variance for each part."""
        return {"log_variance": [0.0] * len(self.parts)} if self.weighting == "uncertainty" else {}

    @property
    def uncut(self) -> str:
        """The reasons of the parts."""
        return "; ".join(filter(None, (part.uncut for part in self.parts.values())))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The decisions of the parts, brought to one each."""
        return agreed({name: part.decisions(fingerprint) for name, part in self.parts.items()})

    def under(self, sampling: str) -> dict[str, Decision]:
        """The settings that follow for each part; PlanError for cases that are drawn otherwise than they come."""
        if sampling != "natural":
            problem = f"classes of one part cannot be drawn {sampling} without changing what the others see"
            raise PlanError(problem, "training.sampling", "Give natural")
        return {
            of_part(name, key): decision
            for name, part in self.parts.items()
            for key, decision in part.under(sampling).items()
            if key.startswith("task.")
        }

    def target(self, case: Case) -> Target:
        """{part: its target}, of the parts that the case has references of; DatasetError where it has none."""
        taught = {name: part for name, part in self.parts.items() if part.needs <= set(case.references)}
        if not taught:
            problem = f"has no reference of the kind {', '.join(sorted(self.needs))}"
            raise DatasetError(problem, case.id, "Give one of them, or leave the case out")
        targets = {name: part.target(case) for name, part in taught.items()}
        heads: Any = {name: target.head for name, target in targets.items()}
        return Target(Several(heads), targets)

    def loss(self, outputs: Outputs, target: Any, spacing: Sequence[float] | None = None) -> Tensor:
        """The weighted sum of the parts' losses, each over the samples that have its reference.

        With learnt variances exp(-s) loss + s / 2 for each part, s being the logarithm: Kendall et al., CVPR 2018,
        arXiv:1705.07115. A part without a reference in the whole batch adds nothing, lest its variance vanish.
        """
        losses = []
        for number, (name, part) in enumerate(self.parts.items()):
            outputs_of_part = self._own(name, outputs)
            if not outputs_of_part or name not in target:
                continue
            referenced = target[KNOWN][:, list(target).index(name)]
            if not bool(referenced.any()):
                continue
            cost = part.loss(
                {key: output[referenced] for key, output in outputs_of_part.items()}, target[name][referenced], spacing
            )
            losses.append(self._weighted(cost, name, number, outputs))
        if not losses:
            return torch.stack([output.float().sum() for output in outputs.values()]).sum() * 0.0
        return torch.stack(losses).sum()

    def _weighted(self, cost: Tensor, name: str, number: int, outputs: Outputs) -> Tensor:
        cost = cost * (self.loss_weights or {}).get(name, 1.0)
        if self.weighting == "fixed":
            return cost
        log = outputs["log_variance"][number].clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.exp(-log) * cost + log / 2

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """The numbers of the parts that these are outputs of, and whose reference the cases have; `KNOWN` marks these.

        Who collects the numbers of all cases may put anything in place of those that a case lacks, with 0 for the mark.
        """
        numbers_of_parts: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            if name in target and (outputs_of_part := self._own(name, outputs)):
                numbers = part.quality(outputs_of_part, target[name])
                numbers = {**numbers, KNOWN: torch.ones(len(next(iter(numbers.values()))))}
                numbers_of_parts |= {f"{name}{DOT}{key}": value for key, value in numbers.items()}
        return numbers_of_parts

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The mean of the metrics by which the parts are selected, of those that some case has a reference of."""
        metrics = []
        for name, part in self.parts.items():
            start = f"{name}{DOT}"
            of_part = {key.removeprefix(start): one for key, one in collected.items() if key.startswith(start)}
            if not of_part:
                continue
            referenced = of_part.pop(KNOWN) > 0
            if referenced.any():
                metrics.append(part.selection({key: one[referenced] for key, one in of_part.items()}))
        known_metrics = [metric for metric in metrics if not np.isnan(metric)]
        return float(np.mean(known_metrics)) if known_metrics else float("nan")

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the scalar of a part, as "part" or "part:target"; without one the sum over all parts."""
        if target is not None:
            name, _, target_of_part = self.saliency_targets[place_of_target(target, self.saliency_targets)].partition(
                ":"
            )
            return self.parts[name].saliency(self._own(name, outputs), target_of_part or None)
        return torch.stack([part.saliency(self._own(name, outputs)) for name, part in self.parts.items()]).sum(dim=0)


def settings_for(kinds: Sequence[type[Task]], dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The settings of every part, called <kind>.<setting>, and how their losses are weighed.

    Raises DatasetError where a part cannot be taught, or no case says anything of one.
    """
    decisions: dict[str, Decision] = {}
    for kind in kinds:
        referenced = {case.id for case in fingerprint.cases if kind.needs <= set(case.references)}
        if not referenced:
            problem = f"no training case has references of the kind {', '.join(sorted(kind.needs))}"
            where = str(dataset.root or dataset.name)
            raise DatasetError(problem, where, f"Leave {kind.name} out of --task, or add its labels")
        of_part = kind.settings_for(dataset, fingerprint.only(referenced))
        by_sampling = task_from(kind, {key: decision.value for key, decision in of_part.items()}).under("natural")
        of_part |= {
            key.removeprefix("task."): decision for key, decision in by_sampling.items() if key.startswith("task.")
        }
        decisions |= {f"{kind.name}{DOT}{key}": decision for key, decision in of_part.items()}
    return {"weighting": _weighting(kinds, fingerprint), "loss_weights": _weights(kinds), **decisions}


def _weighting(kinds: Sequence[type[Task]], fingerprint: Fingerprint) -> Decision:
    counts = {kind.name: sum(kind.needs <= set(case.references) for case in fingerprint.cases) for kind in kinds}
    cases = ", ".join(f"{name} is known of {count}" for name, count in counts.items())
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
    common: dict[str, Decision] = {}
    for decisions in each.values():
        for key, decision in decisions.items():
            common[key] = _more_careful(key, common[key], decision) if key in common else decision
    if not all(COARSEST in decisions for decisions in each.values()):
        common.pop(COARSEST, None)
    chosen, primary = each[first]["network.name"], each[first]["evaluation.primary"]
    others = ", ".join(f"{own['evaluation.primary'].value} of {name}" for name, own in each.items() if name != first)
    selected = " and ".join(f"{own['training.selection'].value} of {name}" for name, own in each.items())
    return common | {
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
