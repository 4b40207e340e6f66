"""The uncertainty of a case's probabilities, made while they stream by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from isocenter.evaluation import entropy
from isocenter.files import Spool
from isocenter.tasks import BETWEEN, WITHIN, Task, joined_maps, leaves, own_outputs
from isocenter.values import Array, Geometry, Map, Prediction, Region

TOTAL, EPISTEMIC = "total", "epistemic"
# Less than this many nats in all views is certainty: nothing of it can be theirs.
CERTAIN = 1e-12


# Of what probabilities state an entropy: of boxes each states its own, and values have variances.
ENTROPIES = ("classes", "labels", "objects")


def uncertainty_of(task: Task, geometry: Geometry, *, maps: bool, parts: bool) -> Uncertainty | PartUncertainties:
    """The receiver of a task, or one a part of a task that is made of tasks; arguments as in `Uncertainty`."""
    each = {name: (part, Uncertainty(part, geometry, maps=maps, parts=parts)) for name, part in leaves(task).items()}
    return each[""][1] if "" in each else PartUncertainties(each)


class PartUncertainties:
    """Receivers of the probabilities of a task that is made of tasks.

    each: {part: its task, and its receiver}
    """

    def __init__(self, each: Mapping[str, tuple[Task, Uncertainty]]) -> None:
        self._each = each

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        for name, (part, own) in self._each.items():
            own(region, own_outputs(name, part, arrays))

    def stated(self, prediction: Prediction) -> Prediction:
        """The prediction whose parts have their uncertainty each, and the maps."""
        made = {name: own.stated(prediction.parts[name]) for name, (_, own) in self._each.items()}
        return replace(prediction, parts={**prediction.parts, **made}, maps=joined_maps(prediction.maps, made))


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
        given = arrays[self._head]
        # A single channel is whether something is there.
        made = {TOTAL: entropy(given, exclusive=self._kind in ("", "classes") and len(given) > 1)}
        if self._heeds and f"{self._head}{BETWEEN}" in arrays:
            within, between = (np.asarray(arrays[f"{self._head}{name}"])[0] for name in (WITHIN, BETWEEN))
            made[EPISTEMIC] = made[TOTAL] * (between / np.maximum(within + between, CERTAIN))
        self._parts += 1
        for name, part in made.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(np.sum(part, dtype=np.float64))
            if self._maps:
                self._spools.setdefault(name, Spool(self._geometry.shape, np.dtype(np.float32)))[region] = part

    def stated(self, prediction: Prediction) -> Prediction:
        """The prediction with the mean over all voxels, or that of the answer for the whole image, and the maps."""
        maps = {**prediction.maps, **{name: Map(spool.data, "nats") for name, spool in self._spools.items()}}
        if self._kind not in ENTROPIES or not self._sums:
            return replace(prediction, maps=maps)
        count = math.prod(self._geometry.shape) if self._is_dense else self._parts
        known: dict[str, Any] = {name: value / count for name, value in self._sums.items()}
        if EPISTEMIC in known:
            known["aleatoric"] = known[TOTAL] - known[EPISTEMIC]
        return replace(prediction, maps=maps, confidence=replace(prediction.confidence, **known))
