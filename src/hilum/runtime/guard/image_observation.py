"""Observations of an image by a gate: the kind that its header states, its composition, and what the network saw.

While a network predicts an image, its intensities, texture, layout and pooled features are observed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hilum.runtime.preprocessing import coarse_mask
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.runtime.windows.averaging import POOLED
from hilum.runtime.windows.slide import BagNetwork, Network
from hilum.transforms import COLOUR, channel_stack
from hilum.values import Array, Geometry, Image
from hilum.values.covariate_values import CovariateValues

UNKNOWN = "unknown"
RADIOGRAPH = "radiograph"
# DICOM's words for one kind of image, PS3.3 C.7.3.1.1.1.
ALIKE = {"CR": RADIOGRAPH, "DX": RADIOGRAPH, "RG": RADIOGRAPH, "PX": RADIOGRAPH}
AXES = ("left to right", "back to front", "feet to head")
SIDES = ("height", "width")
ORDINALS = ("first axis", "second axis", "third axis")
RATIO = "ratio of sides"
# The planes of slices by the world axis across them, and the cosine from which on one is none of these, as DICOM
# toolkits take it (Clunie, PixelMed).
PLANES, OBLIQUE, STRAIGHT = ("sagittal", "coronal", "axial"), "oblique", 0.8
# By this factor slices lie further apart than voxels in them; else nobody knows across which axis they were taken.
APART = 1.5
# Of the range, a share of colour that is next to none: a tint, or marks that somebody made, have a hundredth or two.
TINT = 0.1
MODALITY, REGION = "modality", "region of the body"
# Parts of the body as BodyPartExamined names them (PS3.16, table L-1), of regions that no image shows together. What
# lies between two of them, as neck, shoulder and hip, is of none.
REGIONS = {
    "head": "HEAD BRAIN SKULL FACE ORBIT EYE SINUS NOSE MANDIBLE MAXILLA JAW TMJ TEETH EAR IAC SELLA",
    "trunk": "CHEST THORAX LUNG HEART BREAST RIB STERNUM MEDIASTINUM ABDOMEN LIVER KIDNEY PANCREAS SPLEEN STOMACH "
    "COLON BLADDER PROSTATE UTERUS PELVIS LSPINE TSPINE SSPINE TLSPINE LSSPINE COCCYX",
    "arm": "ELBOW FOREARM WRIST HAND FINGER THUMB RADIUS ULNA HUMERUS",
    "leg": "THIGH KNEE CALF LEG ANKLE FOOT TOE TIBIA FIBULA CALCANEUS PATELLA",
}
# Channels of a picture from an array, which a model takes for R, G and B.
UNNAMED = ("0", "1", "2")
# Lines of a picture at which its colour is looked at, about.
LINES = 64


class HeaderFacts(NamedTuple):
    """Facts of a header.

    words:   {fact: word} of what is known: modality, the region of the body, whether the orientation is, the plane of
             slices, and last the body part, which people write as they like
    numbers: {fact: natural logarithm} of spacing and field of view in mm along each axis of the canonical order; of an
             image without physical size of the proportions of its sides; and of the colour of a picture, which no
             longer shows in what a network of grey pictures sees
    """

    words: Mapping[str, str]
    numbers: Mapping[str, float]


def header_facts(image: Image, covariates: CovariateValues | None = None) -> HeaderFacts:
    """The header of an image; covariates: of its case, of which the part of the body is asked for.

    That of a slide says nothing of what its windows show: neither its size, nor how much of it is glass.
    """
    if image.is_slide:
        return HeaderFacts({}, {})
    modality = ALIKE.get(image.modality, image.modality)
    body_part = str((covariates or {}).get("body_part") or "")
    words = {
        MODALITY: "" if modality == UNKNOWN else modality,
        REGION: next((region for region, parts in REGIONS.items() if body_part.upper() in parts.split()), ""),
        "orientation": ("known" if image.geometry.oriented else UNKNOWN) if image.geometry.is_volume else "",
        "plane": _plane(image.geometry),
        "body part": body_part,
    }
    return HeaderFacts(
        {name: word for name, word in words.items() if word}, {**_numbers(image.geometry), **_colour(image)}
    )


def _plane(geometry: Geometry) -> str:
    """The plane in which slices were taken; empty where sides or the axis across them are not known."""
    if not geometry.has_sides:
        return ""
    *_, second, across = np.argsort(geometry.steps)
    single = [axis for axis, size in enumerate(geometry.shape) if size == 1]
    if len(single) == 1:
        [across] = single
    elif geometry.steps[across] < APART * geometry.steps[second]:
        return ""
    # Across the slices, not along their axis: a tilted gantry shears the grid.
    first, other = np.delete(geometry.affine[:3, :3], across, axis=1).T
    normal = np.abs(np.cross(first, other))
    closest = int(np.argmax(normal))
    return PLANES[closest] if normal[closest] >= STRAIGHT * np.linalg.norm(normal) else OBLIQUE


def _numbers(geometry: Geometry) -> dict[str, float]:
    canonical = geometry.canonical
    extents = [size * step for size, step in zip(canonical.shape, canonical.steps, strict=True)]
    names = AXES if geometry.has_sides else SIDES if geometry.is_picture else ORDINALS
    proportions = {
        f"{RATIO} ({names[0]} : {name})": math.log(extents[0] / extent)
        for name, extent in zip(names[1:], extents[1:], strict=False)
    }
    if not geometry.physical:
        return proportions
    axes = list(zip(names, canonical.steps, extents, strict=False))
    spacings = {f"spacing {name}": math.log(step) for name, step, _ in axes}
    return {**proportions, **spacings, **{f"field of view {name}": math.log(extent) for name, _, extent in axes}}


def _colour(image: Image) -> dict[str, float]:
    """The distance between the channels of a picture, as a share of its range; none where it is grey, however kept."""
    channels = channel_stack.without_alpha(image.channels)
    if len(channels) == 1 and image.geometry.is_picture:
        return {"colour": math.log(TINT)}
    if channels != COLOUR and not (channels == UNNAMED and image.geometry.is_picture):
        return {}
    read, step = image.reader(), max(1, image.shape[1] // LINES)
    rest = (slice(None),) * (len(image.shape) - 2)
    lines = [read((slice(0, len(COLOUR)), slice(n, n + 1), *rest)) for n in range(0, image.shape[1], step)]
    pixels = np.concatenate(lines, axis=1).astype(np.float32)
    apart, extent = float(np.nanmean(np.ptp(pixels, axis=0))), float(np.nanmax(pixels) - np.nanmin(pixels))
    return {"colour": math.log(TINT + (apart / extent if extent > 0 else 0.0))}


Floats = NDArray[np.float64]
# Voxels between which differences are taken; blocks along each axis.
LAGS, BLOCKS = (1, 2, 4, 8, 16), 8
# Lines of an axis that are looked at, about.
MOST_LINES = 2**12
# Of the variance, what differences have at least, and of a deviation what shares and distances have: a logarithm needs
# some.
LEAST, LEAST_SHARE, LEAST_DISTANCE = 1e-4, 0.01, 0.05
# Voxels of which contrast is computed, about, and the shares of them below its quantiles.
MOST_VOXELS, QUANTILES = 2**13, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
# Of the range, what lies as near its end as this is at the end; of a deviation, neighbours as near are alike.
END, FLAT = 0.02, 0.01


class Composition(NamedTuple):
    """Numbers of an image that no network has a say in.

    All are in standard deviations of the image, so that one with more light or contrast has the same. So has one that
    is mirrored: a model may look at mirrored windows too.

    texture: (axes * lags,) logarithms of the mean squared difference between voxels at each lag (a variogram): its mean
             over the axes, and how far the first axis lies above each other one
    layout:  (blocks,) means of the blocks of a coarse grid, of those that mirror each other one
    contrast: (10,) how much further dark voxels lie apart than bright ones, at three depths, and the outer ones than
             the middle; skewness and kurtosis; the shares at the lowest and at the highest values and in flat places;
             and how steady slopes are; all as logarithms
    symmetry: (axes * 2,) along each axis, by the means of blocks across it, logarithms of how far its two sides lie
             apart, and of how far their middle lies from their ends
    """

    texture: Floats
    layout: Floats
    contrast: Floats
    symmetry: Floats


def window_composition(window: NDArray[np.float32]) -> Composition:
    """The composition of a window, (channels, *patch), the mean over its channels."""
    standardised = [_standard(channel) for channel in window]
    lags = np.mean([_variogram(channel) for channel in standardised], axis=0)
    texture = np.concatenate([lags.mean(axis=0), (lags[0] - lags[1:]).ravel()])
    others = (
        np.mean([measure(channel) for channel in standardised], axis=0) for measure in (_blocks, _contrast, _symmetry)
    )
    return Composition(texture, *others)


def mean_composition(windows: list[Composition]) -> Composition:
    """The composition of an image of several windows, at least one."""
    return Composition(*(np.mean(each, axis=0) for each in zip(*windows, strict=True)))


def _standard(channel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The channel with mean 0 and deviation 1; voxels that are absent have the mean."""
    is_finite = np.isfinite(channel)
    if not is_finite.any():
        return np.zeros_like(channel)
    mean, deviation = channel[is_finite].mean(dtype=np.float64), channel[is_finite].std(dtype=np.float64)
    scale = np.float32(deviation) if deviation > 0 else np.float32(1)
    return np.asarray(np.where(is_finite, (channel - np.float32(mean)) / scale, np.float32(0)))


def _variogram(values: NDArray[np.float32]) -> Floats:
    """(axes, lags); beyond the length of an axis no difference is known, and none counts."""
    rows = np.zeros((values.ndim, len(LAGS)))
    for axis in range(values.ndim):
        lines = _lines(values, axis)
        for index, lag in enumerate(LAGS):
            if lag < len(lines):
                rows[axis, index] = np.mean(np.square(lines[lag:] - lines[:-lag]))
    return np.asarray(np.log(LEAST + rows))


def _lines(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """(size, ...) along an axis, of the other axes as many places as are enough."""
    others = math.prod(values.shape) // values.shape[axis]
    step = max(1, math.ceil((others / MOST_LINES) ** (1 / max(1, values.ndim - 1))))
    steps = tuple(slice(None) if one == axis else slice(None, None, step) for one in range(values.ndim))
    return np.moveaxis(values[steps], axis, 0)


def _contrast(values: NDArray[np.float32]) -> Floats:
    """(10,) as in `Composition`."""
    # An odd step: an even one would see a few columns alone.
    some = values.ravel()[:: 1 + 2 * (values.size // MOST_VOXELS // 2)].astype(np.float64)
    lowest, low, lower, middle, upper, high, highest = np.quantile(some, QUANTILES)
    pairs = ((middle - lowest, highest - middle), (middle - low, high - middle), (middle - lower, upper - middle))
    ratios = [_ratio(part, other) for part, other in (*pairs, (highest - lowest, upper - lower))]
    skewness, kurtosis = float(np.mean(some * some * some)), float(np.mean(np.square(some * some)))
    ends = END * float(np.ptp(some))
    shares = [float(np.mean(some <= some.min() + ends)), float(np.mean(some >= some.max() - ends))]
    steps = [np.abs(np.diff(_lines(values, axis), axis=0)) for axis in range(values.ndim) if values.shape[axis] > 1]
    shares.append(float(np.mean([np.mean(one < FLAT) for one in steps])) if steps else 1.0)
    steady = np.mean([_ratio(one.mean(), np.sqrt(np.mean(np.square(one)))) for one in steps]) if steps else 0.0
    moments = [math.copysign(math.log1p(abs(skewness)), skewness), math.log(0.1 + kurtosis)]
    return np.array([*ratios, *moments, *np.log(LEAST_SHARE + np.array(shares)), steady])


def _ratio(first: float, other: float) -> float:
    """The logarithm of the ratio of two distances, which may be 0."""
    return math.log((LEAST_DISTANCE + float(first)) / (LEAST_DISTANCE + float(other)))


def _symmetry(values: NDArray[np.float32]) -> Floats:
    """(axes * 2,) as in `Composition`."""
    rows = []
    for axis, size in enumerate(values.shape):
        means = _shares(size) @ values.mean(axis=tuple(one for one in range(values.ndim) if one != axis))
        parts = (means - means[::-1]) / 2, (means + means[::-1]) / 2
        rows += [math.log(LEAST_DISTANCE + float(np.sqrt(np.mean(np.square(part))))) for part in parts]
    return np.array(rows)


def _blocks(values: NDArray[Any]) -> Floats:
    """The mean of each block, of those that mirror each other one."""
    means = values
    for axis, size in enumerate(values.shape):
        means = np.moveaxis(np.tensordot(_shares(size), means, axes=(1, axis)), 0, axis)
    for axis in range(means.ndim):
        means = np.take((means + np.flip(means, axis)) / 2, range(BLOCKS // 2), axis=axis)
    return np.asarray(means, dtype=np.float64).ravel()


def _shares(size: int) -> NDArray[np.float32]:
    """(blocks, size) what each voxel of an axis has of each block: equally long ones, whose bounds may cut a voxel."""
    length, starts = size / BLOCKS, np.arange(BLOCKS)[:, None] * (size / BLOCKS)
    ends = np.minimum(np.arange(size) + 1, starts + length)
    return cast(
        "NDArray[np.float32]", (np.maximum(ends - np.maximum(np.arange(size), starts), 0) / length).astype(np.float32)
    )


# Voxels of a window and of an image that are noted, evenly spread.
OF_A_WINDOW, OF_AN_IMAGE = 2**12, 2**16
# Share of a window that has to be tissue.
MOSTLY = 0.75
# Windows of which something is noted: of more, as of a slide, every second, every fourth...
MOST_WINDOWS = 2**11


@dataclass(frozen=True, eq=False)
class Observation:
    """One image as a model saw it.

    sample:   (channels, n) intensities of the network's input; (0, 0) where it has not seen it yet
    composed: how it is composed, the mean of all windows; None where the network has not seen it yet
    features: (features,) pooled, the mean of all windows; None where what computes the network gives none
    patient:  whose image it is, where somebody asks
    """

    header: HeaderFacts
    sample: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    composed: Composition | None = None
    features: NDArray[np.float64] | None = None
    patient: str = ""

    @property
    def is_seen(self) -> bool:
        """Whether a network has seen the image; a large volume passes it only while its result is written."""
        return self.composed is not None

    @property
    def is_constant(self) -> bool:
        """Whether the network has seen one value everywhere."""
        return self.is_seen and bool((np.nanmax(self.sample, axis=1) == np.nanmin(self.sample, axis=1)).all())


@dataclass(eq=False)
class Watching:
    """A network that notes what it sees of one image.

    passes_on: whether the features stay among its outputs, for another one that notes them too
    composes:  whether it notes how windows are composed, which takes long, and a gate alone asks
    shows:     whether something of a window is noted; None where it is of every one
    """

    network: Network
    passes_on: bool = False
    composes: bool = True
    shows: Callable[[NDArray[np.float32]], bool] | None = None
    samples: list[NDArray[np.float32]] = field(default_factory=list)
    features: list[NDArray[np.float64]] = field(default_factory=list)
    composed: list[Composition] = field(default_factory=list)
    _ends: NDArray[np.float32] | None = None
    _seen: int = 0
    _every: int = 1

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        outputs = dict(self.network(batch, *context))
        self._note(batch, outputs)
        return outputs

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, of each network; each tile is a window that is seen."""
        self._note(tiles, {})
        return cast("BagNetwork", self.network).encoded(tiles)

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag, whose features are noted as they are pooled."""
        outputs = dict(cast("BagNetwork", self.network).pooled(features, places))
        self._note_features(outputs, range(len(places)))
        return outputs

    def _note(self, batch: NDArray[np.float32], outputs: dict[str, Array]) -> None:
        shown = [n for n, window in enumerate(batch) if self.shows is None or self.shows(window)]
        noted = shown[-self._seen % self._every :: self._every]
        self._seen += len(shown)
        self._note_features(outputs, noted)
        step = max(1, batch[0, 0].size // OF_A_WINDOW)
        self.samples.extend(np.array(window.reshape(len(window), -1)[:, ::step]) for window in batch[noted])
        if self.composes:
            self.composed.extend(window_composition(window) for window in batch[noted])
        if len(self.samples) > MOST_WINDOWS:
            self.samples, self.features, self.composed = self.samples[::2], self.features[::2], self.composed[::2]
            self._every *= 2
        if self._ends is None or self.is_blank:
            self._ends = _ends(batch, self._ends)

    def _note_features(self, outputs: dict[str, Array], noted: Sequence[int]) -> None:
        if POOLED in outputs:
            self.features.extend(np.asarray(outputs[POOLED], dtype=np.float64)[list(noted)])
            if not self.passes_on:
                del outputs[POOLED]

    @property
    def is_blank(self) -> bool:
        """Whether all that the network has seen is one value in each channel; voxels without a value do not count."""
        return self._ends is not None and bool((self._ends[0] == self._ends[1]).all())

    def observation(
        self, image: Image, covariates: CovariateValues | None = None, *, is_whole: bool = True
    ) -> Observation:
        """The observation of an image, with its header; of a part of an image its header alone."""
        if not (self.samples and is_whole):
            return Observation(header_facts(image, covariates))
        sample = np.concatenate(self.samples, axis=1)
        features = np.mean(self.features, axis=0) if self.features else None
        spread = sample[:, :: max(1, sample.shape[1] // OF_AN_IMAGE)]
        composed, header = mean_composition(self.composed) if self.composed else None, header_facts(image, covariates)
        return Observation(header, spread, composed, features)


def tissue_shown(image: Image, preprocessing: object) -> Callable[[NDArray[np.float32]], bool] | None:
    """Of a slide, whether a window as the network sees it is tissue for the most part, of which alone a gate judges.

    None where every window counts: of bags, whose tiles are all tissue, and where the intensities of the file cannot be
    told from what the network sees.
    """
    if not image.is_slide or not isinstance(preprocessing, Preprocessing) or preprocessing.tiles is not None:
        return None
    if (scales := preprocessing.colour_scales) is None:
        return None

    def shows(window: NDArray[np.float32]) -> bool:
        """Whether most of its pixels are dyed."""
        pixels = np.stack([scale.undo(channel) for scale, channel in zip(scales, window, strict=False)])
        return float((coarse_mask.saturation(pixels) > coarse_mask.PALEST).mean()) > MOSTLY

    return shows


def _ends(batch: NDArray[np.float32], before: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(2, channels) lowest and highest value of each channel, also of the windows before."""
    rows = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1)
    rows = rows if before is None else np.concatenate([rows, before.T], axis=1)
    return np.stack([np.fmin.reduce(rows, axis=1), np.fmax.reduce(rows, axis=1)])
