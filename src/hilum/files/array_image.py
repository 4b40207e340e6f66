"""An image of an array in memory, as Python gives it to a verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors, keywords
from hilum.errors import GeometryError, UsageError
from hilum.files import format_options, numpy_file
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.values import Geometry, Image, argument_kinds

MOST_AXES = 3


@dataclass(frozen=True)
class ArrayImageOptions:
    """Make an image of an array.

    array:       numbers along (rows, columns) of a picture, along the axes of a volume; a tensor or a picture of PIL
                 too. Bytes with a last axis of 3 or 4 are colours, as in a file, unless a size of each axis is stated
    spacing:     mm between voxel centres, one number an axis, or one for all; without it the size is not known
    affine:      index to RAS+ mm at voxel centres, as nibabel has it, in place of `spacing` and `orientation`
    orientation: directions in which the axes of a volume grow, such as RAS or LPS
    modality:    DICOM's word: CT, MR, DX, ...
    channels:    names of channels, which then are the first axis: (channels, *spatial)
    """

    array: Any
    _: KW_ONLY
    spacing: float | Sequence[float] | NDArray[Any] | None = None
    affine: Any = None
    orientation: str | None = None
    modality: str = UNKNOWN_MODALITY
    channels: Sequence[str] | None = None


@keywords.takes(ArrayImageOptions)
def image(options: ArrayImageOptions) -> Image:
    """Make an image of an array, which `predict`, `embed`, `explain`, `enhance`, `register` and `view` take.

    Raises UsageError for what is no array of numbers, or has another number of axes than `channels` and `spacing` say;
    GeometryError for an affine that is no grid.
    """
    format_options.refuse_no_orientation(options.orientation)
    pixels = _numbers(options.array)
    names = tuple(options.channels or ())
    notes = tuple[str, ...]()
    states_volume = options.affine is not None or _count(options.spacing) == pixels.ndim
    if options.channels is None and not states_volume and numpy_file.looks_coloured(pixels.dtype, pixels.shape):
        pixels = np.moveaxis(pixels, -1, 0)
        names = numpy_file.COLOUR_NAMES[: len(pixels)]
        notes = (numpy_file.COLOURED,)
    elif options.channels is None:
        pixels = pixels[np.newaxis]
    spatial = pixels.shape[1:]
    if not 1 <= len(spatial) <= MOST_AXES or 0 in pixels.shape:
        remedy = "Give (rows, columns) or a volume; with names of channels (channels, *spatial)"
        raise UsageError(f"has the shape {np.shape(options.array)}", "array", remedy)
    if options.channels is not None and len(options.channels) != len(pixels):
        problem = f"{len(options.channels)} names for {len(pixels)} along the first axis"
        raise UsageError(problem, "channels", "Give the array as (channels, *spatial): np.moveaxis(array, -1, 0)")
    geometry = _geometry(options, spatial)
    return Image(pixels, geometry, modality=options.modality, channels=names, notes=notes)


def _count(spacing: float | Sequence[float] | NDArray[Any] | None) -> int:
    return 0 if spacing is None else int(np.size(spacing))


def _numbers(array: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """The array as NumPy has it, of our own. UsageError for what holds no real numbers."""
    if hasattr(array, "GetSpacing"):  # SimpleITK and ITK: the array of an image has its axes the other way round
        problem = "is an image of ITK, whose array has its axes the other way round"
        remedy = "Give SimpleITK.GetArrayFromImage(image).transpose() with spacing=image.GetSpacing()"
        raise UsageError(problem, "array", remedy)
    try:
        numbers = np.array(array)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or that needs its gradient
        raise UsageError(
            f"is no array that NumPy can take over ({errors.describe_cause(error)})",
            "array",
            "Give an array of numbers; array.detach().cpu() of a tensor, image.get_fdata() of nibabel",
        ) from error
    if numbers.dtype == np.bool_:
        return numbers.astype(np.uint8)
    if not (np.issubdtype(numbers.dtype, np.integer) or np.issubdtype(numbers.dtype, np.floating)):
        problem = f"is {argument_kinds.name_of(array)}, which holds no real numbers"
        raise UsageError(problem, "array", "Give an array of numbers; image.get_fdata() of nibabel")
    return numbers


def _geometry(options: ArrayImageOptions, shape: tuple[int, ...]) -> Geometry:
    """The grid that the options state."""
    if options.affine is not None:
        if options.spacing is not None or options.orientation is not None:
            raise UsageError("is given with spacing or orientation, which it states", "affine", "Give one of them")
        try:
            return Geometry(shape, np.asarray(options.affine, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise GeometryError("is no matrix of numbers", "affine", "Give (4, 4) numbers of a volume") from error
        except GeometryError as error:
            raise error.stating(where="affine") from error
    if options.spacing is None:
        if options.orientation is not None:
            raise UsageError("is given without spacing", "orientation", "Give spacing too")
        return Geometry.of_pixels(shape)
    stated = np.atleast_1d(np.asarray(options.spacing, dtype=np.float64)).tolist()
    spacing = stated * len(shape) if isinstance(options.spacing, int | float) else stated
    if len(spacing) != len(shape) or not all(0 < step < np.inf for step in spacing):
        problem = f"{tuple(spacing)} for {len(shape)} axes"
        raise UsageError(problem, "spacing", "Give mm above 0 for each axis of the array, in its order")
    geometry = Geometry.of_spacing(shape, spacing)
    return geometry if options.orientation is None else geometry.along(options.orientation)
