"""Multi-task: a task made of tasks, each with heads of its own on one backbone.

Caruana, Machine Learning 1997, doi:10.1023/A:1007379606734. Every part is a kind of problem as it is by itself; this
file has only what follows from their sharing a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from isocenter.errors import DatasetError, PlanError
from isocenter.evaluation import Metrics
from isocenter.lazy import torch
from isocenter.tasks.answers import Decoding, Scoring, Teaching, Traits
from isocenter.tasks.multitask.plan import (
    SELECTED,
    SIGN,
    LossWeighting,
    agreed,
    check_weights,
    joined_metrics,
    joined_traits,
)
from isocenter.tasks.multitask.scores import PartScoring
from isocenter.tasks.multitask.selection import quality, selection
from isocenter.tasks.multitask.slabs import dense_slabs, joined_prediction, mean, read_by_each
from isocenter.tasks.properties import head_of, own_outputs, rows_in, sides_of
from isocenter.tasks.settings import of_part
from isocenter.tasks.shared import Shares, place_of_target
from isocenter.values import (
    KNOWN,
    Array,
    Case,
    Decision,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Prediction,
    Several,
    Slabs,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.tasks.answers import Outputs
    from isocenter.tasks.task import Task

# Of the logarithms of variances: a loss counts at most e^5 times, and at least 1 / e^5 times, as much as it is.
LARGEST_LOG = 5.0


@dataclass(frozen=True)
class Multitask(LossWeighting):
    """Several tasks on one backbone.

    parts: {kind: task}
    """

    parts: Mapping[str, Task]

    def checked(self) -> Multitask:
        """With parts that have an output for every voxel first; PlanError for weights of other parts."""
        check_weights(self.loss_weights or {}, list(self.parts))
        ordered = dict(sorted(self.parts.items(), key=lambda item: (not _is_dense(item[1]), item[0])))
        return replace(self, parts=ordered)

    @property
    def name(self) -> str:
        """The names of the parts, joined with "+"."""
        return SIGN.join(sorted(self.parts))

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of reference that its parts need."""
        return frozenset().union(*(part.needs for part in self.parts.values()))

    @property
    def traits(self) -> Traits:
        """The traits of the parts."""
        return joined_traits(list(self.parts.values()))

    @property
    def metrics(self) -> Metrics:
        """The metrics of the parts."""
        return joined_metrics(self.parts.values())

    @property
    def heads(self) -> Mapping[str, Head]:
        """The heads of all parts, as <kind>_<head>."""
        return {head_of(name, key): head for name, part in self.parts.items() for key, head in part.heads.items()}

    @property
    def labels(self) -> tuple[Label, ...]:
        """Those of the first part: of the label map, where there is one."""
        return self._first.labels

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """The channels of all parts, one after the other; None where one of them must not be mirrored."""
        order: list[int] = []
        for part in self.parts.values():
            if part.decoding.mirrored is None:
                return None
            order += [len(order) + place for place in part.decoding.mirrored]
        return tuple(order)

    @property
    def teaching(self) -> Teaching:
        """The mean of the parts' metrics selects; with learnt weighting the loss has a variance for each part."""
        return Teaching(
            selects_by=SELECTED,
            quality=partial(quality, self.parts),
            selection=partial(selection, self.parts),
            terms={"log_variance": [0.0] * len(self.parts)} if self.weighting == "uncertainty" else {},
            uncut="; ".join(filter(None, (part.teaching.uncut for part in self.parts.values()))),
            fewest=lambda cases: max(part.teaching.fewest(cases) for part in self.parts.values()),
        )

    @property
    def decoding(self) -> Decoding:
        """Each part decodes its own heads."""
        parts = self.parts.values()
        return Decoding(
            merge=self._first.decoding.merge,
            mirrored=self.mirrored,
            average=self.average,
            probabilities=self.probabilities,
            decode=self.decode,
            outputs=self.outputs,
            averaged=tuple(head_of(name, key) for name, part in self.parts.items() for key in part.decoding.averaged),
            sides={head_of(name, key): own for name, part in self.parts.items() for key, own in sides_of(part).items()},
            parts=self.parts,
            bytes_per_voxel=max(filter(None, (part.decoding.bytes_per_voxel for part in parts)), default=None),
            targets=self._targets,
            crossed={
                head_of(name, key): folds
                for name, part in self.parts.items()
                for key, folds in part.decoding.crossed.items()
            },
            states_evidence=any(part.decoding.states_evidence for part in self.parts.values()),
        )

    @property
    def scoring(self) -> Scoring:
        """Each part scores its own results."""
        scores = PartScoring(self.parts)
        return Scoring(
            primaries=frozenset().union(*(part.scoring.primaries for part in self.parts.values())),
            score=scores.score,
            summary=scores.summary,
            rank=scores.rank,
            figures=scores.figures,
            overview=scores.overview,
            results=scores.results,
            guess=scores.guess,
            tables=scores.tables,
            case_values=scores.case_values,
            own_labels=scores.own_labels,
            undrawn=scores.undrawn,
            probable_findings=scores.probable_findings,
        )

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
        known = {name: part for name, part in self.parts.items() if part.needs <= set(case.references)}
        if not known:
            problem = f"has no reference of the kind {', '.join(sorted(self.needs))}"
            raise DatasetError(problem, case.id, "Give one of them, or leave the case out")
        made = {name: part.target(case) for name, part in known.items()}
        heads: Any = {name: target.head for name, target in made.items()}
        return Target(Several(heads), made)

    def loss(self, outputs: Outputs, target: Any, spacing: Sequence[float] | None = None) -> Tensor:
        """The weighted sum of the parts' losses, each over the samples that have its reference.

        With learnt variances exp(-s) loss + s / 2 for each part, s being the logarithm: Kendall et al., CVPR 2018,
        arXiv:1705.07115. A part without a reference in the whole batch adds nothing, lest its variance vanish.
        """
        losses = []
        for place, (name, part) in enumerate(self.parts.items()):
            own = self._own(name, outputs)
            if not own or name not in target:
                continue
            known = target[KNOWN][:, list(target).index(name)]
            if not bool(known.any()):
                continue
            cost = part.loss({key: output[known] for key, output in own.items()}, target[name][known], spacing)
            losses.append(self._weighted(cost, name, place, outputs))
        if not losses:
            return torch.stack([output.float().sum() for output in outputs.values()]).sum() * 0.0
        return torch.stack(losses).sum()

    def _weighted(self, cost: Tensor, name: str, place: int, outputs: Outputs) -> Tensor:
        cost = cost * (self.loss_weights or {}).get(name, 1.0)
        if self.weighting == "fixed":
            return cost
        log = outputs["log_variance"][place].clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.exp(-log) * cost + log / 2

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """Each part's own average of its heads."""
        return self._each(
            outputs[0], lambda name, part: part.decoding.average([self._own(name, one) for one in outputs], shares)
        )

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Each part's own probabilities, under the heads' whole names."""
        return self._each(arrays, lambda name, part: part.decoding.probabilities(self._own(name, arrays)))

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Each part decodes its own; those with an output for every voxel read each slab once, as it comes."""
        dense = [name for name, part in self.parts.items() if _is_dense(part)]
        vectors: list[Mapping[str, Array]] = []
        decoders = [partial(self._decoded, name, geometry) for name in dense]
        maps = read_by_each(dense_slabs(slabs, vectors), decoders)
        made = dict(zip(dense, maps, strict=True))
        for name, part in self.parts.items():
            if name not in dense:
                own = mean([self._own(name, arrays) for arrays in vectors])
                made[name] = part.decoding.decode([((), own)], geometry)
        return joined_prediction(geometry, {name: made[name] for name in self.parts})

    def _decoded(self, name: str, geometry: Geometry, slabs: Slabs) -> Prediction:
        """A part's own result of slabs with the outputs of all parts."""
        own = ((region, self._own(name, arrays)) for region, arrays in slabs)
        return self.parts[name].decoding.decode(own, geometry)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """The columns of all parts side by side; of several rows each repeats the other parts' columns."""
        each = {name: rows_in(part.decoding.outputs(prediction.parts[name])) for name, part in self.parts.items()}
        columns = [column for rows in each.values() for column in dict.fromkeys(key for row in rows for key in row)]
        rows: list[dict[str, Any]] = [{}]
        for name, own in each.items():
            renamed = [{_column(key, name, columns): value for key, value in row.items()} for row in own]
            rows = [{**before, **row} for before in rows for row in renamed]
        return rows[0] if len(rows) == 1 else rows

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the scalar of a part, as "part" or "part:target"; without one the sum over all parts."""
        if target is not None:
            name, _, own = self._targets[place_of_target(target, self._targets)].partition(":")
            return self.parts[name].saliency(self._own(name, outputs), own or None)
        return torch.stack([part.saliency(self._own(name, outputs)) for name, part in self.parts.items()]).sum(dim=0)

    @property
    def _targets(self) -> tuple[str, ...]:
        each = ((name, *(f"{name}:{own}" for own in part.decoding.targets)) for name, part in self.parts.items())
        return tuple(target for own in each for target in own)

    @property
    def _first(self) -> Task:
        return next(iter(self.parts.values()))

    def _own(self, name: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        return own_outputs(name, self.parts[name], outputs)

    def _each(self, arrays: Mapping[str, Any], made: Callable[[str, Task], Mapping[str, Array]]) -> dict[str, Array]:
        """The result of `made` for each part that these are outputs of, under the heads' whole names."""
        return {
            head_of(name, key): array
            for name, part in self.parts.items()
            if self._own(name, arrays)
            for key, array in made(name, part).items()
        }


def _is_dense(part: Task) -> bool:
    return any(head.is_dense for head in part.heads.values())


def _column(key: str, name: str, columns: Sequence[str]) -> str:
    """A column that several parts have is called by its part."""
    return f"{name}_{key}" if columns.count(key) > 1 else key
