"""Distance of an image from its reference: PSNR, SSIM, NRMSE, coverage of error bars, and regions that were invented.

Every figure takes (*spatial) values in one unit and `measured`, the voxels that count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation.metric import Metric
from hilum.lazy import ndimage
from hilum.values import Array, Floats, Geometry
from hilum.values.grid_geometry import MM

# Wang et al., IEEE Trans Image Process 2004, doi:10.1109/TIP.2003.819861, section III.B and C.
K1 = 0.01
K2 = 0.03
DEVIATION = 1.5
HALF = 5
# A region is invented where it exceeds the reference by so many deviations of the noise of the input.
BEYOND = 3.0
# Voxels of which SSIM is computed at once.
SLAB = 2**23
# mm³
LITRE = 1e6
MILLION = 1e6
INPUT = "_input"
PER_LITRE = "invented_per_litre"
PER_MILLION = "invented_per_megapixel"
FIDELITY_METRICS = (
    Metric("psnr", "PSNR", unit="dB"),
    Metric("ssim", "SSIM"),
    Metric("nrmse", "NRMSE", "less"),
    Metric(PER_LITRE, "Invented regions per litre", "less", may_judge=False, joins_primary=True),
    Metric(PER_MILLION, "Invented regions per megapixel", "less", may_judge=False, joins_primary=True),
    Metric("coverage", "Coverage of the error bars", "aim", is_of_belief=True, may_judge=False),
    Metric("psnr_input", "PSNR of the input", unit="dB", may_judge=False),
    Metric("ssim_input", "SSIM of the input", may_judge=False),
    Metric("nrmse_input", "NRMSE of the input", "less", may_judge=False),
    Metric(PER_LITRE + INPUT, "Such regions of the input per litre", "less", may_judge=False, joins_primary=True),
    Metric(PER_MILLION + INPUT, "Such regions of the input per megapixel", "less", may_judge=False, joins_primary=True),
)

Mask = NDArray[np.bool_]


def fidelity_figures(
    result: Array, reference: Array, grid: Geometry, *, source: Array | None = None, error: Array | None = None
) -> dict[str, float]:
    """{metric: value} of a case, each the mean over its channels; those of the input end with `_input`.

    result, reference: (channels, *spatial) on the grid; where one of them is not finite nothing is known
    source: the input in the unit of the reference, on its grid; without it nothing is known of noise, and so no region
            can be called invented
    error:  half the width of the error bar of each voxel
    """
    unknown = [None] * len(reference)
    sides = (result, reference, unknown if source is None else source, unknown if error is None else error)
    figures = [_channel_figures(grid, *one) for one in zip(*sides, strict=False)]
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


def _channel_figures(
    grid: Geometry, result: Array, reference: Array, source: Array | None, error: Array | None
) -> dict[str, float]:
    inside = np.isfinite(reference) & np.isfinite(result)
    figures = _distances(result, reference, inside)
    if error is not None:
        figures["coverage"] = covered_share(result, reference, error, inside)
    if source is not None:
        has_litres = grid.physical and grid.unit == MM and grid.ndim == 3
        step = abs(np.linalg.det(grid.affine[:-1, :-1])) / LITRE if has_litres else 1 / MILLION
        noise = noise_of_input(source, reference, inside)
        figures |= {f"{key}{INPUT}": value for key, value in _distances(source, reference, inside).items()}
        for ending, values in (("", result), (INPUT, source)):
            regions = count_invented(values, reference, noise, inside) if inside.any() else math.nan
            figures[f"{PER_LITRE if has_litres else PER_MILLION}{ending}"] = regions / max(inside.sum() * step, 1e-30)
    return figures


def _distances(result: Array, reference: Array, inside: Mask) -> dict[str, float]:
    return {
        "psnr": psnr(result, reference, inside),
        "ssim": ssim(result, reference, inside),
        "nrmse": nrmse(result, reference, inside),
    }


def psnr(result: Array, reference: Array, measured: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the range of the reference. Infinite for equal images."""
    values, true = _measured(result, reference, measured)
    width = float(np.ptp(true)) if true.size else 0.0
    if not width:
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(width) - 10 * np.log10(np.mean((values - true) ** 2)))


def nrmse(result: Array, reference: Array, measured: Mask | None = None) -> float:
    """Root of the squared differences by that of the squared reference."""
    values, true = _measured(result, reference, measured)
    energy = float(np.sum(true**2))
    return float(np.sqrt(np.sum((values - true) ** 2) / energy)) if energy else float("nan")


def ssim(result: Array, reference: Array, measured: Mask | None = None) -> float:
    """Structural similarity: the mean over windows of 11 voxels along each axis that has as many.

    Weights are Gaussian with a deviation of 1.5 voxels, and the range is that of the reference. Windows that leave the
    image are left out, as in the authors' program. NaN where no axis has 11 voxels, or the reference is constant.
    Wang et al., IEEE Trans Image Process 2004, doi:10.1109/TIP.2003.819861
    """
    inside = np.ones(reference.shape, bool) if measured is None else measured
    axes = [axis for axis, size in enumerate(reference.shape) if size > 2 * HALF]
    width = float(np.ptp(reference[inside])) if inside.any() else 0.0
    if not axes or not width:
        return float("nan")
    total = 0.0
    count = 0
    for region, core in _slabs(reference.shape, axes):
        part = inside[region]
        ours, theirs = (np.where(part, one[region], 0).astype(np.float64) for one in (result, reference))
        likeness = _likeness(ours, theirs, axes, width)[core][part[core]]
        total = total + float(likeness.sum())
        count = count + likeness.size
    return total / count if count else float("nan")


def _likeness(ours: Floats, theirs: Floats, axes: list[int], width: float) -> Floats:
    """(*spatial) SSIM of the window around each voxel."""

    def weigh(values: Floats) -> Floats:
        smoothed: Floats = ndimage.gaussian_filter(values, DEVIATION, axes=tuple(axes), radius=HALF)
        return smoothed

    mean = weigh(ours)
    true = weigh(theirs)
    variance = weigh(ours**2) - mean**2
    true_variance = weigh(theirs**2) - true**2
    covariance = weigh(ours * theirs) - mean * true
    c1, c2 = (K1 * width) ** 2, (K2 * width) ** 2
    above = (2 * mean * true + c1) * (2 * covariance + c2)
    return above / ((mean**2 + true**2 + c1) * (variance + true_variance + c2))


def _slabs(shape: tuple[int, ...], axes: list[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """(region, its voxels whose windows lie in the image) of slabs that together cover all such voxels."""
    along = max(axes, key=lambda axis: shape[axis])
    thick = max(1, SLAB * shape[along] // int(np.prod(shape)))
    core = tuple(slice(HALF, size - HALF) if axis in axes else slice(None) for axis, size in enumerate(shape))
    for start in range(HALF, shape[along] - HALF, thick):
        stop = min(start + thick, shape[along] - HALF)
        region = [slice(None)] * len(shape)
        region[along] = slice(start - HALF, stop + HALF)
        yield tuple(region), tuple(slice(HALF, -HALF) if axis == along else one for axis, one in enumerate(core))


def covered_share(result: Array, reference: Array, error: Array, measured: Mask | None = None) -> float:
    """The share of voxels whose reference lies within the error bar, result +- error."""
    values, true = _measured(result, reference, measured)
    return float(np.mean(np.abs(values - true) <= _measured(error, reference, measured)[0])) if true.size else np.nan


def noise_of_input(source: Array, reference: Array, measured: Mask | None = None) -> float:
    """Standard deviation of the difference of the input from the reference."""
    values, true = _measured(source, reference, measured)
    return float(np.std(values - true)) if true.size else float("nan")


def count_invented(result: Array, reference: Array, noise: float, measured: Mask | None = None) -> int:
    """The connected regions in which the result exceeds the reference by three deviations of the input's noise.

    Voxels that touch one another in an edge or a corner are connected. Where there is no noise any excess counts.
    """
    inside = np.isfinite(reference) if measured is None else measured
    exceeds = np.zeros(reference.shape, bool)
    exceeds[inside] = result[inside].astype(np.float64) - reference[inside] > BEYOND * noise
    return int(ndimage.label(exceeds, np.ones((3,) * exceeds.ndim))[1])


def _measured(result: Array, reference: Array, measured: Mask | None) -> tuple[Floats, Floats]:
    inside = np.isfinite(reference) if measured is None else measured
    return result[inside].astype(np.float64), reference[inside].astype(np.float64)
