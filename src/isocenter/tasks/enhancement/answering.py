"""The answers of an enhancement: outputs for every voxel to an image in the unit of its source.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from isocenter.files.storage import spool
from isocenter.files.storage.spool import Spool
from isocenter.tasks.shared import averages
from isocenter.tasks.shared.averages import Shares
from isocenter.tasks.task import Task
from isocenter.values import (
    Array,
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

HEAD = "image"
# The map of a result, which ends the name of its file, and what `Prediction.values` has of it.
ENHANCED, CHANGE = "enhanced", "change"


class ImageAnswering(Task):
    """The answers of an enhancement; the fields are those of `Enhancement`."""

    channels: tuple[str, ...]
    unit: Literal["input", "target"]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    own_maps: ClassVar[tuple[str, ...]] = (ENHANCED,)

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
        """Memory of the image that is made."""
        return 4 * len(self.channels)

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
        """The image as a map; zeros where no slab is."""
        held = [Spool(geometry.shape, np.dtype(np.float32)) for _ in self.channels]
        for region, arrays in slabs:
            image = self._in_unit(np.asarray(arrays[HEAD], dtype=np.float32)[: len(held)])
            for channel_spool, channel in zip(held, image, strict=True):
                channel_spool[region] = channel
        several = len(held) > 1
        data: Array | Deferred = spool.stack_spools(held, np.dtype(np.float32)) if several else held[0].data
        return Prediction(geometry, maps={ENHANCED: Map(data, names=self.channels if several else ())})

    def _in_unit(self, image: Floats) -> Floats:
        """(channels, ...) outputs in the unit of the source, or of the training targets."""
        return (
            image if self.unit == "input" else image * self._each(self.deviation, image) + self._each(self.mean, image)
        )

    def _each(self, numbers: Mapping[str, float], image: Array) -> Floats:
        """(channels, 1, ...) of these numbers."""
        each = np.array([numbers[name] for name in self.channels], dtype=np.float32)
        return each.reshape(-1, *[1] * (image.ndim - 1))

    def with_image(self, prediction: Prediction, image: Image, *, refined: bool = True) -> Prediction:
        """The result with the unit of its source, and by how much the image has changed."""
        if ENHANCED not in prediction.maps:
            return prediction
        made = prediction.maps[ENHANCED]
        unit = str(image.facts.get("unit", "")) if self.unit == "input" else ""
        change = root_mean_square(made.data, image) if self.unit == "input" else math.nan
        maps = {**prediction.maps, ENHANCED: replace(made, unit=unit)}
        return replace(prediction, maps=maps, values={**(prediction.values or {}), CHANGE: change})

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """By how much the image has changed: root of the mean square, in the unit of the source."""
        change = (prediction.values or {}).get(CHANGE, math.nan)
        return {CHANGE: None if math.isnan(change) else change}

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """None: an image is no finding."""
        return []


def root_mean_square(data: Array | Deferred, image: Image) -> float:
    """Root of the mean squared difference of a map from its image, where both are numbers; NaN where none are.

    data: (*spatial) or (channels, *spatial), read part by part
    """
    total, count, read = 0.0, 0, image.reader()
    for region, part in voxel_images.blocks_along_last_axis(data):
        made = part if part.ndim > image.geometry.ndim else part[None]
        given = np.asarray(read((slice(0, len(made)), *region[-image.geometry.ndim :])), dtype=np.float32)
        difference = made[: len(given)] - given
        known = np.isfinite(difference) & image.is_measured(given)
        total += float(np.square(difference, where=known, out=np.zeros_like(difference), dtype=np.float64).sum())
        count += int(known.sum())
    return math.sqrt(total / count) if count else math.nan


def enhanced_image(prediction: Prediction) -> Floats:
    """(channels, *spatial) the image of a result."""
    data = np.asarray(prediction.maps[ENHANCED].data, dtype=np.float32)
    return data if data.ndim > prediction.geometry.ndim else data[None]
