"""Losses of overlap: Dice and its kin, of (batch, channels, *spatial) logits of any number of axes.

A label without a voxel in the batch is left out of the mean: only the other terms of the loss count it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import torch
from isocenter.tasks.shared.loss_terms import SMOOTH, by_label, over_labels, sums

if TYPE_CHECKING:
    from torch import Tensor

# The weights of false positive and of false negative voxels, as published.
FALSE_POSITIVE, FALSE_NEGATIVE = 0.3, 0.7
# The focal exponent, as published: labels that are found well count less.
FOCAL = 0.75


def dice(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice of each label over the whole batch, the mean over the labels that the batch has.

    Milletari et al., arXiv:1606.04797
    """
    probabilities, truth = by_label(logits, target)
    size = sums(probabilities) + sums(truth)
    return over_labels(1 - (2 * sums(probabilities * truth) + SMOOTH) / (size + SMOOTH), truth)


def generalised_dice(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - one Dice of all labels and the background, each weighted by the inverse square of its volume.

    Sudre et al., arXiv:1707.03237
    """
    probabilities, truth = by_label(logits, target, range(logits.shape[1]))
    volume = sums(truth)
    share = torch.where(volume > 0, 1 / volume.clamp(min=1) ** 2, torch.zeros_like(volume))
    both, size = (share * sums(probabilities * truth)).sum(), (share * (sums(probabilities) + volume)).sum()
    return 1 - 2 * both / size  # the batch has voxels, so that some label has


def tversky(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Dice in which a missed voxel costs more than one that is too much: for structures that are easily missed.

    Salehi et al., arXiv:1706.05721
    """
    probabilities, truth = by_label(logits, target)
    return over_labels(1 - _tversky(probabilities, truth), truth)


def focal_tversky(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Tversky in which a label that is found badly counts more than one that is found well.

    Abraham and Khan, arXiv:1810.07842
    """
    probabilities, truth = by_label(logits, target)
    # The slope of a power below 1 is infinite at 0.
    return over_labels((1 - _tversky(probabilities, truth)).clamp(min=SMOOTH) ** FOCAL, truth)


def _tversky(probabilities: Tensor, truth: Tensor) -> Tensor:
    both = sums(probabilities * truth)
    wrong = FALSE_POSITIVE * sums(probabilities * (1 - truth)) + FALSE_NEGATIVE * sums((1 - probabilities) * truth)
    return (both + SMOOTH) / (both + wrong + SMOOTH)
