"""From an image as it was read to what a network sees, and back onto the image's own grid.

Permute to canonical order, crop, resample, normalise, pad: all along the axes, so that every step has an exact
inverse on the grid and a result can go back slab by slab.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import DatasetError, GeometryError, PlanError, counted
from isocenter.runtime.trace import Trace
from isocenter.transforms import (
    Normalisation,
    Order,
    Taps,
    along,
    content,
    padding,
    permuted,
    recoloured,
    resample,
    resample_labels,
    taps,
)
from isocenter.values import Array, Geometry, Image, Region, Slabs


@dataclass(frozen=True)
class Preprocessing:
    """The settings of the path from file to network: the plan's section "preprocessing".

    ndim:     2 or 3; a volume with a single slice is a picture to a two-dimensional network
    channels: what the network expects, by name and order; the images are checked against it
    spacing:  mm between voxels on the network's grid; None keeps the image's own
    shape:    fixed number of voxels on the network's grid; None lets it follow from the spacing
    aspect:   how an image of other proportions gets that shape: it is stretched, its longer side is cropped about the
              middle, or its shorter one padded
    crop:     "content" cuts away the constant border
    border:   share of each axis that is cut away at either end, after the crop
    smallest: the padded shape is at least this
    order:    interpolation of intensities
    """

    ndim: int
    channels: tuple[str, ...]
    normalisation: tuple[Normalisation, ...]
    spacing: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    crop: Literal["none", "content"] = "none"
    order: Order = "linear"
    smallest: tuple[int, ...] = ()
    modality: str = "unknown"
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    border: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """From the plan's section or a model's record."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
        }
        try:
            values["normalisation"] = tuple(Normalisation(**one) for one in settings["normalisation"])
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise PlanError(f"impossible settings: {error}", "preprocessing", "Plan anew, or correct it") from error

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], Trace]:
        """(channels, *padded) as the network sees it, and the way back.

        Raises DatasetError for other channels than the network knows, GeometryError for a grid that cannot be used.
        """
        image = recoloured(image, self.channels)
        self._check(image, where)
        image = image.with_pixels(image.data)  # read once: `valid` looks at the voxels too
        data, valid = image.data, image.valid
        geometry, squeezed = image.geometry, self._squeezed(image.geometry, where)
        if squeezed is not None:
            data, valid = data.squeeze(squeezed + 1), valid.squeeze(squeezed + 1)
        axes, flips = self._canonical(geometry, squeezed)
        data, valid = permuted(data, axes, flips), permuted(valid, axes, flips)
        steps = tuple(np.delete(geometry.steps, [] if squeezed is None else squeezed)[list(axes)].tolist())
        region = self._region(data, valid)
        data, valid = data[(slice(None), *region)], valid[(slice(None), *region)]
        shape = self._target(data.shape[1:], steps)
        pad = tuple(padding(shape, self.smallest or self.shape or shape))
        # Each channel all the way before the next: only what the network sees is held of more than one.
        channels = [
            _padded(resample(normalisation.apply(channel, measured)[None], shape, self.order), pad)
            for normalisation, channel, measured in zip(self.normalisation, data, valid, strict=True)
        ]
        steps = tuple(step * old / new for step, old, new in zip(steps, data.shape[1:], shape, strict=True))
        trace = Trace(geometry, squeezed, axes, flips, region, shape, pad, steps)
        seen = channels[0] if len(channels) == 1 else np.concatenate(channels)
        return np.ascontiguousarray(seen, dtype=np.float32), trace

    def labels(self, labels: Array, trace: Trace) -> Array:
        """(*spatial) label map on the source grid, taken the same way; padded with 0."""
        if trace.squeezed is not None:
            labels = labels.squeeze(trace.squeezed)
        moved = permuted(labels[None], trace.axes, trace.flips)[0][trace.crop]
        return np.pad(resample_labels(np.ascontiguousarray(moved), trace.shape), trace.pad)

    def restored(self, slabs: Slabs, trace: Trace) -> Iterator[tuple[Region, Mapping[str, Array]]]:
        """Finished parts of the network's grid, in order of its first axis, as parts of the source's own grid.

        Arrays without spatial axes (a vector head) pass through. Only the rows that a coming slab still needs are held.
        """
        return (
            (trace.region(part), {name: trace.unpermuted(array) for name, array in arrays.items()})
            if part
            else (part, arrays)
            for part, arrays in _resampled(_unpadded(slabs, trace), trace)
        )

    def _check(self, image: Image, where: str) -> None:
        if len(image.channels) != len(self.channels):
            raise DatasetError(
                f"has {counted(len(image.channels), 'channel')} ({', '.join(image.channels)}), the model expects "
                f"{len(self.channels)} ({', '.join(self.channels)})",
                where,
                "Give all images of a case: a folder with CASE_0000, CASE_0001, ..., or a table with "
                f"--column image:{self.channels[0]}=COLUMN,..."
                if len(self.channels) > len(image.channels)
                else "Give the images that the model was trained on, in that order",
            )
        # _0000 and _0001 say which channel of the model a file is, as nnU-Net has it; names have to be the same names.
        numbered = image.channels == tuple(str(n) for n in range(len(self.channels)))
        if len(self.channels) > 1 and not numbered and image.channels != self.channels:
            raise DatasetError(
                f"channels {', '.join(image.channels)} are not the model's {', '.join(self.channels)}",
                where,
                "Name and order the images as in training",
            )
        if image.frames is not None:
            raise GeometryError(
                f"has {image.frames} frames on a fourth axis", where, "Give one volume (volume=..., one file a frame)"
            )
        if self.spacing is not None and image.spacing is None:
            raise GeometryError(
                f"has no size in mm, and the model works at {self.spacing} mm", where, "Give a file with its spacing"
            )

    def _squeezed(self, geometry: Geometry, where: str) -> int | None:
        if geometry.ndim == self.ndim:
            return None
        single = [axis for axis, size in enumerate(geometry.shape) if size == 1]
        if self.ndim == 2 and geometry.ndim == 3 and single:
            return single[-1]
        raise GeometryError(
            f"has {geometry.ndim} axes of {geometry.shape} voxels, the model works in {self.ndim} dimensions",
            where,
            "Give images of the kind that the model was trained on",
        )

    def _canonical(self, geometry: Geometry, squeezed: int | None) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        axes, flips = geometry.to_canonical
        if squeezed is None:
            return axes, flips
        kept = [(axis - (axis > squeezed), flip) for axis, flip in zip(axes, flips, strict=True) if axis != squeezed]
        return tuple(axis for axis, _ in kept), tuple(flip for _, flip in kept)

    def _region(self, data: Array, valid: NDArray[np.bool_]) -> Region:
        """What is kept of the canonical grid: the content, without its border, in the proportions of the shape."""
        region = tuple(slice(0, size) for size in data.shape[1:])
        if self.crop == "content":
            above = [_above_lowest(channel, measured) for channel, measured in zip(data, valid, strict=True)]
            region = content(np.any(above, axis=0))
        sizes = [part.stop - part.start for part in region]
        region = _middle(region, [size - 2 * int(self.border * size) for size in sizes])
        if self.shape is None or self.aspect != "crop":
            return region
        sizes = [part.stop - part.start for part in region]
        factor = min(size / whole for size, whole in zip(sizes, self.shape, strict=True))
        return _middle(region, [max(1, round(factor * whole)) for whole in self.shape])

    def _target(self, shape: tuple[int, ...], steps: tuple[float, ...]) -> tuple[int, ...]:
        """Voxels an axis after resampling."""
        if self.shape is not None and self.aspect == "pad":
            factor = max(size / whole for size, whole in zip(shape, self.shape, strict=True))
            return tuple(
                min(whole, max(1, round(size / factor))) for size, whole in zip(shape, self.shape, strict=True)
            )
        if self.shape is not None:
            return self.shape
        if self.spacing is None:
            return shape
        return tuple(max(1, round(size * old / new)) for size, old, new in zip(shape, steps, self.spacing, strict=True))


def _middle(region: Region, sizes: Sequence[int]) -> Region:
    """As many voxels of a region, about its middle."""
    starts = [part.start + (part.stop - part.start - size) // 2 for part, size in zip(region, sizes, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _padded(channel: Array, pad: Sequence[tuple[int, int]]) -> Array:
    """(1, *spatial) continued beyond its edges."""
    return np.pad(channel, ((0, 0), *pad), mode="edge") if np.any(pad) else channel


def _above_lowest(channel: Array, measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where there is more than the lowest measurement of the channel."""
    return measured & (channel > channel[measured].min()) if measured.any() else measured


def _unpadded(slabs: Slabs, trace: Trace) -> Slabs:
    """Rows of the padded grid without the padding, counted from the first real row."""
    before, size = trace.pad[0][0], trace.shape[0]
    inner = tuple(slice(low, low + n) for (low, _), n in zip(trace.pad[1:], trace.shape[1:], strict=True))
    for region, arrays in slabs:
        if not region:
            yield region, arrays
            continue
        start, stop = max(region[0].start - before, 0), min(region[0].stop - before, size)
        if start < stop:
            rows = slice(start + before - region[0].start, stop + before - region[0].start)
            kept = {name: array[(slice(None), rows, *inner)] for name, array in arrays.items()}
            yield (slice(start, stop), *(slice(0, n) for n in trace.shape[1:])), kept


def _resampled(slabs: Slabs, trace: Trace) -> Slabs:
    """Rows on the network's grid to rows on the cropped canonical grid, holding only what coming rows still need."""
    shape = tuple(part.stop - part.start for part in trace.crop)
    whole = tuple(slice(0, n) for n in shape[1:])
    step = taps(trace.shape[0], shape[0])
    last_needed = step.index.max(axis=1)
    held: dict[str, Array] = {}
    first_held = done = 0
    for region, arrays in slabs:
        if not region:
            yield region, arrays
            continue
        for name, array in arrays.items():
            plane = np.asarray(array, dtype=np.float32)
            for axis, n in enumerate(shape[1:]):
                if plane.shape[axis + 2] != n:
                    plane = along(plane, axis + 2, taps(plane.shape[axis + 2], n))
            held[name] = np.concatenate([held[name], plane], axis=1) if name in held else plane
        ready = int(np.searchsorted(last_needed, region[0].stop - 1, side="right"))
        if ready > done:
            part = step.part(slice(done, ready))
            part = Taps(part.index - first_held, part.weight)
            yield (slice(done, ready), *whole), {name: along(array, 1, part) for name, array in held.items()}
            done = ready
        if done < shape[0]:
            needed = int(step.index[done].min())
            held = {name: array[:, needed - first_held :] for name, array in held.items()}
            first_held = needed
