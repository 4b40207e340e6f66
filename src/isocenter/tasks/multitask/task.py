"""Multi-task: a task made of tasks, each with heads of its own on one backbone.

Caruana, Machine Learning 1997, doi:10.1023/A:1007379606734. Every part is a kind of problem as it is by itself; this
file has only what follows from their sharing a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from isocenter.errors import DatasetError, PlanError
from isocenter.evaluation import Metrics
from isocenter.lazy import torch
from isocenter.tasks.multitask.plan import (
    SELECTED,
    SIGN,
    LossWeighting,
    agreed,
    check_weights,
    joined_metrics,
    longest_tuning,
)
from isocenter.tasks.multitask.scores import PartScoring
from isocenter.tasks.multitask.selection import quality, selection
from isocenter.tasks.multitask.slabs import dense_slabs, joined_prediction, mean, read_by_each
from isocenter.tasks.properties import head_of, own_outputs, rows_in
from isocenter.tasks.settings import of_part
from isocenter.tasks.shared import Shares, place_of_target
from isocenter.values import (
    KNOWN,
    Array,
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Merge,
    Prediction,
    Several,
    Slabs,
    Split,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.tasks.task import Outputs, Task

# Of the logarithms of variances: a loss counts at most e^5 times, and at least 1 / e^5 times, as much as it is.
LARGEST_LOG = 5.0


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
        """With parts that have an output for every voxel first; PlanError for weights of other parts."""
        check_weights(self.loss_weights or {}, list(self.parts))
        ordered = dict(sorted(self.parts.items(), key=lambda item: (not _is_dense(item[1]), item[0])))
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
        """What each part needs: a case may lack references of a part."""
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
        """Those of the first part: of the label map, where there is one."""
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
        """With learnt weighting the loss has a variance for each part."""
        return {"log_variance": [0.0] * len(self.parts)} if self.weighting == "uncertainty" else {}

    @property
    def uncut(self) -> str:
        """The reasons of the parts."""
        return "; ".join(filter(None, (part.uncut for part in self.parts.values())))

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """The numbers of each part."""
        return quality(self.parts, outputs, target)

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The mean of the parts' metrics."""
        return selection(self.parts, collected)

    @property
    def merge(self) -> Merge:
        """Windows are merged as the first part has it."""
        return self._first.merge

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The heads of all parts whose probabilities are averaged."""
        return tuple(head_of(name, key) for name, part in self.parts.items() for key in part.probability_heads)

    @property
    def bytes_per_voxel(self) -> int | None:
        """Memory of the part that needs most."""
        return max(filter(None, (part.bytes_per_voxel for part in self.parts.values())), default=None)

    @property
    def crossed(self) -> Mapping[str, int]:
        """What sets and intervals of the parts go by."""
        return {head_of(name, key): folds for name, part in self.parts.items() for key, folds in part.crossed.items()}

    @property
    def states_evidence(self) -> bool:
        """Whether a part does."""
        return any(part.states_evidence for part in self.parts.values())

    @property
    def primaries(self) -> frozenset[str]:
        """Those of all parts."""
        return frozenset().union(*(part.primaries for part in self.parts.values()))

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The parts, and the targets of each, as "part:target"."""
        each = ((name, *(f"{name}:{own}" for own in part.saliency_targets)) for name, part in self.parts.items())
        return tuple(target for own in each for target in own)

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
            outputs[0], lambda name, part: part.average([self._own(name, one) for one in outputs], shares)
        )

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Each part's own probabilities, under the heads' whole names."""
        return self._each(arrays, lambda name, part: part.probabilities(self._own(name, arrays)))

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
                made[name] = part.decode([((), own)], geometry)
        return joined_prediction(geometry, {name: made[name] for name in self.parts})

    def _decoded(self, name: str, geometry: Geometry, slabs: Slabs) -> Prediction:
        """A part's own result of slabs with the outputs of all parts."""
        own = ((region, self._own(name, arrays)) for region, arrays in slabs)
        return self.parts[name].decode(own, geometry)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """The columns of all parts side by side; of several rows each repeats the other parts' columns."""
        each = {name: rows_in(part.outputs(prediction.parts[name])) for name, part in self.parts.items()}
        columns = [column for rows in each.values() for column in dict.fromkeys(key for row in rows for key in row)]
        rows: list[dict[str, Any]] = [{}]
        for name, own in each.items():
            renamed = [{_column(key, name, columns): value for key, value in row.items()} for row in own]
            rows = [{**before, **row} for before in rows for row in renamed]
        return rows[0] if len(rows) == 1 else rows

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the scalar of a part, as "part" or "part:target"; without one the sum over all parts."""
        if target is not None:
            name, _, own = self.saliency_targets[place_of_target(target, self.saliency_targets)].partition(":")
            return self.parts[name].saliency(self._own(name, outputs), own or None)
        return torch.stack([part.saliency(self._own(name, outputs)) for name, part in self.parts.items()]).sum(dim=0)

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
