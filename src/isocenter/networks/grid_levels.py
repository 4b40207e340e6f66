"""Boxes that are spoken of on several coarse grids, as one map on the image's own.

Detectors of torchvision and MONAI say what they say in cells of coarse grids, one for small boxes, others for larger
ones. Here it becomes what every detection decodes: at each voxel how surely it is a box's centre, how long that box is,
and how far off its centre. In two and three dimensions; torch alone, so that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from isocenter.networks.pyramid import ADDED, LINEAR, classes_of

# Of a logarithm of a length, what torchvision and MONAI clip it to, so that no box is without end.
LONGEST = 4.135  # log(1000 / 16)
# Where there is nothing a probability is no less: its logit stays a number.
LEAST = 1e-6


class Level(NamedTuple):
    """What the cells of one grid say.

    logits:  (batch, classes, *coarse) that there is a box of each class
    centres: (batch, axes, *coarse) of that box, in voxels of the image from its edge
    lengths: (batch, axes, *coarse) in voxels
    steps:   voxels from cell to cell, per axis
    first:   the voxel in which the first cell stands, per axis
    """

    logits: Tensor
    centres: Tensor
    lengths: Tensor
    steps: Sequence[int]
    first: Sequence[int]


def only_head(dense: Mapping[str, int], axes: int) -> tuple[str, int]:
    """The name of the one head of boxes, and its classes; ValueError where several are asked for."""
    classes = classes_of(dense, axes)
    if len(classes) != 1:
        raise ValueError(f"one head of boxes is answered, not {len(classes)}")
    return next(iter(classes.items()))


def one_map(levels: Sequence[Level], size: Sequence[int], unit: float) -> Tensor:
    """(batch, classes + 2 * axes, *size): at each voxel what the level says that is surest there.

    In the voxel in which a cell stands is what the cell says, in between what lies linearly between: so the
    highest places of the map are cells, with the whole of their boxes. Centres are carried as places of the image, and
    become offsets last: they stay true wherever they are read.
    unit: voxels that a length or an offset of 1 is long
    """
    classes, axes = levels[0].logits.shape[1], len(size)
    best = _on_grid(levels[0], size)
    for level in levels[1:]:
        here = _on_grid(level, size)
        own, other = (one[:, :classes].amax(dim=1, keepdim=True) for one in (here, best))
        best = torch.where(own > other, here, best)
    logits, centres, lengths = best.split([classes, axes, axes], dim=1)
    return torch.cat([logits - ADDED, lengths / unit, (centres - places(size, best)) / unit], dim=1)


def places(size: Sequence[int], like: Tensor) -> Tensor:
    """(axes, *size) the middle of each voxel."""
    along = [torch.arange(n, device=like.device, dtype=like.dtype) + 0.5 for n in size]
    return torch.stack(torch.meshgrid(*along, indexing="ij"))


def surest(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Of several boxes that each cell speaks of, that which is most surely of any class.

    logits: (batch, boxes, classes, *coarse); boxes: (batch, boxes, 2 * axes, *coarse); both come back without boxes
    """
    which = logits.amax(dim=2, keepdim=True).argmax(dim=1, keepdim=True)
    taken = (one.gather(1, which.expand(-1, -1, *one.shape[2:])).squeeze(1) for one in (logits, boxes))
    return next(taken), next(taken)


def decoded(deltas: Tensor, anchors: Tensor) -> Tensor:
    """(batch, boxes, 2 * axes, *coarse) centres and lengths, from what is said beside boxes that are given.

    deltas:  (batch, boxes, 2 * axes, *coarse) shifts in lengths of the given box, and logarithms of how much longer
    anchors: (boxes, 2 * axes, *coarse) centres and lengths of those
    Ren et al., arXiv:1506.01497, section 3.1.2
    """
    shifts, growth = deltas.chunk(2, dim=2)
    centres, lengths = anchors.chunk(2, dim=1)
    return torch.cat([centres + shifts * lengths, growth.clamp(max=LONGEST).exp() * lengths], dim=2)


def laid_out(anchors: Tensor, coarse: Sequence[int]) -> Tensor:
    """(boxes, 2 * axes, *coarse) centres and lengths of (cells * boxes, 2 * axes) edges, in order of the cells."""
    axes = len(coarse)  # named from the first: ONNX has no axes counted from the last
    apart = anchors.reshape(*coarse, -1, 2 * axes).permute(axes, axes + 1, *range(axes))
    low, high = apart.chunk(2, dim=1)
    return torch.cat([(low + high) / 2, high - low], dim=1)


def in_rows(raw: Tensor, boxes: int) -> Tensor:
    """(batch, cells * boxes, channels) of (batch, boxes * channels, *coarse), as torchvision and MONAI want it."""
    apart = raw.unflatten(1, (boxes, -1))
    return apart.movedim((1, 2), (-2, -1)).flatten(1, -2)


def turned(pairs: Tensor, dim: int) -> Tensor:
    """What is said of every axis, and again of every axis, with the last axis first: torchvision counts x before y."""
    return torch.cat([one.flip(dim) for one in pairs.chunk(2, dim=dim)], dim=dim)


def truth_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 2 * axes) edges and (n,) classes of the boxes of one image that are any.

    boxes: (n, 1 + 2 * axes) class, low and high edges in voxels; of class -1 none
    """
    low, high = boxes[:, 1:].chunk(2, dim=1)
    there = (boxes[:, 0] >= 0) & (high > low).all(dim=1)
    return boxes[there, 1:], boxes[there, 0].long()


def _on_grid(level: Level, size: Sequence[int]) -> Tensor:
    whole = torch.cat([level.logits, level.centres, level.lengths], dim=1).float()
    reached = [(n - 1) * step + 1 for n, step in zip(whole.shape[2:], level.steps, strict=True)]
    whole = interpolate(whole, size=reached, mode=LINEAR[len(size)], align_corners=True)
    # Before the first cell it has the word, and beyond the last that one.
    beyond = [(start, n - have - start) for n, have, start in zip(size, reached, level.first, strict=True)]
    return pad(whole, [one for pair in reversed(beyond) for one in pair], mode="replicate")
