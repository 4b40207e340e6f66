"""Multi-task: a task made of tasks, each with heads of its own on one backbone.

Caruana, Machine Learning 1997, doi:10.1023/A:1007379606734. Every part is a kind of problem as it is by itself; here
stands only what becomes of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from isocenter.errors import DatasetError, PlanError
from isocenter.evaluation import Seed, Table
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure
from isocenter.tasks.answers import Decoding, Scoring, Teaching, Traits, rows_in, sides_of
from isocenter.tasks.multitask.plan import SELECTED, agreed, check_settings, check_together, settings_for
from isocenter.tasks.multitask.slabs import at_once, kept_apart, mean, together
from isocenter.tasks.multitask.table import of_part, with_part
from isocenter.tasks.shared import Shares
from isocenter.values import (
    KNOWN,
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Prediction,
    Row,
    Several,
    Slabs,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.tasks.answers import Outputs
    from isocenter.tasks.task import Task

# Between a part and its head, which a network's layers are called by: no dot may stand in such a name.
HEAD, SETTING, SIGN = "_", ".", "+"
# Of the logarithms of variances: a loss counts at most e^5 times, and at least 1 / e^5 times, as much as it is.
LARGEST_LOG = 5.0


@dataclass(frozen=True)
class Joined:
    """Kinds of problem that are taught together: what stands for the class of a kind."""

    kinds: tuple[type[Task], ...]

    @classmethod
    def of_kinds(cls, kinds: Sequence[type[Task]]) -> Joined:
        """PlanError where one is named twice."""
        found = tuple(sorted(kinds, key=lambda kind: kind.name))
        if len({kind.name for kind in found}) < len(found) or len(found) < 2:
            named = SIGN.join(kind.name for kind in found)
            raise PlanError(f"{named} is no set of different kinds", "task.name", "Name each kind once")
        return cls(found)

    @property
    def name(self) -> str:
        return SIGN.join(kind.name for kind in self.kinds)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(kind.needs for kind in self.kinds))

    @property
    def traits(self) -> Traits:
        return joined_traits(self.kinds)

    def settings_for(self, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        return settings_for(self.kinds, dataset, fingerprint)

    def of(self, settings: Mapping[str, Any]) -> Multitask:
        joined = Multitask.of(settings, self.kinds)
        check_together(joined.parts)
        return joined


@dataclass(frozen=True)
class Multitask:
    """Several tasks on one backbone.

    parts:        {kind: task}, those with an output for every voxel first
    weighting:    "uncertainty" learns how much each loss counts with the weights, "fixed" keeps `loss_weights`
    loss_weights: {kind: by what its loss is multiplied}
    """

    parts: Mapping[str, Task]
    weighting: Literal["uncertainty", "fixed"] = "uncertainty"
    loss_weights: Mapping[str, float] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], kinds: Sequence[type[Task]]) -> Multitask:
        """kinds: of the parts, whose settings are called <kind>.<setting>"""
        own: dict[str, dict[str, Any]] = {kind.name: {} for kind in kinds}
        rest: dict[str, Any] = {}
        for key, value in settings.items():
            part, _, name = key.partition(SETTING)
            (own[part] if name and part in own else rest)[name if name and part in own else key] = value
        check_settings(rest, list(own))
        made = {kind.name: _made(kind, own[kind.name]) for kind in kinds}
        given = rest.get("loss_weights")
        weights = None if given is None else {str(name): float(value) for name, value in given.items()}
        ordered = dict(sorted(made.items(), key=lambda item: (not _is_dense(item[1]), item[0])))
        return cls(ordered, rest.get("weighting", "uncertainty"), weights)

    @property
    def name(self) -> str:
        return SIGN.join(sorted(self.parts))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(part.needs for part in self.parts.values()))

    @property
    def traits(self) -> Traits:
        return joined_traits(list(self.parts.values()))

    @property
    def settings(self) -> dict[str, Any]:
        own = {
            f"{name}{SETTING}{key}": value for name, part in self.parts.items() for key, value in part.settings.items()
        }
        weights = None if self.loss_weights is None else dict(self.loss_weights)
        return {"weighting": self.weighting, "loss_weights": weights, **own}

    @property
    def heads(self) -> Mapping[str, Head]:
        return {f"{name}{HEAD}{key}": head for name, part in self.parts.items() for key, head in part.heads.items()}

    @property
    def labels(self) -> tuple[Label, ...]:
        """Those of the first part: of the label map, where there is one."""
        return self._first.labels

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """Of all parts, one after the other; None where one of them must not be mirrored."""
        order: list[int] = []
        for part in self.parts.values():
            if part.decoding.mirrored is None:
                return None
            order += [len(order) + place for place in part.decoding.mirrored]
        return tuple(order)

    @property
    def teaching(self) -> Teaching:
        return Teaching(
            selects_by=SELECTED,
            quality=self.quality,
            selection=self.selection,
            target_settings={name: dict(part.teaching.target_settings) for name, part in self.parts.items()},
            terms={"log_variance": [0.0] * len(self.parts)} if self.weighting == "uncertainty" else {},
            uncut="; ".join(filter(None, (part.teaching.uncut for part in self.parts.values()))),
        )

    @property
    def decoding(self) -> Decoding:
        return Decoding(
            merge=self._first.decoding.merge,
            mirrored=self.mirrored,
            average=self.average,
            probabilities=self.probabilities,
            decode=self.decode,
            outputs=self.outputs,
            averaged=tuple(f"{name}{HEAD}{key}" for name, part in self.parts.items() for key in part.decoding.averaged),
            sides={
                f"{name}{HEAD}{key}": own for name, part in self.parts.items() for key, own in sides_of(part).items()
            },
            parts=self.parts,
        )

    @property
    def scoring(self) -> Scoring:
        return Scoring(
            metrics=frozenset().union(*(part.scoring.metrics for part in self.parts.values())),
            score=self.score,
            summary=self.summary,
            rank=self.rank,
            figures=self.figures,
            overview=self.overview,
            results=self.results,
        )

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return agreed({name: part.decisions(fingerprint) for name, part in self.parts.items()})

    def under(self, sampling: str) -> dict[str, Decision]:
        """Of each part its own; PlanError for cases that are drawn otherwise than they come."""
        if sampling != "natural":
            problem = f"classes of one part cannot be drawn {sampling} without changing what the others see"
            raise PlanError(problem, "training.sampling", "Give natural")
        return {
            _of_part(name, key): decision
            for name, part in self.parts.items()
            for key, decision in part.under(sampling).items()
            if key.startswith("task.")
        }

    def target(self, case: Case) -> Target:
        """{part: its target}, of the parts that the case has references of; DatasetError where it has none."""
        made = {name: part.target(case) for name, part in self._known(case).items()}
        if not made:
            problem = f"has no reference of the kind {', '.join(sorted(self.needs))}"
            raise DatasetError(problem, case.id, "Give one of them, or leave the case out")
        heads: Any = {name: target.head for name, target in made.items()}
        return Target(Several(heads), made)

    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """The weighed sum of the parts' losses, each of the samples of which it is known.

        With learnt variances exp(-s) loss + s / 2 for each part, s being the logarithm: Kendall et al., CVPR 2018,
        arXiv:1705.07115. A part that no sample of the batch is known of adds nothing, lest its variance vanish.
        """
        losses = []
        for place, (name, part) in enumerate(self.parts.items()):
            own = self._own(name, outputs)
            if not own or name not in target:
                continue
            known = target[KNOWN][:, list(target).index(name)]
            if not bool(known.any()):
                continue
            cost = part.loss({key: one[known] for key, one in own.items()}, target[name][known])
            losses.append(self._weighed(cost, name, place, outputs))
        if not losses:
            return torch.stack([one.float().sum() for one in outputs.values()]).sum() * 0.0
        return torch.stack(losses).sum()

    def _weighed(self, cost: Tensor, name: str, place: int, outputs: Outputs) -> Tensor:
        cost = cost * (self.loss_weights or {}).get(name, 1.0)
        if self.weighting == "fixed":
            return cost
        log = outputs["log_variance"][place].clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.exp(-log) * cost + log / 2

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """Of the parts that this is an output of, and that the case is known of."""
        return {
            f"{name}{SETTING}{key}": value
            for name, part in self.parts.items()
            if name in target and (own := self._own(name, outputs))
            for key, value in part.teaching.quality(own, target[name]).items()
        }

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The mean of the metrics by which the parts are selected; of those that no case is known of nothing."""
        found = []
        for name, part in self.parts.items():
            own = {key.removeprefix(f"{name}{SETTING}"): one for key, one in collected.items() if _is_of(key, name)}
            if own:
                found.append(part.teaching.selection(own))
        known = [one for one in found if not np.isnan(one)]
        return float(np.mean(known)) if known else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        def mean_of_part(name: str, part: Task) -> Mapping[str, Array]:
            return part.decoding.average([self._own(name, one) for one in outputs], shares)

        return self._each(outputs[0], mean_of_part)

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return self._each(arrays, lambda name, part: part.decoding.probabilities(self._own(name, arrays)))

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Every part decodes its own; all that have an output for every voxel see each slab once, as it comes."""
        dense = {name: part for name, part in self.parts.items() if _is_dense(part)}
        whole: list[Mapping[str, Array]] = []

        def decoder(name: str, part: Task) -> Callable[[Slabs], Prediction]:
            return lambda stream: part.decoding.decode(self._of_stream(name, stream), geometry)

        found = at_once(kept_apart(slabs, whole), [decoder(name, part) for name, part in dense.items()])
        said = dict(zip(dense, found, strict=True))
        for name, part in self.parts.items():
            if name not in dense:
                said[name] = part.decoding.decode([((), mean([self._own(name, one) for one in whole]))], geometry)
        return together(geometry, {name: said[name] for name in self.parts})

    def _of_stream(self, name: str, stream: Slabs) -> Slabs:
        return ((region, self._own(name, arrays)) for region, arrays in stream)

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """Each part by the cases that it is known of."""
        parts, made = dict(self.parts), dict[str, Decision]()
        for name, part in self.parts.items():
            pairs = [
                (one.parts[name], case)
                for one, case in zip(predictions, cases, strict=True)
                if part.needs <= set(case.references)
            ]
            if pairs:
                parts[name], decided = part.tuned([one for one, _ in pairs], [case for _, case in pairs])
                made |= {_of_part(name, key): decision for key, decision in decided.items()}
        return cast("Task", replace(self, parts=parts)), made

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """The rows of all parts, of the cases that each is known of; its name stands before its labels and columns."""
        tables = [
            with_part(name, part.scoring.score([prediction.parts[name]], [case]))
            for prediction, case in zip(predictions, cases, strict=True)
            for name, part in self._known(case).items()
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame([])

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """The estimates of each part, called by it."""
        return [
            replace(row, label=f"{name}: {row.label}")
            for name, part in self.parts.items()
            if len(own := of_part(name, table))
            for row in part.scoring.summary(own, seed=seed)
        ]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        return [one for name, part in self.parts.items() for one in part.scoring.figures(prediction.parts[name], case)]

    def overview(self, table: Table) -> list[Figure]:
        return [
            replace(one, title=f"{name}: {one.title}")
            for name, part in self.parts.items()
            if len(own := of_part(name, table))
            for one in part.scoring.overview(own)
        ]

    def rank(self, table: Table) -> list[str]:
        """By the mean of the places that a case has among those of each part, as a share of them."""
        places: dict[str, list[float]] = {}
        for name, part in self.parts.items():
            ranked = part.scoring.rank(own) if len(own := of_part(name, table)) else []
            for place, case in enumerate(ranked):
                places.setdefault(case, []).append((place + 0.5) / len(ranked))
        return sorted(places, key=lambda case: float(np.mean(places[case])))

    def outputs(self, prediction: Prediction) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """The columns of all parts beside each other; where one has several rows, the others' stand in each of them."""
        each = {name: rows_in(part.decoding.outputs(prediction.parts[name])) for name, part in self.parts.items()}
        columns = [column for rows in each.values() for column in dict.fromkeys(key for row in rows for key in row)]
        rows: list[dict[str, Any]] = [{}]
        for name, own in each.items():
            called = [{_apart(key, name, columns): value for key, value in row.items()} for row in own]
            rows = [{**before, **row} for before in rows for row in called]
        return rows[0] if len(rows) == 1 else rows

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) what all answers rest on: the sum of what explains each."""
        return torch.stack([part.saliency(self._own(name, outputs)) for name, part in self.parts.items()]).sum(dim=0)

    def results(self, prediction: Prediction) -> list[Finding]:
        return [one for name, part in self.parts.items() for one in part.scoring.results(prediction.parts[name])]

    @property
    def _first(self) -> Task:
        return next(iter(self.parts.values()))

    def _known(self, case: Case) -> dict[str, Task]:
        """The parts that a case has references of."""
        return {name: part for name, part in self.parts.items() if part.needs <= set(case.references)}

    def _own(self, name: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """{head: output} of a part; of a slab without its heads nothing."""
        heads = {f"{name}{HEAD}{key}": key for key in self.parts[name].heads}
        return {key: outputs[whole] for whole, key in heads.items() if whole in outputs}

    def _each(self, arrays: Mapping[str, Any], made: Callable[[str, Task], Mapping[str, Array]]) -> dict[str, Array]:
        """What is made of each part that these are outputs of, under the heads' whole names."""
        return {
            f"{name}{HEAD}{key}": one
            for name, part in self.parts.items()
            if self._own(name, arrays)
            for key, one in made(name, part).items()
        }


def _made(kind: type[Task], settings: Mapping[str, Any]) -> Task:
    """The part; PlanError names its setting as the plan does."""
    try:
        return kind.of(settings)
    except PlanError as error:
        if not error.where.startswith("task"):
            raise
        where = f"task.{kind.name}{error.where.removeprefix('task')}"
        raise PlanError(error.problem, where, error.remedy) from error


def _of_part(name: str, decision: str) -> str:
    """task.loss as task.<part>.loss"""
    return f"task.{name}{SETTING}{decision.removeprefix('task.')}"


def _is_of(key: str, name: str) -> bool:
    return key.startswith(f"{name}{SETTING}")


def _is_dense(part: Task) -> bool:
    return any(head.is_dense for head in part.heads.values())


def _apart(column: str, name: str, columns: Sequence[str]) -> str:
    """A column that several parts have is called by its part."""
    return f"{name}_{column}" if columns.count(column) > 1 else column


def joined_traits(kinds: Sequence[type[Task] | Task]) -> Traits:
    """Those of the parts, under the names that their settings have here; a case may lack references of some parts."""
    own = {kind.name: kind.traits for kind in kinds}
    return Traits(
        tunes=tuple(f"{name}{SETTING}{key}" for name, one in own.items() for key in one.tunes),
        tuned_on=next(iter(own.values())).tuned_on,
        registers={
            f"{name}{SETTING}{key}": f"{words} of {name}"
            for name, one in own.items()
            for key, words in one.registers.items()
        },
        alternatives=tuple(kind.needs for kind in kinds),
        search_values={
            f"{name}{SETTING}{key}": values for name, one in own.items() for key, values in one.search_values.items()
        },
    )
