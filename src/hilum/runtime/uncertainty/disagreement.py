"""The uncertainty within several views and between them, of a batch and of a case that streams by.

For NumPy arrays and for tensors alike, so that what ONNX computes is what is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from hilum.evaluation import uncertainty
from hilum.files.storage.spool import Spool
from hilum.lazy import torch
from hilum.tasks import Task, properties
from hilum.tasks.shared.averages import BETWEEN, WITHIN
from hilum.values import Array, Geometry, Map, Prediction, Region

T = TypeVar("T")

# p log p of less is 0, as it is in the limit; log odds beyond are certain in float32.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), 60.0


@dataclass(frozen=True)
class Disagreement:
    """Adds `<head>:within` and `<head>:between` to the outputs of several views: networks, mirrors, draws of weights.

    Of probabilities these are the mean entropy of the views and the mutual information of view and answer, in nats,
    (batch, 1, ...); together they are the entropy of the mean (Depeweg et al., arXiv:1710.07283). Of values the mean
    variance and the variance of the means, (batch, values).
    kinds:    {head: "classes" of which one is right, "labels" each of which is there or not, "objects", whose first
              outputs are such labels, or "values"}
    counts:   {head: how many values, after which come as many logarithms of their variances, or labels of objects}
    measured: {head: outputs to the number whose variance is stated, or to log odds, where outputs are neither}
    """

    kinds: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    @classmethod
    def from_task(cls, task: Task) -> Disagreement | None:
        """The disagreement of a task's heads; None of a task that states no uncertainty."""
        by_part = {name: cls._of_one(part) for name, part in properties.leaf_tasks(task).items()}
        return by_part[""] if "" in by_part else cls._join(by_part)

    @classmethod
    def _of_one(cls, task: Task) -> Disagreement | None:
        """The disagreement of a task that is made of no others."""
        if not task.uncertainty:
            return None
        plain = {"classes": "labels", "boxes": "objects"}.get(task.uncertainty, task.uncertainty)
        kinds = {head: "classes" if head in task.probability_heads else plain for head in task.heads}
        counts = dict.fromkeys(kinds, len(task.labels))
        measured = {} if task.uncertain_quantity is None else dict.fromkeys(kinds, task.uncertain_quantity)
        return cls(kinds, counts, measured)

    @classmethod
    def _join(cls, parts: Mapping[str, Disagreement | None]) -> Disagreement | None:
        """The disagreement of the heads of several tasks."""
        parts_with_views = {name: part for name, part in parts.items() if part is not None}

        def named(field_of: Callable[[Disagreement], Mapping[str, T]]) -> dict[str, T]:
            fields = {name: field_of(part) for name, part in parts_with_views.items()}
            return {
                properties.full_head_name(name, head): value
                for name, own in fields.items()
                for head, value in own.items()
            }

        if not parts_with_views:
            return None
        return cls(named(lambda one: one.kinds), named(lambda one: one.counts), named(lambda one: one.measured))

    def __call__(self, views: Sequence[Mapping[str, Any]], shares: Sequence[float] | None = None) -> dict[str, Any]:
        """{name: array} of {head: (batch, channels, ...)} of each view; shares: how much each counts, together 1."""
        counted = [1 / len(views)] * len(views) if shares is None else shares
        maps = dict[str, Any]()
        for head, kind in self.kinds.items():
            measured = self.measured.get(head)
            outputs = [view[head] if measured is None else measured(view[head]) for view in views]
            if kind == "values":
                both = _of_values(outputs, counted, self.counts[head] if measured is None else 1)
            elif kind == "objects":
                both = _of_chances([one[:, : self.counts[head]] for one in outputs], counted, "labels")
            else:
                both = _of_chances(outputs, counted, kind)
            maps |= dict(zip((f"{head}{WITHIN}", f"{head}{BETWEEN}"), both, strict=True))
        return maps

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that state uncertainty."""
        return tuple(self.kinds)


def _of_values(outputs: Sequence[Any], shares: Sequence[float], count: int) -> tuple[Any, Any]:
    means = [one[:, :count] for one in outputs]
    middle = sum(share * one for share, one in zip(shares, means, strict=True))
    between = sum(share * (one - middle) ** 2 for share, one in zip(shares, means, strict=True))
    if outputs[0].shape[1] == count:  # without error bars nothing is known within a view
        return 0 * between, between
    variances = [_library(one).exp(one[:, count : 2 * count]) for one in outputs]
    within = sum(share * one for share, one in zip(shares, variances, strict=True))
    return within, between


def _of_chances(outputs: Sequence[Any], shares: Sequence[float], kind: str) -> tuple[Any, Any]:
    within: Any = 0.0
    middle: Any = 0.0
    if not outputs[0].shape[2:]:  # all views of a vector at once, where voxels would lie: few and small steps
        library, like = _library(outputs[0]), outputs[0]
        likely = output_probabilities(library.stack(outputs, -1), kind)
        counted = library.asarray(shares, dtype=like.dtype, device=like.device)
        within, middle = _entropy(likely, kind) @ counted, likely @ counted
    else:  # one after the other, so that one view alone is held
        for share, output in zip(shares, outputs, strict=True):
            likely = output_probabilities(output, kind)
            within, middle = within + share * _entropy(likely, kind), middle + share * likely
    return within, (_entropy(middle, kind) - within).clip(0)


def output_probabilities(outputs: Any, kind: str) -> Any:
    """(batch, channels, ...) probabilities of outputs."""
    library = _library(outputs)
    if kind != "classes":
        return 1 / (1 + library.exp(-outputs.clip(-LARGEST, LARGEST)))
    powers = library.exp(outputs - library.amax(outputs, 1)[:, None])
    return powers / powers.sum(1)[:, None]


def _entropy(likely: Any, kind: str) -> Any:
    """(batch, 1, ...) nats."""
    sides = (likely,) if kind == "classes" else (likely, 1 - likely)
    return -sum((side * _library(side).log(side.clip(SMALLEST))).sum(1)[:, None] for side in sides)


def _library(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else torch


TOTAL, EPISTEMIC = "total", "epistemic"
# Less than this many nats in all views is certainty: nothing of it can be theirs.
CERTAIN = 1e-12


# Of what probabilities state an entropy: of boxes each states its own, and values have variances.
ENTROPIES = ("classes", "labels", "objects")


def uncertainty_receiver(task: Task, geometry: Geometry, *, maps: bool, parts: bool) -> Uncertainty | PartUncertainties:
    """The receiver of a task, or one a part of a task that is made of tasks; arguments as in `Uncertainty`."""
    by_part = {
        name: (part, Uncertainty(part, geometry, maps=maps, parts=parts))
        for name, part in properties.leaf_tasks(task).items()
    }
    return by_part[""][1] if "" in by_part else PartUncertainties(by_part)


class PartUncertainties:
    """Receivers of the probabilities of a task that is made of tasks.

    each: {part: its task, and its receiver}
    """

    def __init__(self, each: Mapping[str, tuple[Task, Uncertainty]]) -> None:
        self._each = each

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        for name, (part, receiver) in self._each.items():
            receiver(region, properties.own_outputs(name, part, arrays))

    def add_to(self, prediction: Prediction) -> Prediction:
        """The prediction whose parts have their uncertainty each, and the maps."""
        stated_parts = {name: own.add_to(prediction.parts[name]) for name, (_, own) in self._each.items()}
        return replace(
            prediction,
            parts={**prediction.parts, **stated_parts},
            maps=properties.joined_maps(prediction.maps, stated_parts),
        )


class Uncertainty:
    """A receiver of a case's probabilities that states their entropy, in nats, and the part that views disagree about.

    That part is the share of the mutual information in the views' whole entropy, because calibration and prior shift
    come after the views: without both it is the mutual information itself.
    maps:  whether that of each voxel is kept, as float32
    parts: whether views are heeded
    What no part covers is certain to be background. Values state their variances when they are decoded.
    """

    def __init__(self, task: Task, geometry: Geometry, *, maps: bool = False, parts: bool = True) -> None:
        dense = [name for name, head in task.heads.items() if head.is_dense]
        self._head, self._is_dense = next(iter([*dense, *task.heads]), ""), bool(dense)
        self._kind, self._geometry, self._maps = task.uncertainty, geometry, maps and bool(dense)
        self._heeds, self._parts, self._sums = parts, 0, dict[str, float]()
        self._spools: dict[str, Spool] = {}

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        if self._head not in arrays or (self._kind not in ENTROPIES and not self._maps):
            return
        probabilities = arrays[self._head]
        # A single channel is whether something is there.
        maps = {
            TOTAL: uncertainty.entropy(
                probabilities, exclusive=self._kind in ("", "classes") and len(probabilities) > 1
            )
        }
        if self._heeds and f"{self._head}{BETWEEN}" in arrays:
            within, between = (np.asarray(arrays[f"{self._head}{name}"])[0] for name in (WITHIN, BETWEEN))
            maps[EPISTEMIC] = maps[TOTAL] * (between / np.maximum(within + between, CERTAIN))
        self._parts += 1
        for name, part in maps.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(np.sum(part, dtype=np.float64))
            if self._maps:
                self._spools.setdefault(name, Spool(self._geometry.shape, np.dtype(np.float32)))[region] = part

    def add_to(self, prediction: Prediction) -> Prediction:
        """The prediction with the mean over all voxels, or that of the answer for the whole image, and the maps."""
        maps = {**prediction.maps, **{name: Map(spool.data, "nats") for name, spool in self._spools.items()}}
        if self._kind not in ENTROPIES or not self._sums:
            return replace(prediction, maps=maps)
        count = math.prod(self._geometry.shape) if self._is_dense else self._parts
        total = self._sums[TOTAL] / count
        confidence = replace(prediction.confidence, total=total)
        if EPISTEMIC in self._sums:
            epistemic = self._sums[EPISTEMIC] / count
            confidence = replace(confidence, epistemic=epistemic, aleatoric=total - epistemic)
        return replace(prediction, maps=maps, confidence=confidence)
