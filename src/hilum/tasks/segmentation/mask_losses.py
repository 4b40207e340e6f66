"""Losses of label maps in which structures overlap, readers are divided, or not everything is known.

All come down to the losses by name: a region is one structure against the rest of the image, an unknown voxel is left
out, of divided readers the network predicts the share, and a structure that a case does not know is a part of its
background there; as a region it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hilum.lazy import torch
from hilum.tasks.shared import label_losses
from hilum.tasks.shared.label_losses import SMOOTH, TERMS

if TYPE_CHECKING:
    from torch import Tensor

    from hilum.tasks.segmentation.targets import Truth

# Terms that look at a voxel's neighbours, of which some may not be known; all others count voxel by voxel.
NEIGHBOURS = frozenset(name for name, term in TERMS.items() if term.counts == "shape")
# Losses of which a share can be the truth.
OF_SHARES = ("dice+ce", "ce")
# The logit of a class that is a part of the background: a probability of 0, and no infinity that 0 is multiplied with.
NEVER = -1e4


def known_structures(truth: Truth, logits: Tensor) -> Tensor | None:
    """(codes, structures) whether a code says anything of a structure; None where every case knows all."""
    return torch.as_tensor(truth.known_by_code, device=logits.device) if truth.combinations else None


def known_voxels(logits: Tensor, target: Tensor, unknown: int) -> tuple[Tensor, Tensor]:
    """(1, channels, voxels) logits and (1, voxels) target of the voxels of a batch of which something is known."""
    of_known = target != unknown
    return logits.movedim(1, -1)[of_known].T[None], target[of_known][None]


def mask_loss(
    name: str,
    logits: Tensor,
    target: Tensor,
    truth: Truth,
    exclusive: bool,
    weights: Sequence[float] | None = None,
    lines: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """The sum of the terms of a name over the known voxels.

    logits:  (batch, channels, *spatial); target: (batch, *spatial) codes, as `truth` explains
    weights: of the background and each structure; lines: channels of structures with a centreline
    """
    weights_of_labels = None if weights is None else logits.new_tensor(weights)
    if truth.is_partial:
        logits, target = known_voxels(logits, target, truth.codes.unknown)
    structures_known = known_structures(truth, logits)
    if exclusive and structures_known is not None:
        logits = merge_unknown_structures(logits, structures_known[target].movedim(-1, 1))
    if exclusive and not truth.is_divided:
        target = target if structures_known is None else torch.as_tensor(truth.codes.rows, device=target.device)[target]
        if target.numel():
            return label_losses.label_loss(name, logits, target, weights_of_labels, lines, spacing)
        return logits.sum()
    groups = [(0,), *truth.groups] if exclusive else truth.groups
    shares = group_shares(groups, logits.new_tensor(truth.codes.shares))
    return target_loss(
        name, logits, target, shares, weights_of_labels, not exclusive, truth.is_divided, spacing, structures_known
    )


def merge_unknown_structures(logits: Tensor, structures_known: Tensor) -> Tensor:
    """The logits of which unknown structures have joined the background: their probabilities are added to its own.

    logits: (batch, channels, *spatial), the background first
    structures_known: (batch, structures, *spatial) whether each is
    Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, arXiv:2007.03868
    """
    others = logits[:, 1:].masked_fill(structures_known, -torch.inf)
    background = torch.cat([logits[:, :1], others], dim=1).logsumexp(dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(~structures_known, NEVER)], dim=1)


def target_loss(
    name: str,
    logits: Tensor,
    target: Tensor,
    shares: Tensor,
    weights: Tensor | None,
    overlapping: bool,
    divided: bool,
    spacing: Sequence[float] | None = None,
    structures_known: Tensor | None = None,
) -> Tensor:
    """The loss of this name; 0 where there is no voxel.

    logits:      (batch, channels, *spatial); target: (batch, *spatial) codes
    shares:      (codes, channels) of the readers that a code says of each channel
    weights:     (channels,) of exclusive labels; (1 + channels,), the background first, of those that overlap
    overlapping: every channel is a structure of its own against the rest, and the loss is the mean over them; else the
                 channels are classes, of which readers are divided
    divided:     some shares lie between 0 and 1
    spacing:     mm per axis of the grid
    structures_known:       (codes, channels) whether a code says anything of an overlapping channel; None: of all
    """
    if not target.numel():
        return logits.sum()
    if not overlapping:
        return share_loss(name, logits, shares[target].movedim(-1, 1), weights)
    costs = []
    for channel in range(logits.shape[1]):
        both = torch.stack([torch.zeros_like(logits[:, channel]), logits[:, channel]], dim=1)
        pair_of_weights = None if weights is None else weights[[0, channel + 1]]
        share = shares[target, channel]
        if structures_known is not None:
            voxels_known = structures_known[target, channel]
            both = both.movedim(1, -1)[voxels_known].T[None]
            share = share[voxels_known][None]
            if not share.numel():
                continue
        if divided:
            costs.append(share_loss(name, both, torch.stack([1 - share, share], dim=1), pair_of_weights))
        else:
            costs.append(label_losses.label_loss(name, both, (share > 0.5).long(), pair_of_weights, spacing=spacing))
    return torch.stack(costs).mean() if costs else 0 * logits.sum()


def share_loss(name: str, logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """The sum of the terms of a name in `OF_SHARES`, of (batch, channels, *spatial) shares that sum to 1."""
    terms = {"dice": share_dice, "ce": share_entropy}
    return torch.stack([terms[one](logits, truth, weights) for one in name.split("+")]).sum()


def share_entropy(logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy with the shares, the mean over voxels; the least where the model is as sure as readers agree."""
    counts = truth if weights is None else truth * weights.reshape(-1, *[1] * (logits.ndim - 2))
    return -(counts * logits.log_softmax(dim=1)).sum() / counts.sum()


def share_dice(logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - Dice of each label over the batch, written with differences: the least exactly where the shares are met.

    The product of the usual soft Dice is largest where a share of a half is called certain. Where truth is 0 or 1 both
    are the same. A label that nobody contoured in the batch is left out.
    Wang et al., Dice semimetric losses, arXiv:2303.16296
    """
    predicted = logits.softmax(dim=1)[:, 1:]
    true = truth[:, 1:]
    axes = (0, *range(2, logits.ndim))
    size = predicted.sum(dim=axes) + true.sum(dim=axes)
    apart = (predicted - true).abs().sum(dim=axes)
    present = (true.sum(dim=axes) > 0).to(size.dtype)
    return ((1 - (size - apart + SMOOTH) / (size + SMOOTH)) * present).sum() / present.sum().clamp(min=1)


def group_shares(groups: Sequence[Sequence[int]], shares: Tensor) -> Tensor:
    """(codes, groups) of (codes, 1 + labels): a group is what any of its labels says."""
    return torch.stack([shares[:, list(group)].sum(dim=1) for group in groups], dim=1)


def overlap_counts(
    logits: Tensor,
    target: Tensor,
    shares: Tensor,
    unknown: int,
    structures_known: Tensor | None = None,
    *,
    exclusive: bool,
) -> tuple[Tensor, Tensor]:
    """(batch, structures) known voxels in both label maps, and in the two counted together.

    logits:    (batch, channels, *spatial); target: (batch, *spatial) codes, of which `unknown` is left out
    shares:    (codes, structures) of the readers
    structures_known:     (codes, structures) whether a code says anything of a structure; None: of all
    exclusive: the largest output wins, the first being the background; else each output is marked above 0
    """
    axes = tuple(range(1, target.ndim))
    voxels_known = target != unknown
    codes = torch.where(voxels_known, target.long(), 0)
    both = []
    size = []
    for structure in range(shares.shape[1]):
        marked = logits.argmax(dim=1) == structure + 1 if exclusive else logits[:, structure] > 0
        counted_voxels = voxels_known if structures_known is None else voxels_known & structures_known[codes, structure]
        # Half of the readers are enough: where a prediction is scored the majority decides alike.
        true = (shares[codes, structure] >= 0.5) & counted_voxels
        both.append((marked & true).sum(dim=axes))
        size.append((marked & counted_voxels).sum(dim=axes) + true.sum(dim=axes))
    return torch.stack(both, dim=1), torch.stack(size, dim=1)


def mean_dice(both: Tensor, size: Tensor) -> float:
    """Mean Dice over (cases, structures) counts as `overlap_counts` makes them; what neither side has is left out."""
    present = size > 0
    dice = 2 * both / size.clamp(min=1)
    return float(dice[present].mean()) if present.any() else float("nan")
