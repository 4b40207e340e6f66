"""Objects with boxes and masks, drawn into two maps: the logit of being inside an object, and depth.

The depth is 0 where two objects touch, so that a watershed of the maps recovers the objects.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Lowest probability of an object's voxel: below any threshold that is tried for the inside.
NOBODY = 0.25
# Largest probability, so that in a mean of two contradicting windows neither always wins.
SURE = 0.99
# Share of a mask that objects of higher score must leave free, or it is a duplicate of one of them. Kirillov et al.,
# CVPR 2019, arXiv:1801.00868, section 6.
LEFT = 0.5
# Masks that are drawn at a time.
AT_ONCE = 16


def rendered(masks: Tensor, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, 2, rows, columns) logit of inside an object, and depth.

    masks:  (batch, n, m, m) probability of each cell of a box
    boxes:  (batch, n, 4) left, top, right, bottom edges in voxels
    scores: (batch, n) in falling order; 0 for no object
    A voxel belongs to the object of the highest score whose mask has a probability of 0.5 or more there, else to the
    most probable mask. Its probability is that of the mask, or the object's score where this is lower. An object that
    those of higher scores mostly cover is a duplicate, and left out.
    """
    owner, chance = owned(masks, boxes, scores, size)
    depth, holds = depths(owner)
    chance = torch.where(holds, chance, 0.0).clamp(1 - SURE, SURE)
    return torch.stack([torch.logit(chance), depth], dim=1)


def owned(masks: Tensor, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(batch, rows, columns) number of each voxel's object, from 1 on, else 0, and its probability."""
    count = masks.shape[1]
    owner = torch.zeros(masks.shape[0], *size, dtype=torch.long, device=masks.device)
    chance = torch.zeros(masks.shape[0], *size, dtype=masks.dtype, device=masks.device)
    most, covered = chance, []
    for start in range(0, count, AT_ONCE):
        end = min(start + AT_ONCE, count)
        sure = scores[:, start:end, None, None]
        drawn = pasted(masks[:, start:end], boxes[:, start:end], size) * (sure > 0)
        # A claim above 1 is that of a mask with a probability of 0.5 or more.
        rank = 2 - torch.arange(start, end, device=masks.device, dtype=masks.dtype)[:, None, None] / count
        claim = torch.where(drawn >= 0.5, rank, drawn * (drawn >= NOBODY))
        covered.append((claim > 1).flatten(2).sum(dim=2))
        claimed, which = claim.max(dim=1)
        won = claimed > most
        own = torch.minimum(drawn, sure).gather(1, which[:, None])[:, 0]
        owner, chance = torch.where(won, which + start + 1, owner), torch.where(won, own, chance)
        most = torch.maximum(most, claimed)
    stays = _left(owner, most > 1, torch.cat(covered, dim=1))
    return torch.where(stays, owner, 0), torch.where(stays, chance, 0.0)


def _left(owner: Tensor, likely: Tensor, covered: Tensor) -> Tensor:
    """(batch, rows, columns) whether objects of higher scores leave enough of each voxel's object.

    likely:  voxels of masks with a probability of 0.5 or more; covered: (batch, n) their number for each object
    """
    flat = owner.flatten(1)
    nobody = torch.zeros_like(covered[:, :1])
    left = torch.cat([nobody, torch.zeros_like(covered)], dim=1).scatter_add(1, flat, likely.flatten(1).long())
    enough = left >= LEFT * torch.cat([nobody, covered], dim=1)
    return enough.gather(1, flat).reshape(owner.shape)


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, n, rows, columns) masks interpolated linearly over their boxes, and 0 outside."""
    rows, columns = (
        _weights(boxes[..., axis], boxes[..., axis + 2], masks.shape[-1], length)
        for axis, length in ((1, size[0]), (0, size[1]))
    )
    return rows @ masks @ columns.transpose(-1, -2)


def _weights(low: Tensor, high: Tensor, parts: int, length: int) -> Tensor:
    """(batch, n, length, parts) weight of each cell of a box at each voxel along one axis."""
    middles = torch.arange(length, device=low.device, dtype=low.dtype) + 0.5
    place = (middles - low[..., None]) / (high - low).clamp(min=1e-3)[..., None] * parts - 0.5
    part = torch.arange(parts, device=low.device, dtype=low.dtype)
    return (1 - (place[..., None] - part).abs()).clamp(min=0)


def depths(owner: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, rows, columns) depths, and whether a watershed can assign a voxel to its owner.

    The depth is 0 for voxels next to another object and 1 for all others: unlike a distance it does not split objects
    with a waist. A watershed floods the insides first, and then adds to each the voxels next to it. A strip between
    other objects without an inside cannot be assigned, and is left out.
    """
    touching = _has_neighbour(owner, owner > 0, torch.ne)
    inside = (owner > 0) & ~touching
    holds = inside | (touching & _has_neighbour(owner, inside, torch.eq))
    return inside.float(), holds


def _has_neighbour(owner: Tensor, marked: Tensor, agree: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(batch, rows, columns) whether a next voxel along an axis is marked, and the two owners agree."""
    has = torch.zeros_like(marked)
    for axis in (1, 2):
        places = torch.arange(owner.shape[axis], device=owner.device)
        shape = [-1 if n == axis else 1 for n in range(3)]
        for step, edge in ((1, 0), (-1, owner.shape[axis] - 1)):  # without those from the other edge
            there = marked.roll(step, axis) & (places != edge).reshape(shape)
            has = has | (there & (owner > 0) & agree(owner, owner.roll(step, axis)))
    return has
