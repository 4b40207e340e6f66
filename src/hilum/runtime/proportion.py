"""Images out of all proportion to those that trained a model, by their headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hilum.errors import DatasetError
from hilum.runtime.model_schema import ModelOrigin
from hilum.runtime.windows import slide
from hilum.values import Geometry, Image, Merge, Region
from hilum.values.dataset_fingerprint import FingerprintRecord

if TYPE_CHECKING:
    from hilum.runtime.inference import Inference
    from hilum.runtime.preprocessing.protocol import PreprocessingKind
    from hilum.tasks import Task

# An image with more than so many times the windows of the largest training image is refused; with fewer windows than
# MANY nobody waits for it. Issue reports of wrong headers have thousands of times (MIC-DKFZ/nnUNet 2522).
MOST_TIMES, MANY_WINDOWS = 20, 200
# The fewest windows that are too many where nobody knows what trained the model: a PET at 4 mm has as many at 1 mm.
MANY_UNKNOWN = 1000
# A spacing this many times as large or small as in training is named as the likely cause.
UNLIKE_SPACING = 2.0


class WindowedModel(Protocol):
    """The parts of a model that decide how many windows an image takes, and how many are usual."""

    @property
    def task(self) -> Task:
        """The kind of problem."""

    @property
    def preprocessing(self) -> PreprocessingKind:
        """The preprocessing of images."""

    @property
    def inference(self) -> Inference:
        """The windows."""

    @property
    def record(self) -> ModelOrigin:
        """The record of the model's origin."""


@dataclass(frozen=True)
class Looking:
    """The way in which a model looks at images, as far as the number of windows follows from it.

    patch, overlap, merge: of the windows, as in `slide`
    """

    preprocessing: PreprocessingKind
    patch: tuple[int, ...]
    overlap: float
    merge: Merge = "gaussian"

    @classmethod
    def from_model(cls, model: WindowedModel) -> Looking:
        """Return the windows of a model."""
        return cls(model.preprocessing, model.inference.patch, model.inference.overlap, model.task.merge)

    def prepared_shape(self, geometry: Geometry) -> tuple[int, ...]:
        """Voxels an axis of an image of this geometry as the network sees it."""
        held = self.preprocessing.held_parts(geometry).shape
        return prepared_shape(self.preprocessing, geometry, self.patch, held)

    def windows(self, geometry: Geometry, region: Region | None = None) -> int:
        """The number of windows that an image of this geometry takes; region: the only part that is predicted."""
        spatial = self.prepared_shape(geometry)
        if region is not None:
            spatial = shape_around(geometry, spatial, self.patch, region)
        return slide.window_count(spatial, self.patch, self.overlap, merge=self.merge)

    def windows_without_spacing(self, geometry: Geometry) -> int:
        """The number of windows that the voxels of an image would take as they are stored."""
        axes, _ = geometry.to_canonical
        sizes = sorted(geometry.shape[axis] for axis in axes)[-len(self.patch) :]
        return slide.window_count(sizes, sorted(self.patch), self.overlap, merge=self.merge)


def prepared_shape(
    preparing: PreprocessingKind, geometry: Geometry, patch: Sequence[int], shape_stated: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Voxels an axis as the network sees them: the whole grid, as if nothing were cut away.

    shape_stated: by the preprocessing; None where it follows from its settings
    """
    if preparing.shape is not None:
        return preparing.shape
    if shape_stated is not None:
        return tuple(max(size, least) for size, least in zip(shape_stated, patch, strict=True))
    if geometry.ndim < len(patch):
        return tuple(patch)  # an image of another kind, which the preprocessing refuses in its own words
    axes, _ = geometry.to_canonical
    sizes = [float(geometry.shape[axis]) for axis in axes]
    if preparing.spacing is not None and geometry.spacing is not None and len(preparing.spacing) == len(axes):
        steps = [geometry.spacing[axis] for axis in axes]
        sizes = [n * old / new for n, old, new in zip(sizes, steps, preparing.spacing, strict=True)]
    elif len(sizes) > len(patch):
        sizes = sorted(sizes)[-len(patch) :]  # a single slice: its own axis is left out
    return tuple(max(math.ceil(n / preparing.reduction), least) for n, least in zip(sizes, patch, strict=True))


def shape_around(geometry: Geometry, spatial: Sequence[int], patch: Sequence[int], region: Region) -> tuple[int, ...]:
    """Voxels an axis of the windows that touch a region: they reach beyond it by less than one on either side."""
    axes, _ = geometry.to_canonical
    if len(axes) != len(spatial):
        return tuple(spatial)
    shares = [(region[axis].stop - region[axis].start) / geometry.shape[axis] for axis in axes]
    return tuple(
        min(size, math.ceil(size * share) + 2 * window)
        for size, share, window in zip(spatial, shares, patch, strict=True)
    )


def refuse_out_of_proportion(model: WindowedModel, image: Image, where: str, region: Region | None = None) -> None:
    """Raise DatasetError, before anything is computed, for an image with far more windows than any that trained.

    A slide has a thousand times the pixels of any picture, and is none of these.
    region: of the image's grid, of which alone something is said
    Of a model whose training images are unknown the voxels as they are stored stand for these.
    """
    if image.is_slide:
        return
    looking, geometry = Looking.from_model(model), image.geometry
    count, largest = looking.windows(geometry, region), _largest(model)
    if count < MANY_WINDOWS or (not largest and count < MANY_UNKNOWN):
        return
    most = max([looking.windows(one) for one in largest] or [looking.windows_without_spacing(geometry)])
    if count > MOST_TIMES * most:
        usual = "the largest training image takes" if largest else "its voxels as they are stored take"
        problem = f"it would take {count:,} windows where {usual} {most:,}: {_cause(model, geometry)}"
        remedy = "Correct the header, crop the image or give --region; --allow-large predicts all of it"
        raise DatasetError(problem, where, remedy)


def disproportionate_cases(looking: Looking, cases: Mapping[str, Geometry], training: set[str]) -> dict[str, int]:
    """{case: windows} of the cases that take more than `MOST_TIMES` the windows of the largest that trains.

    A training case that is as much larger than the middle one is none of these.
    """
    counts = {name: looking.windows(geometry) for name, geometry in cases.items()}
    trained = [count for name, count in counts.items() if name in training]
    if not trained:
        return {}
    usual = MOST_TIMES * float(np.median(trained))
    most = max(MANY_WINDOWS - 1, MOST_TIMES * max((one for one in trained if one <= usual), default=1))
    return {name: count for name, count in counts.items() if count > most}


def _largest(model: WindowedModel) -> list[Geometry]:
    """The grid of the largest image that trained the model, of a mean of several one each; empty where unknown."""
    shapes = []
    for record in model.record.get("members") or [model.record]:
        images = record.get("fingerprint") or FingerprintRecord()
        if not (largest := images.get("largest")) or len(largest["shape"]) < len(model.inference.patch):
            return []
        shape, steps = [int(size) for size in largest["shape"]], largest["steps"]
        shapes.append(Geometry.of_spacing(shape, steps) if images.get("physical") else Geometry.of_pixels(shape))
    return shapes


def _cause(model: WindowedModel, geometry: Geometry) -> str:
    """The likely cause of so many windows, in words: a spacing that training did not have, or many voxels."""
    records = model.record.get("members") or [model.record]
    images = records[0].get("fingerprint") or FingerprintRecord()
    steps, spacing = geometry.canonical.spacing, _usual_spacing(model, images)
    if steps is not None and spacing is not None and len(spacing) == len(steps):
        ratios = np.divide(steps, spacing)
        if max(ratios.max(), 1 / ratios.min()) >= UNLIKE_SPACING:
            whose = "where training had" if images else "where the model works at"
            return f"spacing {_in_words(steps)} mm {whose} {_in_words(spacing)}, so that the header may be wrong"
    shape = images.get("shape")
    most = f" where training had up to {_in_words(shape['max'])}" if shape else ""
    return f"{_in_words(geometry.canonical.shape)} voxels{most}"


def _usual_spacing(model: WindowedModel, images: FingerprintRecord) -> Sequence[float] | None:
    """The middle spacing of the training images, else that of the model, along the axes of an upright image."""
    if images.get("physical") and (stated := images.get("spacing")):
        return stated["median"]
    spacing, order = model.preprocessing.spacing, model.preprocessing.order_of_axes
    if spacing is None or len(spacing) != len(order):
        return None
    return [spacing[order.index(axis)] for axis in range(len(order))]


def _in_words(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
