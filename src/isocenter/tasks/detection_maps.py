"""What a network learns about boxes: a map of centres for each class, and at each centre how long the box is.

Zhou et al., arXiv:1904.07850. Maps are of Gaussians as wide as the box is long on each axis, and lengths are learnt
all over them: Liu et al., AAAI 2020, arXiv:1909.00700, which takes a tenth of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter.lazy import torch
from isocenter.tasks.detection_decode import PRIOR

if TYPE_CHECKING:
    from torch import Tensor

# TTFNet's share of a box that its Gaussian covers, at three standard deviations on either side.
COVERED, DEVIATIONS = 0.54, 6
# Below it a voxel beside a centre would not be told from the rest.
NARROWEST = 1 / 3
# CornerNet's focal loss, arXiv:1808.01244: how fast what is easy, and what lies near a centre, counts less.
FOCUS, NEARNESS = 2, 4
# A voxel from which on lengths are learnt, as a share of the centre's weight.
LEAST_WEIGHT = 0.05
# Lengths and offsets beside the map of centres.
LENGTHS_WEIGHT = 1.0
# Voxels times boxes that are drawn at once.
AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class Maps:
    """What is true of one image.

    heat:    (classes, *spatial) 1 in the voxel of a centre, falling to 0
    weight:  (*spatial) of the Gaussian that is highest there, of whatever class
    lengths: (axes, *spatial) of the box whose Gaussian that is, in voxels
    offsets: (axes, *spatial) from the middle of the voxel to the box's centre, in voxels
    """

    heat: Tensor
    weight: Tensor
    lengths: Tensor
    offsets: Tensor


def maps_of(boxes: Tensor, classes: int, spatial: tuple[int, ...]) -> Maps:
    """(n, 1 + 2 * axes) class, low and high edges in voxels; of class -1, or with its centre outside, none."""
    axes = len(spatial)
    low, high = boxes[:, 1 : 1 + axes], boxes[:, 1 + axes :]
    centre, length, size = (low + high) / 2, high - low, low.new_tensor(spatial)
    there = (boxes[:, 0] >= 0) & ((centre >= 0) & (centre < size)).all(dim=1) & (length > 0).all(dim=1)
    kinds, centre, length = boxes[there, 0].long(), centre[there], length[there]
    heat = low.new_zeros((classes, *spatial))
    weight = low.new_zeros(spatial)
    owner = torch.zeros(spatial, dtype=torch.long, device=boxes.device)
    middle, spread = centre.floor() + 0.5, (COVERED * length / DEVIATIONS).clamp(min=NARROWEST)
    for first in range(0, len(kinds), step := max(1, AT_ONCE // weight.numel())):
        part = slice(first, first + step)
        drawn = _gaussians(middle[part], spread[part], spatial)
        for kind in kinds[part].unique().tolist():
            heat[kind] = torch.maximum(heat[kind], drawn[kinds[part] == kind].amax(dim=0))
        most, which = drawn.max(dim=0)
        owner = torch.where(most > weight, which + first, owner)
        weight = torch.maximum(weight, most)
    if not len(kinds):
        return Maps(heat, weight, weight.expand(axes, *spatial), weight.expand(axes, *spatial))
    lengths = length[owner].movedim(-1, 0)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n, device=boxes.device) for n in spatial), indexing="ij"))
    return Maps(heat, weight, lengths, centre[owner].movedim(-1, 0) - (voxels + 0.5))


def centre_loss(outputs: Tensor, boxes: Tensor, classes: int, typical: float) -> Tensor:
    """A number to lower: the focal loss of the centres, and how far lengths and offsets are off.

    outputs: (batch, classes + 2 * axes, *spatial)
    boxes:   (batch, n, 1 + 2 * axes), see `maps_of`
    typical: voxels that an output of 1 is long
    """
    spatial = tuple(outputs.shape[2:])
    truth = [maps_of(one, classes, spatial) for one in boxes]
    heat = torch.stack([one.heat for one in truth])
    weight = torch.stack([one.weight for one in truth])[:, None]
    wanted = torch.stack([torch.cat([one.lengths, one.offsets]) for one in truth]) / typical
    logits = outputs[:, :classes] + PRIOR
    weight = torch.where(weight >= LEAST_WEIGHT, weight, 0.0)
    apart = torch.nn.functional.smooth_l1_loss(outputs[:, classes:], wanted, reduction="none", beta=0.1)
    regression = (apart * weight).sum() / weight.sum().clamp(min=1.0)
    return focal(logits, heat) + LENGTHS_WEIGHT * regression


def focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CornerNet's focal loss, arXiv:1808.01244, for each centre: voxels near one count less where they are called."""
    chance = logits.sigmoid()
    centres = heat == 1
    yes = (1 - chance) ** FOCUS * torch.nn.functional.logsigmoid(logits)
    no = (1 - heat) ** NEARNESS * chance**FOCUS * torch.nn.functional.logsigmoid(-logits)
    return -torch.where(centres, yes, no).sum() / centres.sum().clamp(min=1)


def _gaussians(centre: Tensor, spread: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """(n, *spatial) of (n, axes) centres and standard deviations in voxels: 1 at the centre."""
    drawn = centre.new_ones((len(centre), *[1] * len(spatial)))
    for axis, size in enumerate(spatial):
        places = torch.arange(size, device=centre.device) + 0.5
        along = torch.exp(-(((places - centre[:, axis, None]) / spread[:, axis, None]) ** 2) / 2)
        drawn = drawn * along.reshape(len(centre), *[size if one == axis else 1 for one in range(len(spatial))])
    return drawn
