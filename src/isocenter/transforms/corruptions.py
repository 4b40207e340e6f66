"""Images made worse as scans get worse, before any preprocessing: one table of strengths, in physical terms.

The changes are those of augmentation, each at exactly the strength that the table states. What is drawn (noise, the
place of metal, when somebody moves) is the same at every severity of a case, which so differs in strength alone.
Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261; Di Salvo et al., arXiv:2406.17536
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from isocenter.errors import UsageError
from isocenter.lazy import torch
from isocenter.transforms import _augment_artefacts, _augment_intensity, random_draws
from isocenter.values import MM, Array, Image

if TYPE_CHECKING:
    from torch import Tensor

# The range of an image is that between these shares of its voxels: a few hot ones must not set the scale.
RANGE, MOST_READ = (0.01, 0.99), 2**20
# Without a size in mm, and below so many mm (microscopy), a length of 1 is one part of so many of the shorter side.
SMALLEST, LENGTHS = 20.0, 256
# Standard deviation in HU of a CT of full dose; Hounsfield units that a picture of 8 bits shows.
FULL_DOSE, WINDOW = 12.0, 400.0
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class ScanFacts:
    """The facts of an image by which strengths get their size.

    steps:      length of a voxel per axis, in mm, or in the unit that stands for it
    hounsfield: one HU as a share of the image's range
    """

    steps: tuple[float, ...]
    hounsfield: float


Change = Callable[["Tensor", float, np.random.Generator, ScanFacts], "Tensor"]


@dataclass(frozen=True)
class Corruption:
    """One way in which images get worse.

    strengths: at the severities 1 to 5, in `unit`
    change:    (1, channels, *spatial) of an image whose range is 0 to 1
    fewest:    axes that an image must have
    befalls:   the change in a profile of images that have it; empty: all images can have it
    """

    strengths: tuple[float, float, float, float, float]
    unit: str
    change: Change
    fewest: int = 1
    befalls: str = ""


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
        (0.2, 0.35, 0.5, 0.7, 0.9), "of the signal of some lines lost", partial(_exactly, _augment_artefacts.ghosting)
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
    "jpeg": Corruption((75, 50, 30, 15, 7), "quality", _jpeg, fewest=2),
    "metal": Corruption((100, 200, 400, 800, 1600), "HU, streaks", _with_metal, fewest=2, befalls="metal"),
    "dose": Corruption(
        (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32), "of the dose", _lower_dose, fewest=2, befalls="dose_noise"
    ),
}


def corruption_key(name: str) -> str:
    """The key of a corruption, however its words are joined. Raises UsageError with the list for an unknown one."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    if key not in CORRUPTIONS:
        raise UsageError(
            f"there is no {name.strip()!r}", "--corruptions", f"Choose all, or of {', '.join(CORRUPTIONS)}"
        )
    return key


def corrupt_image(image: Image, name: str, severity: int, *, seed: int, case: str) -> Image:
    """The image made worse, of the same type on the same grid; what is no measurement stays.

    severity: 1 to 5
    """
    kind = CORRUPTIONS[name]
    data, measured = image.data, image.valid
    spatial = image.geometry.shape
    measured_data = np.where(measured, data, np.nan).astype(np.float32).reshape(1, -1, *spatial)
    ends = np.nanquantile(measured_data.ravel()[:: 1 + measured_data.size // MOST_READ], RANGE)
    low, width = float(ends[0]), float(ends[1] - ends[0]) or 1.0
    scaled = torch.as_tensor((np.nan_to_num(measured_data, nan=low) - low) / width)
    rng = random_draws.sample_generator(seed, tuple(CORRUPTIONS).index(name), zlib.crc32(case.encode()))
    changed = kind.change(scaled, kind.strengths[severity - 1], rng, _scan_of(image, width)).numpy()
    restored = changed.reshape(data.shape) * width + low
    if data.dtype.kind in "iu":
        limits = np.iinfo(data.dtype)
        restored = np.rint(restored).clip(limits.min, limits.max)
    return image.with_pixels(np.where(measured, restored, data).astype(data.dtype))


def _scan_of(image: Image, width: float) -> ScanFacts:
    grid = image.geometry
    extents = np.multiply(grid.shape, grid.steps)
    in_mm = grid.spacing is not None and grid.unit == MM and max(extents) >= SMALLEST
    length = 1.0 if in_mm else max(min(extents) / LENGTHS, min(grid.steps))
    hounsfield = 255 / WINDOW if image.dtype == np.uint8 else 1.0
    return ScanFacts(tuple(step / length for step in grid.steps), hounsfield / width)
