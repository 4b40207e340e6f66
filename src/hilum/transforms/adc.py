"""The apparent diffusion coefficient of water, from images at several b-values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hilum.errors import GeometryError
from hilum.values import Array, Floats, Image
from hilum.values.voxel_images import OF_CHANNELS

# Facts that hold of the signals alone: a window of theirs would show the coefficients black.
OF_SIGNALS = ("b_values", "gradient_directions", "window", "lowest_is_white", "rescale_type", OF_CHANNELS)


def apparent_diffusion(image: Image, where: str) -> Image:
    """(1, *spatial) in mm²/s: the slope of ln S = ln S0 - b ADC, by least squares; NaN where a signal is not above 0.

    Each signal weighs by its square, because the noise of its logarithm is as its inverse: Salvador et al., Hum Brain
    Mapp 2005, doi:10.1002/hbm.20076. Directions of one b-value are averaged by the fit itself.
    Raises GeometryError without frames at two known b-values (s/mm²) at least.
    """
    b = _b_values(image, where)
    read = image.reader()
    shape = image.geometry.shape
    coefficients = np.empty(shape, dtype=np.float32)
    for slice_number in range(shape[-1]):  # a slice at a time: all frames of a volume are large
        region = (*(slice(0, size) for size in shape[:-1]), slice(slice_number, slice_number + 1))
        part = read((slice(0, 1), slice(None), *region))
        coefficients[region] = _fit_decay(np.where(image.is_measured(part), part, np.nan)[0].astype(np.float64), b)
    facts = {name: value for name, value in image.facts.items() if name not in OF_SIGNALS}
    return replace(
        image,
        pixels=coefficients[None],
        channels=("ADC",),
        times=None,
        padding=None,
        facts={**facts, "unit": "mm2/s"},
        notes=(*image.notes, f"ADC fitted to b-values {', '.join(f'{one:g}' for one in sorted(set(b.tolist())))}"),
    )


def _fit_decay(signal: Array, b: Floats) -> Floats:
    """(frames, ...) signals to (...) coefficients."""
    is_positive = np.all(signal > 0, axis=0)
    positive = np.where(is_positive, signal, 1.0)
    weight = positive**2
    y = np.log(positive)
    b = b.reshape(-1, *[1] * (signal.ndim - 1))
    total = weight.sum(axis=0)
    middle = (weight * b).sum(axis=0) / total
    mean = (weight * y).sum(axis=0) / total
    slope = (weight * (b - middle) * (y - mean)).sum(axis=0) / (weight * (b - middle) ** 2).sum(axis=0)
    return np.where(is_positive, -slope, np.nan)


def _b_values(image: Image, where: str) -> Floats:
    values = image.facts.get("b_values")
    remedy = (
        "Give a diffusion series: DICOM states the b-value of each frame in its header, a NIfTI needs a .bval file of "
        "the same name in its folder"
    )
    if image.frames is None:
        raise GeometryError("it is one image, not frames at several b-values", where, remedy)
    if values is None or None in values or len(values) != image.frames:
        raise GeometryError("its frames have no known b-values", where, remedy)
    b = np.asarray(values, dtype=np.float64)
    if len(np.unique(b)) < 2:
        raise GeometryError(f"all frames have b = {b[0]:g}", where, "An ADC needs two b-values at least")
    return b
