"""What a label map costs: terms of a loss over (batch, channels, *spatial) logits, for any number of axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Below this, the two sides of a ratio would divide by nothing.
SMOOTH = 1e-5
# Of the focal loss, as published.
GAMMA = 2.0
# Voxels that a soft surface may lie beside the true one and still count: the width of the step between two labels.
BESIDE = 1

Term = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]


def label_loss(name: str, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The sum of the terms that `name` joins with "+".

    logits:  (batch, channels, *spatial) in float32, background first; target: (batch, *spatial) channel numbers
    weights: (channels,) how much a voxel of each counts where voxels are counted; all alike without
    """
    return torch.stack([term(logits, target, weights) for term in LOSSES[name]]).sum()


def entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, the mean over voxels."""
    return torch.nn.functional.cross_entropy(logits, target, weight=weights)


def focal(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in which voxels that are nearly right count little (Lin et al., arXiv:1708.02002)."""
    said = logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    cost = -((1 - said.exp()) ** GAMMA) * said
    counts = torch.ones_like(cost) if weights is None else weights[target]
    return (cost * counts).sum() / counts.sum()


def dice(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice of each label over the whole batch, the mean over the labels that the batch has.

    A label without a voxel in the batch has no overlap to better: there the other term alone speaks.
    Milletari et al., arXiv:1606.04797
    """
    probabilities, truth = logits.softmax(dim=1)[:, 1:], _each_label(target, logits)
    axes = (0, *range(2, logits.ndim))
    both = (probabilities * truth).sum(dim=axes)
    size = probabilities.sum(dim=axes) + truth.sum(dim=axes)
    return _over_labels(1 - (2 * both + SMOOTH) / (size + SMOOTH), truth)


def boundary(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - F1 of the labels' soft surfaces, a voxel beside each other still counting; for thin and tiny structures.

    A surface is what a minimum over the neighbours takes away, so that each piece counts by its surface and not by its
    volume, and a thin one is all surface. Max-pooling makes it: no distance map, and any number of axes.
    Bokhovkin and Burnaev, arXiv:1905.07852
    """
    probabilities, truth = logits.softmax(dim=1)[:, 1:], _each_label(target, logits)
    said, true = _surface(probabilities), _surface(truth)
    axes = (0, *range(2, logits.ndim))
    right = ((said * _widened(true)).sum(dim=axes) + SMOOTH) / (said.sum(dim=axes) + SMOOTH)
    found = ((true * _widened(said)).sum(dim=axes) + SMOOTH) / (true.sum(dim=axes) + SMOOTH)
    return _over_labels(1 - 2 * right * found / (right + found + SMOOTH), truth)


LOSSES: Mapping[str, tuple[Term, ...]] = {
    "dice+ce": (dice, entropy),
    "ce": (entropy,),
    "dice+focal": (dice, focal),
    "dice+ce+boundary": (dice, entropy, boundary),
}


def _each_label(target: Tensor, logits: Tensor) -> Tensor:
    """(batch, labels, *spatial) where each label is, without the background."""
    return torch.stack([target == channel for channel in range(1, logits.shape[1])], dim=1).to(logits.dtype)


def _over_labels(costs: Tensor, truth: Tensor) -> Tensor:
    """Mean of (labels,) costs over the labels that are there; 0 where none is."""
    there = (truth.flatten(2).amax(dim=(0, 2)) > 0).to(costs.dtype)
    return (costs * there).sum() / there.sum().clamp(min=1)


def _surface(inside: Tensor) -> Tensor:
    outside = 1 - inside
    return _widened(outside) - outside


def _widened(values: Tensor) -> Tensor:
    """The largest value among each voxel and its neighbours."""
    pools = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)
    return pools[values.ndim - 3](values, kernel_size=2 * BESIDE + 1, stride=1, padding=BESIDE)
