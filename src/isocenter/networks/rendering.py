"""Objects found one by one, drawn into the two maps that say of each voxel whether it is inside one, and how deep.

Where two touch, the depth is 0, so that a watershed of the maps gives back the objects that were drawn. This file
needs torch alone, so that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Below this probability a voxel is nobody's: less than any threshold that is tried for what is inside.
NOBODY = 0.25
# Logits end where this is sure, so that of two windows that contradict each other neither always wins.
SURE = 0.99
# Of what a mask covers so much must be left by surer objects, or it is a second sight of one of them. Kirillov et al.,
# CVPR 2019, arXiv:1801.00868, section 6.
LEFT = 0.5
# Masks that are drawn at once.
AT_ONCE = 16


def rendered(masks: Tensor, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, 2, rows, columns) logit of inside an object, and depth.

    masks:  (batch, n, m, m) probability of each part of a box
    boxes:  (batch, n, 4) left, top, right, bottom edges in voxels
    scores: (batch, n) how sure each is, the surest first; 0 where there is none
    A voxel belongs to the surest object whose mask is more likely there than not, else to the likeliest mask. It is
    inside with the probability of the mask, or that of the object where this is less. What surer ones cover most of
    is a second sight of one of them, and left out.
    """
    owner, chance = owned(masks, boxes, scores, size)
    depth, holds = depths(owner)
    chance = torch.where(holds, chance, 0.0).clamp(1 - SURE, SURE)
    return torch.stack([torch.logit(chance), depth], dim=1)


def owned(masks: Tensor, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(batch, rows, columns) number of the object that has each voxel, from 1 on, else 0, and its probability."""
    count = masks.shape[1]
    owner = torch.zeros(masks.shape[0], *size, dtype=torch.long, device=masks.device)
    chance = torch.zeros(masks.shape[0], *size, dtype=masks.dtype, device=masks.device)
    most, covered = chance, []
    for start in range(0, count, AT_ONCE):
        end = min(start + AT_ONCE, count)
        sure = scores[:, start:end, None, None]
        drawn = pasted(masks[:, start:end], boxes[:, start:end], size) * (sure > 0)
        # A claim above 1 is that of a mask more likely there than not.
        rank = 2 - torch.arange(start, end, device=masks.device, dtype=masks.dtype)[:, None, None] / count
        claim = torch.where(drawn >= 0.5, rank, drawn * (drawn >= NOBODY))
        covered.append((claim > 1).flatten(2).sum(dim=2))
        claimed, which = claim.max(dim=1)
        won = claimed > most
        said = torch.minimum(drawn, sure).gather(1, which[:, None])[:, 0]
        owner, chance = torch.where(won, which + start + 1, owner), torch.where(won, said, chance)
        most = torch.maximum(most, claimed)
    stays = _left(owner, most > 1, torch.cat(covered, dim=1))
    return torch.where(stays, owner, 0), torch.where(stays, chance, 0.0)


def _left(owner: Tensor, likely: Tensor, covered: Tensor) -> Tensor:
    """(batch, rows, columns) whether surer ones have left enough of the object that has a voxel.

    likely:  where the mask is more likely there than not; covered: (batch, n) voxels where each is
    """
    flat = owner.flatten(1)
    nobody = torch.zeros_like(covered[:, :1])
    found = torch.cat([nobody, torch.zeros_like(covered)], dim=1).scatter_add(1, flat, likely.flatten(1).long())
    enough = found >= LEFT * torch.cat([nobody, covered], dim=1)
    return enough.gather(1, flat).reshape(owner.shape)


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, n, rows, columns) masks stretched over their boxes, linearly, and 0 outside."""
    rows, columns = (
        _weights(boxes[..., axis], boxes[..., axis + 2], masks.shape[-1], length)
        for axis, length in ((1, size[0]), (0, size[1]))
    )
    return rows @ masks @ columns.transpose(-1, -2)


def _weights(low: Tensor, high: Tensor, parts: int, length: int) -> Tensor:
    """(batch, n, length, parts) what each part of a box counts at each voxel along one axis."""
    middles = torch.arange(length, device=low.device, dtype=low.dtype) + 0.5
    place = (middles - low[..., None]) / (high - low).clamp(min=1e-3)[..., None] * parts - 0.5
    part = torch.arange(parts, device=low.device, dtype=low.dtype)
    return (1 - (place[..., None] - part).abs()).clamp(min=0)


def depths(owner: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, rows, columns) depths, and whether a voxel can be told to be its owner's.

    A voxel beside another object has 0, all others 1: no waist of an object parts it, as a distance would. A watershed
    opens the insides first, each for itself, and of what touches each voxel next to its own. A strip between others
    that has no inside could not be told, and is left out.
    """
    touching = _beside(owner, owner > 0, lambda one, other: one != other)
    apart = (owner > 0) & ~touching
    holds = apart | (touching & _beside(owner, apart, lambda one, other: one == other))
    return apart.float(), holds


def _beside(owner: Tensor, marked: Tensor, agree: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(batch, rows, columns) where the next voxel along an axis is marked, and the two owners agree."""
    found = torch.zeros_like(marked)
    for axis in (1, 2):
        places = torch.arange(owner.shape[axis], device=owner.device)
        shape = [-1 if one == axis else 1 for one in range(3)]
        for step, edge in ((1, 0), (-1, owner.shape[axis] - 1)):  # what comes round from the other edge is no neighbour
            there = marked.roll(step, axis) & (places != edge).reshape(shape)
            found = found | (there & (owner > 0) & agree(owner, owner.roll(step, axis)))
    return found
