"""Parts of the losses of label maps: probabilities and truth of each label, sums, and means over labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Added to both sides of a ratio, so that it never divides by 0.
SMOOTH = 1e-5
# Bins of equal width between 0 and 1, as published for `ace`.
BINS = 20


def by_label(logits: Tensor, target: Tensor, labels: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """(batch, labels, *spatial) probability and truth of each label, without the background.

    labels: the channels; without them all but the background
    """
    channels = list(range(1, logits.shape[1]) if labels is None else labels)
    truth = torch.stack([target == channel for channel in channels], dim=1).to(logits.dtype)
    return logits.softmax(dim=1)[:, channels], truth


def sums(values: Tensor) -> Tensor:
    """(labels,) of (batch, labels, *spatial), over the whole batch."""
    return values.sum(dim=(0, *range(2, values.ndim)))


def over_labels(costs: Tensor, truth: Tensor) -> Tensor:
    """Mean of (labels,) costs over the labels that are there; 0 where none is."""
    present = (truth.flatten(2).amax(dim=(0, 2)) > 0).to(costs.dtype)
    return (costs * present).sum() / present.sum().clamp(min=1)


def ace(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average calibration error (mL1-ACE, hard bins): of each image and label, the mean over the bins that have voxels.

    A bin's error is the distance between the mean probability in it and the share of its voxels that have the label.
    Barfoot et al., arXiv:2506.03942
    """
    probabilities, truth = (values.flatten(2) for values in by_label(logits, target))
    places = (probabilities.detach() * BINS).long().clamp(max=BINS - 1)
    empty = probabilities.new_zeros(*probabilities.shape[:2], BINS)
    counts = empty.scatter_add(2, places, torch.ones_like(truth))
    apart = empty.scatter_add(2, places, probabilities - truth).abs() / counts.clamp(min=1)
    return over_labels((apart.sum(dim=2) / (counts > 0).sum(dim=2)).mean(dim=0), truth)
