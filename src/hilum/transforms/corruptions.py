"""Images made worse as scans get worse, before any preprocessing: one table of strengths, in physical terms.

The changes are those of augmentation, each at exactly the strength that the table states. What is random (noise, the
place of metal, when somebody moves) is the same at every severity of a case, which so differs in strength alone.
Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261; Di Salvo et al., arXiv:2406.17536
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from hilum.errors import DatasetError, UsageError
from hilum.lazy import torch
from hilum.transforms import _augment_artefacts, _augment_intensity, random_draws
from hilum.values import MM, Array, Image

if TYPE_CHECKING:
    from torch import Tensor

# The fact of an image that was made of another one: the function from that, and from the same unchanged, to it.
REMAKE = "remake"
# The range of an image is that between these shares of its voxels: a few hot ones must not set the scale.
RANGE = (0.01, 0.99)
MOST_READ = 2**20
# Without a size in mm, and below so many mm (microscopy), a length of 1 is one part of so many of the shorter side.
SMALLEST = 20.0
LENGTHS = 256
# Standard deviation in HU of a CT of full dose; Hounsfield units that a picture of 8 bits shows.
FULL_DOSE = 12.0
WINDOW = 400.0
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class ScanFacts:
    """The facts of an image by which strengths get their size.

    steps:      length of a voxel per axis, in mm, or in the unit that stands for it
    hounsfield: one HU as a share of the image's range
    zero:       the place of no signal where the image's range is 0 to 1
    bright:     the place of the 99th percentile: 1, of an even image 0
    """

    steps: tuple[float, ...]
    hounsfield: float
    zero: float
    bright: float


Change = Callable[["Tensor", float, np.random.Generator, ScanFacts], "Tensor"]


@dataclass(frozen=True)
class Corruption:
    """One way in which images get worse.

    strengths: at the severities 1 to 5, in `unit`
    change:    (1, channels, *spatial) of an image whose range is 0 to 1
    fewest:    axes that an image must have
    befalls:   the change in a profile of images that have it; empty: all images can have it
    limits:    least and largest strength that can be
    from_zero: whether intensities count from no signal, so that none may be below zero
    """

    strengths: tuple[float, float, float, float, float]
    unit: str
    change: Change
    fewest: int = 1
    befalls: str = ""
    limits: tuple[float, float] = (0.0, np.inf)
    from_zero: bool = False


def _exactly(
    change: Callable[..., Tensor], images: Tensor, strength: float, rng: np.random.Generator, _: ScanFacts
) -> Tensor:
    return change(images, strength, [rng], least=1.0)


def _blur(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    return _augment_intensity.gaussian_smooth(images, strength / np.array([scan.steps]))


def _move(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    return _augment_artefacts.motion(images, strength, [rng], scan.steps)


def _lower_dose(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    """Variance grows as one over the dose: what is added is that of the low dose less that of the full one."""
    return _augment_artefacts.dose_noise(
        images, FULL_DOSE * scan.hounsfield * float(np.sqrt(1 / strength - 1)), [rng], least=1.0
    )


def _with_metal(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    deviation = float(images.std().clamp(min=1e-6))
    return _augment_artefacts.metal(images, strength * scan.hounsfield / deviation, [rng], least=1.0)


def _magnitude_noise(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    """The length of a complex signal, both of whose parts have white noise: Rician intensities.

    Gudbjartsson and Patz, Magn Reson Med 1995, doi:10.1002/mrm.1910340618
    """
    deviation = strength * (scan.bright - scan.zero)
    real, imaginary = (
        deviation * torch.as_tensor(rng.standard_normal(images.shape), dtype=images.dtype) for _ in range(2)
    )
    return torch.hypot((images - scan.zero).clamp(min=0) + real, imaginary) + scan.zero


def _count_photons(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    """Each voxel as a count, which is Poisson's, where the 99th percentile has `strength` photons in the mean."""
    photon = max(scan.bright - scan.zero, 1e-6) / strength
    counts = rng.poisson((images - scan.zero).clamp(min=0).double().numpy() / photon)
    return torch.as_tensor(counts * photon, dtype=images.dtype) + scan.zero


def _jpeg(images: Tensor, strength: float, rng: np.random.Generator, scan: ScanFacts) -> Tensor:
    """Slice by slice in the first two axes, 8 bits over the image's extent; a picture of three channels as colour."""
    [image] = images.numpy()
    low, high = image.min(), image.max()
    levels = np.rint((image - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    if len(image) == 3 and image.ndim == 3:
        back = np.moveaxis(_compress_slice(np.moveaxis(levels, 0, -1), int(strength)), -1, 0)
    else:
        slices = np.moveaxis(levels.reshape(*levels.shape[:3], -1), -1, 1)
        coded = [[_compress_slice(one, int(strength)) for one in channel] for channel in slices]
        back = np.moveaxis(np.array(coded), 1, -1).reshape(levels.shape)
    return torch.as_tensor(back / 255 * (high - low) + low, dtype=images.dtype)[None]


def _compress_slice(plane: Array, quality: int) -> Array:
    """One slice, written and read."""
    file = BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(plane)).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


SHARE = "of the image's range"
CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption(
        (0.02, 0.04, 0.08, 0.16, 0.32), f"standard deviation, {SHARE}", partial(_exactly, _augment_intensity.noise)
    ),
    "blur": Corruption((0.5, 1.0, 1.5, 2.0, 3.0), "mm, standard deviation", _blur),
    "motion": Corruption((1.0, 2.0, 4.0, 6.0, 10.0), "degrees and mm at the most", _move, fewest=2),
    "ghosts": Corruption(
        (0.2, 0.35, 0.5, 0.7, 0.9),
        "of the signal of some lines lost",
        partial(_exactly, _augment_artefacts.ghosting),
        limits=(0.0, 1.0),
    ),
    "bias_field": Corruption(
        (0.1, 0.2, 0.3, 0.45, 0.6), "deviation of its logarithm", partial(_exactly, _augment_artefacts.bias_field)
    ),
    "gamma": Corruption(
        (0.15, 0.3, 0.6, 1.0, 1.5), "exponent 1 + this, or one over it", partial(_exactly, _augment_intensity.gamma)
    ),
    "contrast": Corruption((0.1, 0.2, 0.35, 0.5, 0.7), "more or less", partial(_exactly, _augment_intensity.contrast)),
    "low_resolution": Corruption(
        (0.5, 1.0, 2.0, 3.0, 5.0), "longer voxels", partial(_exactly, _augment_intensity.low_resolution)
    ),
    "jpeg": Corruption((75, 50, 30, 15, 7), "quality", _jpeg, fewest=2, limits=(1, 100)),
    "metal": Corruption((100, 200, 400, 800, 1600), "HU, streaks", _with_metal, fewest=2, befalls="metal"),
    "dose": Corruption(
        (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32),
        "of the dose",
        _lower_dose,
        fewest=2,
        befalls="dose_noise",
        limits=(1e-4, 1.0),
    ),
    # The noise of magnitudes occurs where signals are sampled in k-space, as ghosts do.
    "rician": Corruption(
        (0.02, 0.04, 0.08, 0.16, 0.32),
        "standard deviation, of the 99th percentile",
        _magnitude_noise,
        befalls="ghosting",
        from_zero=True,
    ),
    "poisson": Corruption(
        (1000, 300, 100, 30, 10), "photons at the 99th percentile", _count_photons, limits=(1.0, np.inf), from_zero=True
    ),
}


def corruption_key(name: str) -> str:
    """The key of a corruption, however its words are joined. Raises UsageError with the list for an unknown one."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    if key not in CORRUPTIONS:
        remedy = f"Choose all, or of {', '.join(CORRUPTIONS)}"
        raise UsageError(f"there is no {name.strip()!r}", "--corruptions", remedy)
    return key


def refuse_strength(name: str, strength: float, where: str) -> None:
    """Raise UsageError for a strength that the corruption of this key cannot have, such as zero photons."""
    least, most = CORRUPTIONS[name].limits
    if not least <= strength <= most or not np.isfinite(strength):
        limits = f"from {least:g} on" if np.isinf(most) else f"from {least:g} to {most:g}"
        raise UsageError(f"{name} of {strength:g}", where, f"Give {limits} ({CORRUPTIONS[name].unit})")


def falls_below_zero(image: Image) -> bool:
    """Whether intensities do not count from no signal; a few voxels below zero are the ringing of a resampling."""
    return _range_of(image.data, image.valid)[0] < 0


def corrupt_image(image: Image, name: str, severity: int, *, seed: int, case: str) -> Image:
    """The image made worse by a severity, 1 to 5; `damage_image` at the strength that the table states for it."""
    return damage_image(image, name, CORRUPTIONS[name].strengths[severity - 1], seed=seed, case=case)


def damage_image(
    image: Image, name: str, strength: float, *, seed: int, case: str, scale_of: Image | None = None
) -> Image:
    """The image made worse, of the same type on the same grid; what is no measurement stays.

    strength: in the unit of the corruption
    case:     what draws belong to, besides the seed
    scale_of: the image by whose range strengths count, where it is not the image itself
    Raises UsageError for an impossible strength; DatasetError where intensities below zero cannot have this damage.
    """
    kind = CORRUPTIONS[name]
    refuse_strength(name, strength, case)
    data = image.data
    measured = image.valid
    low, high = _range_of(data, measured) if scale_of is None else _range_of(scale_of.data, scale_of.valid)
    if kind.from_zero and low < 0:
        problem = f"intensities below zero cannot have {name} noise: it grows from no signal, which is 0"
        raise DatasetError(problem, case, "Give images of magnitudes or counts, or another damage")
    width = high - low or 1.0
    spatial = image.geometry.shape
    filled = np.where(measured, data, low).astype(np.float32).reshape(1, -1, *spatial)
    scaled = torch.as_tensor((np.nan_to_num(filled, nan=low) - low) / width)
    rng = random_draws.sample_generator(seed, tuple(CORRUPTIONS).index(name), zlib.crc32(case.encode()))
    changed = kind.change(scaled, strength, rng, _scan_of(image, low, high)).numpy()
    restored = changed.reshape(data.shape) * width + low
    if data.dtype.kind in "iu":
        limits = np.iinfo(data.dtype)
        restored = np.rint(restored).clip(limits.min, limits.max)
    return image.with_pixels(np.where(measured, restored, data).astype(data.dtype))


@dataclass(frozen=True)
class Damage:
    """The way from a clean image to a damaged one, the same each time, also for a clean image that has changed.

    strengths: {corruption: strength in its unit}, applied in this order
    case:      what the draws belong to, besides the seed
    """

    strengths: Mapping[str, float]
    seed: int
    case: str

    def __call__(self, image: Image, original: Image | None = None) -> Image:
        """The damaged image, whose fact `REMAKE` is this damage.

        original: the clean image before it was changed, so that what is added to it makes no more noise
        """
        for name, strength in self.strengths.items():
            image = damage_image(image, name, strength, seed=self.seed, case=self.case, scale_of=original)
            if original is not None:
                original = damage_image(original, name, strength, seed=self.seed, case=self.case)
        return replace(image, facts={**image.facts, REMAKE: self})


def sample_damage(limits: Mapping[str, Sequence[float]], *, seed: int, case: str) -> Damage:
    """A damage with strengths sampled evenly between the limits of each corruption: {name: [least, most]}."""
    rng = random_draws.sample_generator(seed, 0, zlib.crc32(case.encode()), 1)
    strengths = {name: float(rng.uniform(least, most)) for name, (least, most) in limits.items()}
    return Damage(strengths, seed, case)


def _range_of(data: Array, measured: Array) -> tuple[float, float]:
    """The 1st and 99th percentile of what was measured."""
    values = np.where(measured, data, np.nan).astype(np.float32).ravel()
    low, high = np.nanquantile(values[:: 1 + values.size // MOST_READ], RANGE)
    return float(low), float(high)


def _scan_of(image: Image, low: float, high: float) -> ScanFacts:
    grid = image.geometry
    width = high - low or 1.0
    extents = np.multiply(grid.shape, grid.steps)
    in_mm = grid.spacing is not None and grid.unit == MM and max(extents) >= SMALLEST
    length = 1.0 if in_mm else max(min(extents) / LENGTHS, min(grid.steps))
    hounsfield = 255 / WINDOW if image.dtype == np.uint8 else 1.0
    steps = tuple(step / length for step in grid.steps)
    return ScanFacts(steps, hounsfield / width, zero=-low / width, bright=(high - low) / width)
