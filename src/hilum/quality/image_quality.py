"""Quality of one picture or volume: sharpness, noise, clipping, echoes, and letters on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import csgraph, ndimage
from hilum.quality import _intensities
from hilum.quality._intensities import Intensities
from hilum.transforms import image_filters, resampling
from hilum.values import Array, Deferred, Floats, Image

# Of a volume so many planes are looked at: a fault of acquisition is in most of them.
PLANES = 5
# Sharpness and echoes are compared at the scale that a network sees: a sensor with more pixels is not a blurred one.
COMMON_SIDE = 256
# Noise lies between neighbouring voxels, so it is measured on the grid as it is, in the middle.
NOISE_SIDE = 1024
# Letters of a screenshot or a radiograph are still apart at this size.
LETTER_SIDE = 1024
# Fewer pixels hold neither a periodic echo nor a letter that can be told from anatomy.
SMALLEST_ECHO, SMALLEST_LETTER = 64, 96
# Two letters in a row occur by chance in a few of a hundred radiographs and smears, three in none.
FEWEST_LETTERS = 3
# An image of fewer values is a graphic, no measurement: a mask, a shape.
FEWEST_MEASURED = 4
# An echo nearer than this share of the field cannot be told from the image's own smoothness.
NEAREST_ECHO = 0.1

# While an answer waits: planes of a volume that are looked at, their longest side, and voxels that are ranked.
FEW_PLANES, SHORT_SIDE, RANKED = 3, 256, 2**14


def quick_measures(image: Image) -> dict[str, float]:
    """Mean, SD, 1st and 99th percentile, noise and sharpness of an image, within milliseconds, by a few planes of it.

    Of several channels each has its own, "noise of T1"; of a clip they are those of the frame in the middle. What
    cannot be measured is left out, and so is an image that is no picture and no volume, or that lies in a file which
    can be read as a whole only.
    """
    if image.frames is not None:
        return quick_measures(image.frame(image.frames // 2))
    spatial, measured = image.geometry.shape, dict[str, float]()
    deferred = isinstance(image.pixels, Deferred)
    if len(spatial) < 2 or (isinstance(image.pixels, Deferred) and not (image.pixels.region or image.pixels.stream)):
        return {}
    # Slices of a file lie along its last axis; a single one is looked at as such, wherever it lies.
    through = None if len(spatial) == 2 else 2 if deferred else _axis_of_slices(spatial, image.geometry.steps)
    through = spatial.index(1) if through is not None and 1 in spatial else through
    read = image.reader()
    parts = [read(_region(spatial, through, at)) for at in _places(spatial, through)]
    valid = [image.is_measured(part) for part in parts]
    for number, name in enumerate(image.channels):
        measures = dict[str, float]()
        planes = [
            (_plane(part[number], through), _plane(known[number], through))
            for part, known in zip(parts, valid, strict=True)
        ]
        some = np.concatenate([plane[known] for plane, known in planes])
        some = some[:: 1 + len(some) // RANKED].astype(np.float64)
        if len(some):
            measures |= {"mean": float(some.mean()), "sd": float(some.std())}
            measures |= dict(zip(("p1", "p99"), np.percentile(some, (1, 99)).tolist(), strict=True))
            scale = max(measures["p99"] - measures["p1"], 1e-12)
            scaled = [((_finite(plane) - measures["p1"]) / scale).clip(-1, 2) for plane, _ in planes]
            measures["noise"] = _middle([_noise(plane) for plane in scaled])
            measures["sharpness"] = _middle([_sharpness(plane) for plane in scaled])
        of = f" of {name}" if len(image.channels) > 1 else ""
        measured |= {f"{what}{of}": value for what, value in measures.items() if np.isfinite(value)}
    return measured


def _plane(part: Array, through: int | None) -> Array:
    """One plane, which keeps a side of a single voxel."""
    return part if through is None else part.take(0, axis=through)


def _region(spatial: Sequence[int], through: int | None, at: int) -> tuple[slice, ...]:
    """One plane of all channels, of its middle no more than is quickly measured."""
    starts = [max(0, (size - SHORT_SIDE) // 2) for size in spatial]
    middle = [slice(start, min(start + SHORT_SIDE, size)) for start, size in zip(starts, spatial, strict=True)]
    planes = [slice(at, at + 1) if axis == through else own for axis, own in enumerate(middle)]
    return slice(None), *planes


def _places(spatial: Sequence[int], through: int | None) -> list[int]:
    """Places of planes in the middle half of a volume; of a picture it is its own plane."""
    if through is None:
        return [0]
    size = spatial[through]
    return sorted({min(int(place), size - 1) for place in np.linspace(size / 4, 3 * size / 4, FEW_PLANES)})


def measure_quality(values: Array, valid: Array, measured: Intensities, steps: Sequence[float]) -> Mapping[str, float]:
    """Measures of one channel (*spatial); NaN where one cannot be taken, as of a graphic of a few plain values.

    sharpness: natural logarithm of the variance of the Laplacian by that of the intensities, at a common scale
    noise:     standard deviation by the range of intensities
    clipped:   share of voxels at the very highest value
    echo:      strength of the strongest copy that lies moved along one axis over the image
    letters:   of the longest line of letters burned into a picture; 0 for volumes
    """
    if len(np.unique(_intensities.sample_measurements(values, valid, 4096))) <= FEWEST_MEASURED:
        return dict.fromkeys(("sharpness", "noise", "clipped", "echo", "letters"), float("nan"))
    low, high = measured.window
    scale = max(high - low, 1e-12)
    planes_of = {1: _no_planes, 2: _picture, 3: _slices}[values.ndim]
    planes = [((plane - low) / scale).clip(-1, 2) for plane in planes_of(values, steps)]
    common = [_brought_to(plane, COMMON_SIDE) for plane in planes]
    return {
        "sharpness": _middle([_sharpness(plane) for plane in common]),
        "noise": _middle([_noise(plane) for plane in planes]),
        "clipped": measured.clipped,
        "echo": _middle([_echo(plane) for plane in common]),
        "letters": float(longest_line(planes[0])) if planes_of is _picture else 0.0,
    }


def _middle(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else float("nan")


def _no_planes(values: Array, steps: Sequence[float]) -> Iterator[Floats]:
    """A line has none."""
    return iter(())


def _picture(values: Array, steps: Sequence[float]) -> Iterator[Floats]:
    yield _finite(values)


def _slices(values: Array, steps: Sequence[float]) -> Iterator[Floats]:
    """Some planes from the middle half of a volume, as they were acquired: along its fine axes.

    Where the coarsest axis is not that of the slices (a thin slab), planes with room for an echo come first.
    """
    through = _axis_of_slices(values.shape, steps)
    size = values.shape[through]
    for at in sorted({int(place) for place in np.linspace(size / 4, 3 * size / 4, PLANES)}):
        # A view: `take` would copy the whole volume into another order first.
        yield _finite(np.ascontiguousarray(np.moveaxis(values, through, 0)[min(at, size - 1)]))


def _axis_of_slices(shape: Sequence[int], steps: Sequence[float]) -> int:
    sides = {axis: min(np.delete(shape, axis)) for axis in range(len(shape))}
    return max(sides, key=lambda axis: (sides[axis] >= SMALLEST_ECHO, steps[axis], sides[axis]))


def _finite(plane: Array) -> Floats:
    return np.nan_to_num(plane.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _brought_to(plane: Floats, side: int) -> Floats:
    """The plane with its longer side brought down to `side`; never up."""
    factor = side / max(plane.shape)
    if factor >= 1:
        return plane
    return np.asarray(resampling.resample(plane[None], [max(4, round(size * factor)) for size in plane.shape])[0])


def _sharpness(plane: Floats) -> float:
    """Pech-Pacheco et al., ICPR 2000, doi:10.1109/ICPR.2000.903548, here beside the variance of the plane itself."""
    if min(plane.shape) < 4 or plane.var() <= 0:
        return float("nan")
    inner = plane[1:-1, 1:-1]
    laplacian = 4 * inner - plane[:-2, 1:-1] - plane[2:, 1:-1] - plane[1:-1, :-2] - plane[1:-1, 2:]
    return float(np.log(max(float(laplacian.var() / plane.var()), 1e-9)))


def _noise(plane: Floats) -> float:
    """That of the middle of the plane, and only where there is signal."""
    starts = [max(0, (size - NOISE_SIDE) // 2) for size in plane.shape]
    part = plane[tuple(slice(start, start + NOISE_SIDE) for start in starts)]
    return image_filters.noise_deviation(part, part > part.min() + 1e-3) if min(part.shape) > 3 else float("nan")


def _echo(plane: Floats) -> float:
    """Height of the highest peak of the cepstrum beyond a tenth of the field, over both axes.

    An echo of strength a makes a peak of about a where it lies. Bogert, Healy and Tukey, Time Series Analysis 1963.
    """
    if min(plane.shape) < SMALLEST_ECHO:
        return float("nan")
    return max(_echo_along(np.moveaxis(plane, axis, 0)) for axis in (0, 1))


def _echo_along(lines: Floats) -> float:
    size = len(lines)
    power = (np.abs(np.fft.rfft((lines - lines.mean()) * np.hanning(size)[:, None], axis=0)) ** 2).mean(axis=1)
    cepstrum = np.fft.irfft(np.log(power + 1e-6 * power.max() + 1e-30))
    far = cepstrum[max(4, int(NEAREST_ECHO * size)) : size // 2 + 1]
    return float((far - np.median(far)).max())


def longest_line(plane: Floats) -> int:
    """Letters in the longest line of them: pieces far brighter than around them, of one height, on one base.

    Raw text detection after connected components; see Epshtein, Ofek and Wexler, CVPR 2010, for the grouping.
    """
    _, letters = _letters(plane)
    if len(letters) < 3:
        return len(letters)
    centres = np.array([[(part.start + part.stop) / 2 for part in box] for box in letters])
    heights = np.array([box[0].stop - box[0].start for box in letters])
    return _longest_chain(centres, heights)


def find_letters(plane: Floats) -> NDArray[np.bool_] | None:
    """(*plane) where letters are burned into a picture that has a line of them; None where it has none."""
    if longest_line(plane) < FEWEST_LETTERS:
        return None
    shape, letters = _letters(plane)
    inside = np.zeros(plane.shape, dtype=bool)
    for box in letters:
        scaled = zip(box, plane.shape, shape, strict=True)
        inside[tuple(slice(part.start * old // new, -(-part.stop * old // new)) for part, old, new in scaled)] = True
    return inside


def _letters(plane: Floats) -> tuple[tuple[int, ...], list[tuple[slice, ...]]]:
    """The shape that the plane is brought to, and the box of each letter in it."""
    if min(plane.shape) < SMALLEST_LETTER:
        return plane.shape, []
    small = _brought_to(plane, LETTER_SIDE)
    widest = max(9, round(min(small.shape) / 12))
    top = float(small.max())
    # Letters stand at the top of the scale; anatomy seldom reaches it in strokes this thin.
    bright = small >= top - 0.15 * (top - float(small.min()))
    if np.count_nonzero(bright) > 0.2 * bright.size:
        return small.shape, []
    pieces, count = ndimage.label(bright, structure=np.ones((3, 3)))
    if not 3 <= count <= 4000:
        return small.shape, []
    boxes = enumerate(ndimage.find_objects(pieces), start=1)
    return small.shape, [box for number, box in boxes if _is_letter(small, pieces, number, box, widest)]


def _is_letter(plane: Floats, pieces: Array, number: int, box: tuple[slice, ...], widest: int) -> bool:
    """Whether a piece has a letter's size, consists of strokes, and is sharp: two pixels away it is far darker."""
    height, width = (part.stop - part.start for part in box)
    if not (5 <= height <= widest and 1 <= width <= 1.5 * height):
        return False
    around = tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)
    rim = np.ones(plane[around].shape, dtype=bool)
    rim[1:-1, 1:-1] = False
    piece = plane[box][pieces[box] == number]
    return bool(np.median(plane[around][rim]) < 0.5 * np.median(piece))


def _longest_chain(centres: Floats, heights: Array) -> int:
    """centres: (letters, 2) row and column; neighbours of about one height on about one row are in one line."""
    lower, taller = np.minimum.outer(heights, heights), np.maximum.outer(heights, heights)
    down, across = (np.abs(np.subtract.outer(places, places)) for places in centres.T)
    joined = (taller <= 1.5 * lower) & (down <= 0.3 * lower) & (across <= 2 * lower)
    return int(np.bincount(csgraph.connected_components(joined, directed=False)[1]).max())
