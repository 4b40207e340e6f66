"""Filters that enhance an image without any training, by the noise that the image itself shows.

Non-local means, total variation, local equalisation (scikit-image), and correction of a bias field (SimpleITK).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DatasetError
from hilum.lazy import SimpleITK, skimage
from hilum.values import Array, Floats, Image

# Second differences of white noise have so many times its deviation along each axis, the root of 1 + 4 + 1.
GAIN = 6**0.5
# The median of the absolute values of a normal distribution, in its deviations.
MEDIAN_DEVIATION = 0.6745
# Fewer voxels show no noise, nor do axes of so few.
FEWEST = 100
SHORT = 3
# Settings of Buades et al. in scikit-image's fast mode: h in deviations of the noise, and sides of patches and search.
NLM_STRENGTH = 0.8
PATCH = 5
REACH_OF_PICTURES = 7
REACH_OF_VOLUMES = 3
# Chambolle's weight is found on the middle of an image, in at most so many tries.
MIDDLE = 96
TRIES = 12
CLOSE = 0.02
# Of CLAHE: the share of the pixels at which a bin of a histogram is cut.
CLIP = 0.01
# N4 looks at every n-th voxel along axes that are longer than so many times that.
SHRINK = 4
ENOUGH = 16

EMPTY_REMEDY = "Look whether its reconstruction or export failed, and make it anew or leave it out"

Settings = dict[str, float]
Change = Callable[[Floats, NDArray[np.bool_], tuple[float, ...]], tuple[Floats, Settings]]


@dataclass(frozen=True)
class ImageFilter:
    """One filter.

    change: (*spatial) without gaps, where it was measured, and the length of a voxel per axis, to the filtered values
            and the settings that were found
    needs_contrast: whether an image of one value has nothing by which the filter could be set
    """

    words: str
    source: str
    change: Change
    needs_contrast: bool = True


def noise_deviation(values: Floats, inside: NDArray[np.bool_]) -> float:
    """Standard deviation of white noise, blind to edges; NaN where too few voxels are inside.

    values: (*spatial)
    inside: (*spatial) where there is signal: air is quiet by itself
    The median of second differences along all axes of four voxels and more, Immerkaer's operator in two of them.
    Comput Vis Image Underst 1996, doi:10.1006/cviu.1996.0060
    """
    response = values
    core = inside
    long = [axis for axis, size in enumerate(values.shape) if size > SHORT]
    for axis in long:
        response = np.diff(response, n=2, axis=axis)
        core = core.take(range(1, core.shape[axis] - 1), axis=axis)
    if not long or np.count_nonzero(core) < FEWEST:
        return float("nan")
    return float(np.median(np.abs(response[core]))) / MEDIAN_DEVIATION / GAIN ** len(long)


def non_local_means(
    values: Floats, inside: NDArray[np.bool_], steps: tuple[float, ...], strength: float = NLM_STRENGTH
) -> tuple[Floats, Settings]:
    """The mean of voxels whose neighbourhoods are alike; strength: in deviations of the noise that was estimated.

    Buades et al., IPOL 2011, doi:10.5201/ipol.2011.bcm_nlm
    """
    noise = _noise_of(values, inside)
    if noise == 0:
        return values, {"noise": 0.0}
    reach = REACH_OF_PICTURES if values.ndim < 3 else REACH_OF_VOLUMES
    found = {"noise": noise, "h": strength * noise, "patch": PATCH, "reach": reach}
    changed = skimage.restoration.denoise_nl_means(
        values, patch_size=PATCH, patch_distance=reach, h=found["h"], sigma=noise, fast_mode=True, preserve_range=True
    )
    return changed, found


def total_variation(values: Floats, inside: NDArray[np.bool_], steps: tuple[float, ...]) -> tuple[Floats, Settings]:
    """The image of least total variation that lies as far from this one as its noise is strong.

    The discrepancy principle: Chambolle, J Math Imaging Vis 2004, doi:10.1023/B:JMIV.0000011325.36760.1e
    """
    noise = _noise_of(values, inside)
    if noise == 0:
        return values, {"noise": 0.0}
    width = float(np.ptp(values[inside]))
    starts = [max(0, (size - MIDDLE) // 2) for size in values.shape]
    middle = values[tuple(slice(start, start + MIDDLE) for start in starts)] / width
    weight = noise / width
    for _ in range(TRIES):
        residual = float(np.std(middle - skimage.restoration.denoise_tv_chambolle(middle, weight))) * width
        if abs(residual / noise - 1) < CLOSE or residual == 0:
            break
        weight *= float(np.clip(noise / residual, 0.5, 2.0))
    found = {"noise": noise, "weight": weight * width}
    return skimage.restoration.denoise_tv_chambolle(values / width, weight) * width, found


def equalise_locally(values: Floats, inside: NDArray[np.bool_], steps: tuple[float, ...]) -> tuple[Floats, Settings]:
    """Contrast-limited adaptive histogram equalisation (CLAHE); the range stays what it is.

    Pizer et al., Comput Vis Graph Image Process 1987, doi:10.1016/S0734-189X(87)80186-X
    """
    low, high = float(values[inside].min()), float(values[inside].max())
    if low == high:
        return values, {"clip": CLIP}
    shares = np.clip((values - low) / (high - low), 0, 1)
    return skimage.exposure.equalize_adapthist(shares, clip_limit=CLIP) * (high - low) + low, {"clip": CLIP}


def correct_bias_field(values: Floats, inside: NDArray[np.bool_], steps: tuple[float, ...]) -> tuple[Floats, Settings]:
    """The image divided by the smooth field that blurs the histogram of its foreground.

    Tustison et al., IEEE Trans Med Imaging 2010, doi:10.1109/TMI.2010.2046908
    Raises DatasetError where intensities are below zero, whose logarithm there is not.
    """
    if float(np.quantile(values[inside], 0.01)) < 0:
        remedy = "Give a magnitude image, such as MR, or another --method"
        raise DatasetError("intensities below zero have no bias field", "n4", remedy)
    body = inside & (values > skimage.filters.threshold_otsu(values[inside]) / 2) & (values > 0)
    if not body.any():
        raise DatasetError("has no intensity above zero", "n4", "Give a magnitude image, or leave it out")
    image = SimpleITK.GetImageFromArray(values.astype(np.float32).T)  # its first axis is the last of an array
    image.SetSpacing(list(steps))
    mask = SimpleITK.GetImageFromArray(body.astype(np.uint8).T)
    mask.CopyInformation(image)
    factors = [SHRINK if size >= SHRINK * ENOUGH else 1 for size in values.shape]
    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.Execute(SimpleITK.Shrink(image, factors), SimpleITK.Shrink(mask, factors))
    field = np.exp(SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))).T
    field /= np.exp(np.log(field[body]).mean())  # the image as a whole becomes neither brighter nor darker
    return values / field, {"least": float(field[body].min()), "largest": float(field[body].max())}


FILTERS: Mapping[str, ImageFilter] = {
    "nlm": ImageFilter("non-local means", "doi:10.5201/ipol.2011.bcm_nlm", non_local_means),
    "n4": ImageFilter("N4 bias field correction", "doi:10.1109/TMI.2010.2046908", correct_bias_field),
    "tv": ImageFilter("total variation", "doi:10.1023/B:JMIV.0000011325.36760.1e", total_variation),
    "clahe": ImageFilter("CLAHE", "doi:10.1016/S0734-189X(87)80186-X", equalise_locally, needs_contrast=False),
}


def filter_image(image: Image, name: str, where: str) -> tuple[Image, list[Settings]]:
    """The filtered image as float32 on the same grid, and the settings of each; what is no measurement stays.

    name:  one of `FILTERS`; channels and frames are filtered one by one
    where: what errors name: the case or file
    Raises DatasetError where the image does not allow the filter.
    """
    grid = image.geometry
    if grid.is_series or sorted(grid.shape)[-2] <= SHORT:
        problem = f"an image of {' x '.join(map(str, grid.shape))} has no plane to filter"
        raise DatasetError(problem, where, "Give images of two or three axes")
    data = image.data
    measured = image.valid
    planes, masks = (one.reshape(-1, *grid.shape) for one in (data, np.broadcast_to(measured, data.shape)))
    results = list[tuple[Floats, Settings]]()
    for number, (plane, inside) in enumerate(zip(planes, masks, strict=True)):
        try:
            results.append(_filter_values(plane, inside, grid.steps, FILTERS[name]))
        except DatasetError as error:
            problem = f"{_name_of_plane(image, number)}{error.problem}"
            raise error.stating(problem=problem, where=where) from error
    changed = np.stack([one for one, _ in results]).reshape(data.shape)
    return image.with_pixels(np.where(measured, changed, data).astype(np.float32)), [found for _, found in results]


def _filter_values(
    plane: Array, inside: NDArray[np.bool_], steps: tuple[float, ...], kind: ImageFilter
) -> tuple[Floats, Settings]:
    """One channel, with axes of a single voxel left out meanwhile, and gaps filled with the least value."""
    if kind.needs_contrast:
        _refuse_empty(plane[inside])
    if not inside.any():
        return plane.astype(np.float64), {}
    values = np.where(inside, plane, plane[inside].min()).astype(np.float64)
    long = [axis for axis, size in enumerate(plane.shape) if size > 1]
    changed, found = kind.change(np.squeeze(values), np.squeeze(inside), tuple(steps[axis] for axis in long))
    return np.asarray(changed).reshape(plane.shape), found


def _refuse_empty(measured: Array) -> None:
    """DatasetError where one value, or none, was measured."""
    if measured.size == 0:
        raise DatasetError("is empty: no voxel of it was measured", "filter", EMPTY_REMEDY)
    if measured.min() == measured.max():
        raise DatasetError(f"is empty: every voxel of it is {measured.min():g}", "filter", EMPTY_REMEDY)


def _name_of_plane(image: Image, number: int) -> str:
    """Which channel and frame a plane is, as the beginning of a sentence; empty where there is only one."""
    channel, frame = divmod(number, image.frames or 1)
    words = [f"channel {image.channels[channel]}"] if len(image.channels) > 1 else []
    words += [f"frame {frame + 1} of {image.frames}"] if image.frames is not None else []
    return f"{', '.join(words)} " if words else ""


def _noise_of(values: Floats, inside: NDArray[np.bool_]) -> float:
    """The noise of where there is signal; DatasetError where it cannot be measured."""
    signal = inside & (values > values.min())
    noise = noise_deviation(values, signal)
    if not np.isfinite(noise):
        problem = f"has too few voxels with signal to measure its noise: {np.count_nonzero(signal)}"
        raise DatasetError(problem, "noise", f"Give an image with {FEWEST} or more above its least value")
    return noise
