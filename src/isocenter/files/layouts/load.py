"""Functions that read a case's parts when they are asked for; they survive pickling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, FormatError, GeometryError
from isocenter.files import picture, tiff
from isocenter.files.format import ReadOptions
from isocenter.files.index import format_of, read_volumes
from isocenter.values import Array, Image, Label


def given(value: Any) -> Any:
    """A value that is known without reading."""
    return value


def load_image(path: Path, options: ReadOptions, modality: str | None = None) -> Image:
    """The one volume of a file; its modality as declared, where the file does not say."""
    image = _only(path, options)
    return replace(image, modality=modality) if modality and image.modality == "unknown" else image


def load_frame(path: Path, frame: int, frames: int, options: ReadOptions, modality: str | None = None) -> Image:
    """One frame of a 4D file whose frames are declared to be channels."""
    image = load_image(path, options, modality)
    if image.frames != frames:
        raise DatasetError(
            f"holds {image.frames or 1} volumes where {frames} channels are declared",
            str(path),
            "Correct the modality entry of dataset.json",
        )
    region = (slice(None), slice(frame, frame + 1), *(slice(None),) * image.geometry.ndim)
    return replace(image, pixels=np.asarray(image.pixels[region])[:, 0], times=None)


def load_mask(paths: tuple[Path, ...], labels: tuple[Label, ...], options: ReadOptions) -> Image:
    """A label map of integers; several masks of one image are joined: a pixel in any of them is in.

    Values 0 and 255 are 0 and 1 unless 255 is declared as a label.
    Raises FormatError for values that are no labels, GeometryError for masks on different grids.
    """
    declared = frozenset(label.value for label in labels)
    masks = [_label_map(path, declared, options) for path in paths]
    first = masks[0]
    pixels = first.data
    if len(masks) > 1 and any(mask.data.max() > 1 for mask in masks):
        raise FormatError("several masks of one image with numbers above 1", str(paths[0]), "Make it one label map")
    for path, mask in zip(paths[1:], masks[1:], strict=True):
        if not mask.geometry.equals(first.geometry):
            raise GeometryError(f"does not lie on the grid of {paths[0].name}", str(path), "Draw both on one grid")
        pixels = np.maximum(pixels, mask.data)
    return replace(first, pixels=pixels, labels=labels or first.labels)


def _label_map(path: Path, declared: frozenset[int], options: ReadOptions) -> Image:
    image = _indices(path) or _only(path, options)
    pixels = as_labels(_one_channel(image, path), declared, path)
    return replace(image, pixels=pixels, channels=("label",), padding=None, facts={})


def as_labels(pixels: Array, declared: frozenset[int], path: Path) -> Array:
    """Whole numbers in the smallest type that holds them; {0, 255} as {0, 1} where 255 is not declared."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all() or not np.array_equal(pixels, np.rint(pixels)):
            raise FormatError("holds values between whole numbers, so it is no mask", str(path), "Save whole numbers")
    elif pixels.dtype.kind not in "bui":
        raise FormatError(f"holds {pixels.dtype} values, so it is no mask", str(path), "Save whole numbers")
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0:
        raise FormatError(f"holds the label {low}", str(path), "Number labels from 0 (background) upwards")
    whole = pixels.astype(np.min_scalar_type(high))
    if high != 255 or 255 in declared:
        return whole
    values = set(np.unique(whole).tolist())
    if values <= {0, 255}:
        return (whole > 0).astype(np.uint8)
    if pixels.dtype == np.uint8 and 254 not in values:  # dense numbers are a count of things that ends at 255
        raise FormatError(
            f"holds 255 beside {', '.join(str(v) for v in sorted(values - {0, 255})[:4])}: a label, or 'ignore'?",
            str(path),
            "Say what the values mean with --labels 1=NAME,...,255=NAME",
        )
    return whole


def _indices(path: Path) -> Image | None:
    """The label map in a picture with a palette; None for all other files."""
    readers = {"picture": picture.read_indices, "tiff": tiff.read_indices}
    reader = readers.get(format_of(path) or "")
    return reader(path) if reader else None


def _one_channel(image: Image, path: Path) -> Array:
    data = image.data
    colours = data[:3] if len(data) in (3, 4) else data[:1]
    if image.facts.get("lossy") and len(np.unique(colours)) > 2:
        raise FormatError("a mask blurred by JPEG compression", str(path), "Save masks as PNG")
    if not (colours == colours[:1]).all() or len(data) > 4:
        raise FormatError("a mask in colours", str(path), "Save label numbers in one channel")
    return colours[:1]


def _only(path: Path, options: ReadOptions) -> Image:
    volumes: Mapping[str, Image] = read_volumes(path, options)
    if len(volumes) != 1:
        raise FormatError(
            f"holds {len(volumes)} volumes on different grids where one is expected",
            str(path),
            "Save them as one file each",
        )
    return next(iter(volumes.values()))
