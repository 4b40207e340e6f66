"""Similarity of two images on one grid, as a loss: mean square, local correlation; of unlike ones MIND and information.

Each takes (1, 1, *spatial) images and a weight of the same shape, and returns a number that falls as they agree more.
Box means go axis by axis, each a product with a banded matrix: some cubes of 11 voxels would cost thirty times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SimilarityName = Literal["lncc", "mse", "mind", "mi", "nmi"]
# fixed, moved, weight -> loss
Similarity = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
# Voxels from the middle of a window of the local correlation to its end: of 2, 3 and 4, on six pairs of MR that no
# figure is stated of, 2 was the best (mean Dice 0.808, 0.803 with 4).
REACH = 2
# Of the variance of an image whose intensities lie in 0..1: what varies less is noise that correlates with nothing.
FLAT = 1e-4
# A variance: windows of the fixed image that vary less count less in the search for a motion of a whole image. A wrong
# place gains by their chance correlation with windows of more contrast: a still, smooth scene with 1 % of noise seemed
# to move by 1.5 mm without this, and by 0.0 mm with it and with both images smoothed.
CONTRAST = 0.01
# Bins of the intensities, 0 to 1, of mutual information. Mattes et al., doi:10.1109/TMI.2003.809072
BINS = 32
# MIND-SSC, Heinrich et al., MICCAI 2013, doi:10.1007/978-3-642-40811-3_24: patches reach one voxel, neighbours too.
PATCH = 1


def box_means(images: Tensor, reach: int) -> Tensor:
    """(samples, channels, *spatial) mean over the cube around each voxel, of the voxels that lie within the image."""
    for axis in range(2, images.ndim):
        images = multiply_axis(images, axis, _box(images.shape[axis], reach, images.dtype, str(images.device)))
    return images


def multiply_axis(images: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """One axis of a tensor multiplied with a matrix, (new, old)."""
    shape = images.shape
    if axis == images.ndim - 1:
        return images @ matrix.T
    rows = images.reshape(math.prod(shape[:axis]), shape[axis], -1)
    return (matrix @ rows).reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])


@lru_cache(maxsize=64)
def _box(size: int, reach: int, dtype: torch.dtype, device: str) -> Tensor:
    places = torch.arange(size, device=device)
    near = ((places[:, None] - places[None]).abs() <= reach).to(dtype)
    return near / near.sum(dim=1, keepdim=True)


def mean_square(fixed: Tensor, moved: Tensor, weight: Tensor) -> Tensor:
    """Mean square of the difference, in the unit of the images."""
    return mean_by_weights((fixed - moved).square(), weight)


def local_correlation(
    fixed: Tensor, moved: Tensor, weight: Tensor, reach: int = REACH, contrast: float = 0.0
) -> Tensor:
    """1 less the mean square of the correlation in a window around each voxel.

    contrast: a variance; windows of the fixed image that vary less count less. 0: all count alike
    Avants et al., Med Image Anal 2008, doi:10.1016/j.media.2007.06.004
    """
    share_seen = box_means(weight, reach).clamp(min=1e-3)
    parts = torch.cat([fixed, moved, fixed * fixed, moved * moved, fixed * moved], dim=1) * weight
    first, second, squares, others, products = (box_means(parts, reach) / share_seen).split(1, dim=1)
    covariance = products - first * second
    variances = (squares - first * first).clamp(min=0) + FLAT, (others - second * second).clamp(min=0) + FLAT
    if contrast:
        weight = weight * variances[0] / (variances[0] + contrast)
    return 1 - mean_by_weights(covariance.square() / (variances[0] * variances[1]), weight)


def mind_descriptor(images: Tensor) -> Tensor:
    """(1, pairs, *spatial) self-similarity of each voxel's surroundings, which modalities share: MIND-SSC.

    pairs: of neighbours that touch across an edge, 12 in three axes, 4 in two
    """
    ndim = images.ndim - 2
    steps = [(axis, sign) for axis in range(ndim) for sign in (-1, 1)]
    pairs = [(a, b) for a, b in combinations(steps, 2) if a[0] != b[0]]
    neighbours = {step: _shift(images, *step) for step in steps}
    apart = torch.cat([(neighbours[a] - neighbours[b]).square() for a, b in pairs], dim=1)
    apart = box_means(apart, PATCH)
    apart = apart - apart.amin(dim=1, keepdim=True)
    spread = apart.mean(dim=1, keepdim=True)
    usual = float(spread.detach().mean())
    spread = spread.clamp(1e-3 * usual + 1e-12, 1e3 * usual + 1e-12)  # as the authors' program limits it
    return torch.exp(-apart / spread)


def self_similarity(fixed: Tensor, moved: Tensor, weight: Tensor) -> Tensor:
    """Mean square difference of both images' MIND-SSC."""
    return mean_by_weights((mind_descriptor(fixed) - mind_descriptor(moved)).square().mean(dim=1, keepdim=True), weight)


def bin_weights(values: Tensor) -> Tensor:
    """(voxels, bins) share of each voxel in each bin: cubic B-splines around intensities of 0 to 1, which sum to 1."""
    apart = (values.reshape(-1, 1) * (BINS - 3) + 1 - torch.arange(BINS, device=values.device)).abs()
    near = 2 / 3 - apart.square() + apart**3 / 2
    far = (2 - apart).clamp(min=0) ** 3 / 6
    return torch.where(apart < 1, near, far)


def _entropies(fixed: Tensor, moved: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entropies in nats of the fixed image, of the moved one, and of both."""
    inside = weight.reshape(-1, 1)
    joint = (bin_weights(fixed) * inside).T @ bin_weights(moved.clamp(0, 1))
    joint = joint / inside.sum().clamp(min=1e-6)

    def entropy(shares: Tensor) -> Tensor:
        return -(shares * (shares + 1e-12).log()).sum()

    return entropy(joint.sum(dim=1)), entropy(joint.sum(dim=0)), entropy(joint)


def unshared_information(fixed: Tensor, moved: Tensor, weight: Tensor) -> Tensor:
    """The most information that two images can share in so many bins, less what they share: above 0, in nats."""
    first, second, both = _entropies(fixed, moved, weight)
    return math.log(BINS) - (first + second - both)


def normalised_unshared_information(fixed: Tensor, moved: Tensor, weight: Tensor) -> Tensor:
    """2 less the normalised mutual information, the sum of both entropies over their joint one; 0 to 1.

    Studholme et al., Pattern Recognition 1999, doi:10.1016/S0031-3203(98)00091-0
    """
    first, second, both = _entropies(fixed, moved, weight)
    return 2 - (first + second) / both.clamp(min=1e-6)


def figure_of_loss(name: SimilarityName, loss: float) -> float:
    """A loss as the figure that people know: correlation, information (nats), its normalised kind, else the loss."""
    return OFFSETS[name] - loss if name in OFFSETS else loss


def _shift(images: Tensor, axis: int, sign: int) -> Tensor:
    """The image moved by one voxel; beyond the edge the edge goes on."""
    size = images.shape[axis + 2]
    places = (torch.arange(size, device=images.device) + sign).clamp(0, size - 1)
    return images.index_select(axis + 2, places)


def mean_by_weights(values: Tensor, weight: Tensor) -> Tensor:
    """Mean by weights."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


SIMILARITIES: dict[str, Similarity] = {
    "lncc": local_correlation,
    "mse": mean_square,
    "mind": self_similarity,
    "mi": unshared_information,
    "nmi": normalised_unshared_information,
}
# Of figures that grow as images agree more: what the loss is taken from.
OFFSETS: dict[str, float] = {"lncc": 1.0, "mi": math.log(BINS), "nmi": 2.0}
# Those by which the last place of a rigid or affine motion is found.
OF_MOTION: dict[str, Similarity] = {**SIMILARITIES, "lncc": partial(local_correlation, contrast=CONTRAST)}
