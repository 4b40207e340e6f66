"""Losses of images, of (batch, channels, *spatial) predictions and targets, one cost a voxel; NaN is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Of the structural similarity: the side of its window, and constants for numbers whose deviation is 1 and whose range
# is about 6. Wang et al., IEEE Trans Image Process 2004, doi:10.1109/TIP.2003.819861
WINDOW = 7
STABLE_MEAN = (0.01 * 6) ** 2
STABLE_VARIANCE = (0.03 * 6) ** 2
# The share of the similarity beside the absolute error, without which levels drift: Zhao et al., arXiv:1511.08861
SHARE = 0.84


def absolute_error(made: Tensor, target: Tensor) -> Tensor:
    """The absolute error."""
    return (made - target).abs()


def squared_error(made: Tensor, target: Tensor) -> Tensor:
    """The squared error."""
    return (made - target) ** 2


def dissimilarity(made: Tensor, target: Tensor) -> Tensor:
    """1 less the structural similarity around each voxel, mixed with the absolute error."""
    pool = {1: torch.nn.functional.avg_pool1d, 2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}[
        made.ndim - 2
    ]
    size = [min(WINDOW, n - 1 + n % 2) for n in made.shape[2:]]

    def mean(one: Tensor) -> Tensor:
        """The mean over a window around each voxel, of what lies in the image."""
        return pool(one, size, stride=1, padding=[n // 2 for n in size], count_include_pad=False)

    ours = mean(made)
    theirs = mean(target)
    ours_spread = mean(made**2) - ours**2
    theirs_spread = mean(target**2) - theirs**2
    both = mean(made * target) - ours * theirs
    alike = (2 * ours * theirs + STABLE_MEAN) * (2 * both + STABLE_VARIANCE)
    most = (ours**2 + theirs**2 + STABLE_MEAN) * (ours_spread + theirs_spread + STABLE_VARIANCE)
    return SHARE * (1 - alike / most) + (1 - SHARE) * absolute_error(made, target)


# The logarithm of a deviation stays within these bounds, of numbers whose own deviation is about 1.
LEAST_LOG, MOST_LOG = -7.0, 4.0
# The weight of what deviations cost, as a share of the cost of the image.
DEVIATION_SHARE = 0.1
LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": absolute_error,
    "mse": squared_error,
    "ssim": dissimilarity,
}


def mean_cost(loss: str, made: Tensor, target: Tensor) -> Tensor:
    """The mean cost of the voxels that are known; what is not is taken as it was made, so that it costs nothing."""
    known = target.isfinite()
    # A hole is filled before anything is computed: no gradient survives a NaN, not even one multiplied by 0.
    cost = LOSSES[loss](made, torch.where(known, target, made.detach()))
    return (cost * known).sum() / known.sum().clamp(min=1)


def deviation_cost(made: Tensor, logs: Tensor, target: Tensor) -> Tensor:
    """What logarithms of deviations cost as those of a normal distribution of the errors, which learn nothing by it.

    So error bars take nothing from the image: Stirn et al., arXiv:2212.09184
    """
    known = target.isfinite()
    bounded = logs.clamp(LEAST_LOG, MOST_LOG)
    error = torch.where(known, target - made.detach(), 0.0)
    cost = 0.5 * (error * torch.exp(-bounded)) ** 2 + bounded
    return (cost * known).sum() / known.sum().clamp(min=1)
