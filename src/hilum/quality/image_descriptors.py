"""Measurements of an image in a few numbers: a small copy of it, descriptors that compare cases, and intensities.

Intensities of a channel are of all voxels, or of those that a label map names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum.quality import _intensities, _small_marks, image_quality
from hilum.quality._intensities import Intensities
from hilum.transforms import COLOUR, channel_stack, label_maps, orient, resampling
from hilum.transforms.channel_stack import GREY
from hilum.values import Array, CaseFacts, CaseReference, Deferred, Floats, Image, slabs
from hilum.values.table_cells import PlainCell

if TYPE_CHECKING:
    from hilum.quality.mask_placement import MaskPlacement

# Voxels a side of the small image, by number of axes: 2 and 8 kB a case, as half precision shows a twin too.
SMALL_SIDE = {1: 64, 2: 32, 3: 16}
# Hexadecimal digits of a digest, and axes of a volume.
DIGEST, VOLUME = 32, 3


@dataclass(frozen=True, eq=False)
class ImageLook:
    """One case as it looks.

    digest:    of the voxels, whatever the file's format: equal for equal images
    small:     (*spatial) of the first channel (a colour picture's luma) in canonical order, stretched to a few voxels
             a side in half precision, between 0 and 1 at the 0.5th and 99.5th percentile
    quality:   measures of each channel, as in `picture.quality`
    patches:   of a picture, as of `small_marks.patches`; None of other images, of cases without an answer, and where
             enough others are known
    placement: how its mask lies on it, as of `mask_placement`; None without a mask that has a surface
    """

    digest: str
    small: Floats
    quality: tuple[Mapping[str, float], ...]
    patches: Array | None = None
    placement: MaskPlacement | None = None


def describe_image(
    image: Image, valid: Array, measured: Sequence[Intensities] = (), *, marks: bool = True
) -> ImageLook:
    """image: with its voxels read. A clip is seen by its middle frame.

    valid:    where they are measurements; measured: what was measured of each channel, if it was
    marks:    whether small marks in it could give an answer away: patches take as long as all else
    """
    if image.frames is not None:
        middle = image.frames // 2
        return replace(describe_image(image.frame(middle), valid[:, middle], marks=marks), digest=voxel_digest(image))
    grey = channel_stack.match_colours(image, GREY) if channel_stack.without_alpha(image.channels) == COLOUR else image
    channels = grey.data if grey is image else grey.data[:1]
    known: Array = valid if grey is image else np.logical_and.reduce(valid[:3], keepdims=True)
    if grey is not image or not measured:
        measured = [_intensities.measure_intensities(*channel) for channel in zip(channels, known, strict=True)]
    measures = tuple(
        image_quality.measure_quality(*channel, image.geometry.steps)
        for channel in zip(channels, known, measured, strict=True)
    )
    turn, shown = image.geometry.to_canonical, _Window.from_intensities(measured[0])
    small = orient.permute_axes(small_image(channels[0], known[0], shown)[None], *turn)[0]
    patched = None
    if marks and small.ndim == 2:
        patched = _small_marks.patch_contrast(
            shown.scale(*(orient.permute_axes(array[:1], *turn)[0] for array in (channels, known)))
        )
    return ImageLook(voxel_digest(image), small, measures, patched)


def voxel_digest(image: Image) -> str:
    """A digest of the voxels, whatever the file's format; a grey picture in colours is the same picture."""
    data = image.data[: len(channel_stack.without_alpha(image.channels))]
    if channel_stack.without_alpha(image.channels) == COLOUR and (data[:1] == data).all():
        data = data[:1]
    turned = [
        orient.permute_axes(frame[None], *image.geometry.to_canonical)[0]
        for channel in data
        for frame in (channel if image.frames is not None else (channel,))
    ]
    total = hashlib.sha256(repr((len(turned), *turned[0].shape)).encode())
    # Slices of a volume follow each other, as they do in most files.
    order = (2, 1, 0) if turned[0].ndim == VOLUME else tuple(range(turned[0].ndim))
    for one in turned:
        for _, (part,) in slabs.memory_slabs(one, order=order):
            numbers = _common_numbers(part)
            total.update(numbers.dtype.char.encode())
            total.update(numbers.data)
    return total.hexdigest()[:DIGEST]


def _common_numbers(part: Array) -> Array:
    """Whole numbers of 16 bits as such, whatever type holds them, and all else as float32."""
    if part.dtype.kind in "bui" and (part.dtype.itemsize == 1 or np.can_cast(part.dtype, np.int16)):
        return np.ascontiguousarray(part, dtype="<i2")
    single = np.ascontiguousarray(part, dtype="<f4")
    with np.errstate(invalid="ignore"):  # what is no whole number differs from what becomes of it
        whole = single.astype("<i2")
    return whole if (whole == single).all() else single


@dataclass(frozen=True)
class _Window:
    """The intensities that become 0 and 1."""

    low: float
    high: float

    @classmethod
    def from_intensities(cls, measured: Intensities) -> _Window:
        """The 0.5th and 99.5th percentile."""
        low, high = measured.window
        if low == high:  # nearly all is background: the little that is not is the image
            low, high = measured.statistics["min"], measured.statistics["max"]
        return cls(low, high)

    def scale(self, values: Array, valid: Array) -> Floats:
        """Values in this window; what is no measurement is 0."""
        known = values if slabs.is_true_everywhere(valid) else np.where(valid, values, self.low)
        return (known.astype(np.float32) - self.low) / max(self.high - self.low, 1e-12)


def small_image(values: Array, valid: Array, window: _Window) -> Floats:
    """(*spatial) of a channel, stretched to a few voxels a side, slab by slab, in half precision."""
    order = slabs.memory_order(values)
    first, *others = (resampling.resampling_matrix(values.shape[axis], SMALL_SIDE[values.ndim]) for axis in order)
    small = np.zeros((len(first),) * values.ndim, dtype=np.float32)
    for planes, parts in slabs.memory_slabs(values, valid):
        part = window.scale(*parts).clip(0, 1)
        for axis in reversed(range(1, values.ndim)):
            part = np.moveaxis(np.moveaxis(part, axis, -1) @ others[axis - 1].T, -1, axis)
        small += np.tensordot(first[:, planes], part, axes=1)
    return small.transpose(np.argsort(order)).astype(np.float16)


# Means of the small image over so many parts a side: how bright what lies where.
PARTS = 4


def describe_cases(facts: Sequence[CaseFacts], looks: Sequence[ImageLook]) -> Floats:
    """(cases, numbers) intensities, sharpness and noise, size and spacing, and the small image in a few parts.

    Of cases with unlike channels or axes what all of them have; NaN becomes the column's median.
    """
    channels = min(len(one.intensity) for one in facts)
    measured = min(len(one.quality) for one in looks)
    axes = {len(one.shape) for one in facts}
    columns: list[list[float]] = []
    for fact, look in zip(facts, looks, strict=True):
        row = [float(own[name]) for own in fact.intensity[:channels] for name in sorted(own)]
        row += [float(own[name]) for own in look.quality[:measured] for name in sorted(own)]
        row.append(fact.content)
        if len(axes) == 1:
            row += [*np.log(np.maximum([*fact.shape, *fact.steps], 1e-6)).tolist(), *_parts(look.small).tolist()]
        columns.append(row)
    shortest = min(len(row) for row in columns)
    rows = np.array([row[:shortest] for row in columns], dtype=np.float64)
    for column in rows.T:
        is_finite = np.isfinite(column)
        column[~is_finite] = np.median(column[is_finite]) if is_finite.any() else 0.0
    return rows


def _parts(small: Floats) -> Floats:
    """Means over a few parts a side."""
    image = np.asarray(small, dtype=np.float64)
    for axis in range(image.ndim):
        image = np.stack([part.mean(axis=axis) for part in np.array_split(image, PARTS, axis=axis)], axis=axis)
    return image.ravel()


# Of an image's voxels so many say how bright it is.
SAMPLE = 65536


# What an image is: its modality, its size and its scanner, by name.
ImageFacts = Mapping[str, PlainCell]


def image_facts(image: Image) -> ImageFacts:
    """Modality, size, voxel size, field of view, and where its voxels are in memory their mean and deviation."""
    grid, sizes = image.geometry, sorted(image.geometry.shape)
    facts: dict[str, PlainCell] = {"modality": image.modality, "longest side": sizes[-1], "shortest side": sizes[0]}
    if grid.spacing is not None:
        facts |= {"smallest spacing": min(grid.spacing), "largest spacing": max(grid.spacing)}
        facts["field of view"] = max(np.multiply(grid.shape, grid.spacing).tolist())
    if image.frames is not None:
        facts["frames"] = image.frames
    if not isinstance(image.pixels, Deferred):
        voxels = image.pixels.reshape(-1)
        some = voxels[:: 1 + voxels.size // SAMPLE]
        measured = some[image.is_measured(some)].astype(np.float64)
        if measured.size:
            facts |= {
                "mean intensity": float(measured.mean()),
                "standard deviation of intensities": float(measured.std()),
            }
    return facts


def structure_intensities(reference: CaseReference) -> tuple[Mapping[str, float], ...]:
    """Per channel the intensities inside the structures; nothing where one holds no measurement."""
    structures = structure_labels(reference.value)
    box = label_maps.box_of_content(structures)
    inside = structures[box] != 0
    parts = [
        (channel[box], known[box] & inside)
        for channel, known in zip(reference.image.data, reference.valid, strict=True)
    ]
    if not all(known.any() for _, known in parts):
        return ()
    return tuple(_intensities.measure_intensities(*part).statistics for part in parts)


def structure_labels(mask: Image) -> Array:
    """(*spatial) label values of the structures only: 0 also where nobody looked, or a value names the background."""
    data = mask.data[0]
    others = [label.value for label in mask.labels if label.value and (label.is_ignored or label.is_background)]
    return cast("Array", np.where(np.isin(data, others), data.dtype.type(0), data) if others else data)
