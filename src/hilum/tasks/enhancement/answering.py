"""The answers of an enhancement: outputs for every voxel to an image in the unit of its source.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from hilum.belief import UnseenCases
from hilum.belief.error_bars import ErrorBarBelief
from hilum.files.storage import spool
from hilum.files.storage.spool import Spool
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Task
from hilum.transforms import random_draws
from hilum.values import (
    Array,
    Case,
    Deferred,
    Finding,
    Floats,
    Geometry,
    Image,
    Map,
    Measurements,
    Merge,
    Prediction,
    Slabs,
    voxel_images,
)
from hilum.values.table_cells import TableRow
from hilum.values.voxel_images import UNKNOWN_TARGET

HEAD = "image"
TARGET = "target"
# The maps of a result, which end the names of its files, and what `Prediction.values` has of it.
ENHANCED = "enhanced"
ERROR = "error"
CHANGE = "change"
# Beyond this logarithm a deviation is infinite in float32.
LARGEST_LOG = 80.0
# Voxels of a case by which error bars are judged.
JUDGED = 2**14


class ImageAnswering(Task):
    """The answers of an enhancement; the fields are those of `Enhancement`."""

    channels: tuple[str, ...]
    unit: Literal["input", "target"]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    error_bars: bool
    error_factor: float | None
    coverage: float
    own_maps: ClassVar[tuple[str, ...]] = (ENHANCED, ERROR)

    @property
    def merge(self) -> Merge:
        """Windows are merged by Gaussian weights."""
        return "gaussian"

    @property
    def channel_labels(self) -> tuple[()]:
        """None: no channel is a structure."""
        return ()

    @property
    def bytes_per_voxel(self) -> int:
        """Memory of the image that is made, and of its error bars."""
        return 4 * len(self.channels) * (1 + self.error_bars)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean image."""
        return {HEAD: averages.mean_output([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """No probabilities, but the image in deviations of the training targets, in which backends are compared."""
        image = np.asarray(arrays[HEAD], dtype=np.float32)
        count = len(self.channels)
        numbers = (
            image[:count]
            if self.unit == "target"
            else (image[:count] - self._each(self.mean, image)) / self._each(self.deviation, image)
        )
        return {HEAD: np.concatenate([numbers, image[count:]])}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """The image, and half the width of the error bar of each voxel, as maps; zeros where no slab is."""
        names = (ENHANCED, ERROR) if self.error_bars else (ENHANCED,)
        held = {name: [Spool(geometry.shape, np.dtype(np.float32)) for _ in self.channels] for name in names}
        total = 0.0
        count = 0
        for region, arrays in slabs:
            made = dict(zip(names, self._in_unit(np.asarray(arrays[HEAD], dtype=np.float32)), strict=False))
            for name, spools in held.items():
                for channel_spool, channel in zip(spools, made[name], strict=True):
                    channel_spool[region] = channel
            if self.error_bars:
                total = total + float(made[ERROR].sum(dtype=np.float64))
                count = count + made[ERROR].size
        maps = {name: Map(self._joined(spools), names=self._names) for name, spools in held.items()}
        return Prediction(geometry, maps=maps, values={ERROR: total / count} if count else None)

    @property
    def _names(self) -> tuple[str, ...]:
        return self.channels if len(self.channels) > 1 else ()

    def _joined(self, spools: Sequence[Spool]) -> Array | Deferred:
        return spool.stack_spools(spools, np.dtype(np.float32)) if len(spools) > 1 else spools[0].data

    def _in_unit(self, outputs: Floats) -> tuple[Floats, Floats]:
        """(channels, ...) the image and half the widths of its error bars, in the unit of the source or of targets."""
        image = outputs[: len(self.channels)]
        logs = outputs[len(self.channels) :]
        wide = (1.0 if self.error_factor is None else self.error_factor) * np.exp(
            np.clip(logs, -LARGEST_LOG, LARGEST_LOG)
        )
        if self.unit == "input":
            return image, wide
        deviation = self._each(self.deviation, image)
        return image * deviation + self._each(self.mean, image), wide * deviation if len(logs) else wide

    def _each(self, numbers: Mapping[str, float], image: Array) -> Floats:
        """(channels, 1, ...) of these numbers."""
        each = np.array([numbers[name] for name in self.channels], dtype=np.float32)
        return each.reshape(-1, *[1] * (image.ndim - 1))

    def with_image(self, prediction: Prediction, image: Image, *, refined: bool = True) -> Prediction:
        """The result with the unit of its source, and by how much the image has changed."""
        if ENHANCED not in prediction.maps:
            return prediction
        is_same = self.unit == "input"
        unit = str(image.facts.get("unit", "")) if is_same else ""
        change = root_mean_square(prediction.maps[ENHANCED].data, image) if is_same else math.nan
        maps = {
            name: replace(one, unit=unit, is_image=is_same and name == ENHANCED) if name in self.own_maps else one
            for name, one in prediction.maps.items()
        }
        return replace(prediction, maps=maps, values={CHANGE: change, **(prediction.values or {})})

    def outputs(self, prediction: Prediction) -> TableRow:
        """By how much the image has changed (root of the mean square), and its mean error bar, in its unit."""
        values = prediction.values or {}
        names = (CHANGE, ERROR) if self.error_bars else (CHANGE,)
        return {name: None if math.isnan(value := values.get(name, math.nan)) else value for name in names}

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """None: an image is no finding."""
        return []

    @property
    def answers(self) -> ErrorBarBelief | None:
        """Error bars, whose width cases that did not train decide."""
        return ErrorBarBelief(self.coverage, self.error_factor) if self.error_bars else None

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """The error of some voxels of each case, in deviations that the network states."""
        factor = 1.0 if self.error_factor is None else self.error_factor
        ratios = [factor * self._ratios(one, case) for one, case in zip(predictions, cases, strict=True)]
        return UnseenCases(ratios, None, np.array([case.patient for case in cases]))

    def _ratios(self, prediction: Prediction, case: Case) -> Floats:
        made, wide = (map_values(prediction, name) for name in (ENHANCED, ERROR))
        target = known_target(case)
        known = np.flatnonzero(np.isfinite(target))
        if known.size > JUDGED:
            known = random_draws.sample_generator(0, 0, known.size).choice(known, JUDGED, replace=False)
        error = np.abs(made.ravel()[known].astype(np.float64) - target.ravel()[known])
        return np.asarray(error / np.maximum(wide.ravel()[known], np.finfo(np.float32).tiny))


def known_target(case: Case) -> Floats:
    """(channels, *spatial) the target of a case, NaN where nothing was measured."""
    target: Image = case.references[TARGET]
    if UNKNOWN_TARGET in target.facts:
        return np.full(target.shape, np.nan, dtype=np.float32)
    return np.where(target.valid, target.data, np.nan).astype(np.float32)


def root_mean_square(data: Array | Deferred, image: Image) -> float:
    """Root of the mean squared difference of a map from its image, where both are numbers; NaN where none are.

    data: (*spatial) or (channels, *spatial), read part by part
    """
    total = 0.0
    count = 0
    read = image.reader()
    for region, part in voxel_images.walk_blocks(data):
        made = part if part.ndim > image.geometry.ndim else part[None]
        given = np.asarray(read((slice(0, len(made)), *region[-image.geometry.ndim :])), dtype=np.float32)
        difference = made[: len(given)] - given
        known = np.isfinite(difference) & image.is_measured(given)
        total += float(np.square(difference, where=known, out=np.zeros_like(difference), dtype=np.float64).sum())
        count += int(known.sum())
    return math.sqrt(total / count) if count else math.nan


def map_values(prediction: Prediction, name: str) -> Floats:
    """(channels, *spatial) a map of a result."""
    data = np.asarray(prediction.maps[name].data, dtype=np.float32)
    return data if data.ndim > prediction.geometry.ndim else data[None]


def enhanced_image(prediction: Prediction) -> Floats:
    """(channels, *spatial) the image of a result."""
    return map_values(prediction, ENHANCED)
