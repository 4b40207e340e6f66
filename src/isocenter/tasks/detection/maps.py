"""Targets and loss of detection: a map of centres for each class, and at each centre the lengths of the box.

Zhou et al., arXiv:1904.07850. Maps are of Gaussians as wide as the box is long on each axis, and lengths are learnt
all over them: Liu et al., AAAI 2020, arXiv:1909.00700, which takes a tenth of the steps. How far a box is off is
measured by how little it shares with the true one, and every box counts alike: a loss in voxels would hardly notice
that small boxes are badly placed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter.lazy import torch
from isocenter.tasks.detection.decode import PRIOR

if TYPE_CHECKING:
    from torch import Tensor

# TTFNet's share of a box that its Gaussian covers, at three standard deviations on either side.
COVERED, DEVIATIONS = 0.54, 6
# With a smaller one a voxel next to a centre would weigh as little as all others.
NARROWEST = 1 / 3
# CornerNet's focal loss, arXiv:1808.01244: how fast what is easy, and what lies near a centre, counts less.
FOCUS, NEARNESS = 2, 4
# A voxel from which on lengths are learnt, as a share of the centre's weight.
LEAST_WEIGHT = 0.05
# The weights of boxes in the loss: what they do not share, and sides, whose gradient helps where nothing is shared.
# TTFNet has 5 for the first; gradients are clipped as a whole here, and then the classes are learnt too late.
OVERLAP_WEIGHT, SIDES_WEIGHT = 1.0, 0.2
# From here on, as a share of the true side, the loss of a side grows linearly.
BEND = 0.1
# Voxels of the shortest side that a box is taken for while it is learnt.
SHORTEST = 1e-2
# Voxels times boxes that are drawn at once.
AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class Maps:
    """The target of one image.

    heat:    (classes, *spatial) 1 in the voxel of a centre, falling to 0
    weight:  (*spatial) of the Gaussian that is highest there, of whatever class
    share:   (*spatial) of it where lengths are learnt, 1 for each box taken together
    lengths: (axes, *spatial) of the box whose Gaussian that is, in voxels
    offsets: (axes, *spatial) from the middle of the voxel to the box's centre, in voxels
    """

    heat: Tensor
    weight: Tensor
    share: Tensor
    lengths: Tensor
    offsets: Tensor


def maps_of(boxes: Tensor, classes: int, spatial: tuple[int, ...]) -> Maps:
    """(n, 1 + 2 * axes) class, low and high edges in voxels; of class -1, or with its centre outside, none."""
    axes = len(spatial)
    low, high = boxes[:, 1 : 1 + axes], boxes[:, 1 + axes :]
    centre, length, size = (low + high) / 2, high - low, low.new_tensor(spatial)
    inside = (boxes[:, 0] >= 0) & ((centre >= 0) & (centre < size)).all(dim=1) & (length > 0).all(dim=1)
    kinds, centre, length = boxes[inside, 0].long(), centre[inside], length[inside]
    heat = low.new_zeros((classes, *spatial))
    weight = low.new_zeros(spatial)
    owner = torch.zeros(spatial, dtype=torch.long, device=boxes.device)
    middle, spread = centre.floor() + 0.5, (COVERED * length / DEVIATIONS).clamp(min=NARROWEST)
    for first in range(0, len(kinds), step := max(1, AT_ONCE // weight.numel())):
        part = slice(first, first + step)
        hills = _gaussians(middle[part], spread[part], spatial)
        for kind in kinds[part].unique().tolist():
            heat[kind] = torch.maximum(heat[kind], hills[kinds[part] == kind].amax(dim=0))
        most, which = hills.max(dim=0)
        owner = torch.where(most > weight, which + first, owner)
        weight = torch.maximum(weight, most)
    if not len(kinds):
        return Maps(heat, weight, weight, weight.expand(axes, *spatial), weight.expand(axes, *spatial))
    share = torch.where(weight >= LEAST_WEIGHT, weight, 0.0)
    totals = share.new_zeros(len(kinds)).index_add_(0, owner.flatten(), share.flatten())
    lengths = length[owner].movedim(-1, 0)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n, device=boxes.device) for n in spatial), indexing="ij"))
    share = share / totals.clamp(min=LEAST_WEIGHT)[owner]
    return Maps(heat, weight, share, lengths, centre[owner].movedim(-1, 0) - (voxels + 0.5))


def centre_loss(outputs: Tensor, boxes: Tensor, classes: int, typical: float) -> Tensor:
    """A number to lower: the focal loss of the centres, and how little the boxes share with the true ones.

    outputs: (batch, classes + 2 * axes, *spatial)
    boxes:   (batch, n, 1 + 2 * axes), see `maps_of`
    typical: voxels that an output of 1 is long
    """
    spatial = tuple(outputs.shape[2:])
    truth = [maps_of(one, classes, spatial) for one in boxes]
    heat, share = (torch.stack([getattr(one, name) for one in truth]) for name in ("heat", "share"))
    logits = outputs[:, :classes] + PRIOR
    learnt = share > 0
    predicted, true = (
        one.movedim(1, -1)[learnt]
        for one in (outputs[:, classes:] * typical, torch.stack([torch.cat([m.lengths, m.offsets]) for m in truth]))
    )
    apart = OVERLAP_WEIGHT * unshared(predicted, true) + SIDES_WEIGHT * off(predicted, true)
    return focal(logits, heat) + (apart * share[learnt]).sum() / share.sum().clamp(min=1.0)


def unshared(boxes: Tensor, others: Tensor) -> Tensor:
    """(n,) 1 less the generalised intersection over union of boxes about one place: 0 to 2.

    boxes, others: (n, 2 * axes) lengths, then offsets of the centres from that place
    Rezatofighi et al., CVPR 2019, arXiv:1902.09630
    """
    (low, high), (other_low, other_high) = (_edges(one) for one in (boxes, others))
    both = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(dim=1)
    around = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).prod(dim=1)
    either = (high - low).prod(dim=1) + (other_high - other_low).prod(dim=1) - both
    return 1 - both / either + (around - either) / around


def off(boxes: Tensor, others: Tensor) -> Tensor:
    """(n,) how far lengths and offsets are off, as shares of the true lengths; boxes, others: see `unshared`."""
    axes = boxes.shape[1] // 2
    sides = others[:, :axes].repeat(1, 2)
    apart = torch.nn.functional.smooth_l1_loss(boxes / sides, others / sides, reduction="none", beta=BEND)
    return apart.sum(dim=1)


def _edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
    lengths, offsets = boxes.chunk(2, dim=1)
    half = lengths.clamp(min=SHORTEST) / 2
    return offsets - half, offsets + half


def focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CornerNet's focal loss, arXiv:1808.01244, for each centre: voxels near one count less where they are called."""
    chance = logits.sigmoid()
    centres = heat == 1
    yes = (1 - chance) ** FOCUS * torch.nn.functional.logsigmoid(logits)
    no = (1 - heat) ** NEARNESS * chance**FOCUS * torch.nn.functional.logsigmoid(-logits)
    return -torch.where(centres, yes, no).sum() / centres.sum().clamp(min=1)


def _gaussians(centre: Tensor, spread: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """(n, *spatial) of (n, axes) centres and standard deviations in voxels: 1 at the centre."""
    hills = centre.new_ones((len(centre), *[1] * len(spatial)))
    for axis, size in enumerate(spatial):
        places = torch.arange(size, device=centre.device) + 0.5
        along = torch.exp(-(((places - centre[:, axis, None]) / spread[:, axis, None]) ** 2) / 2)
        hills = hills * along.reshape(len(centre), *[size if one == axis else 1 for one in range(len(spatial))])
    return hills
