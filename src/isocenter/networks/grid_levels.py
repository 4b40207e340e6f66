"""Detections on the grids of several levels as one map on the image's grid, in two and three dimensions.

Detectors of torchvision and MONAI predict boxes in cells of coarse grids, one grid for each range of sizes. The map has
at each voxel what every detection task decodes: logits that it is a box's centre, the box's lengths, and the offset of
its centre.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from isocenter.networks.layers import LINEAR
from isocenter.networks.pyramid import ADDED, classes_of

# Largest logarithm of a box's growth, as in torchvision and MONAI.
LONGEST = 4.135  # log(1000 / 16)
# Smallest probability, so that its logit is finite.
LEAST = 1e-6


class Level(NamedTuple):
    """Predictions in the cells of one grid.

    logits:  (batch, classes, *coarse) of a box of each class
    centres: (batch, axes, *coarse) of that box, in voxels from the image's edge
    lengths: (batch, axes, *coarse) in voxels
    steps:   voxels from cell to cell, per axis
    first:   index of the first cell's voxel, per axis
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
        raise ValueError(f"it has one head of boxes, not {len(classes)}")
    return next(iter(classes.items()))


def one_map(levels: Sequence[Level], size: Sequence[int], unit: float) -> Tensor:
    """(batch, classes + 2 * axes, *size): at each voxel the predictions of the level with the largest logit there.

    Between the voxels of its cells a level is interpolated linearly, so that the maxima of the map are cells with
    their own boxes. Centres are interpolated as positions in the image and become offsets last, which keeps them true.
    unit: voxels of a length or an offset of 1
    """
    classes, axes = levels[0].logits.shape[1], len(size)
    best = most_confident((_on_grid(level, size) for level in levels), classes)
    logits, centres, lengths = best.split([classes, axes, axes], dim=1)
    return torch.cat([logits - ADDED, lengths / unit, (centres - places(size, best)) / unit], dim=1)


def most_confident(maps: Iterator[Tensor], classes: int) -> Tensor:
    """(batch, channels, *size): at each voxel the map with the largest logit, which are its first channels.

    Only two maps are in memory at a time.
    """
    best = next(maps)
    for here in maps:
        highest, other = (logits[:, :classes].amax(dim=1, keepdim=True) for logits in (here, best))
        best = torch.where(highest > other, here, best)
    return best


def places(size: Sequence[int], like: Tensor) -> Tensor:
    """(axes, *size): the centre of each voxel."""
    along = [torch.arange(n, device=like.device, dtype=like.dtype) + 0.5 for n in size]
    return torch.stack(torch.meshgrid(*along, indexing="ij"))


def surest(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The box with the largest logit of any class, of the several boxes of each cell.

    logits: (batch, boxes, classes, *coarse); boxes: (batch, boxes, 2 * axes, *coarse); both return without that axis
    """
    which = logits.amax(dim=2, keepdim=True).argmax(dim=1, keepdim=True)
    taken = (given.gather(1, which.expand(-1, -1, *given.shape[2:])).squeeze(1) for given in (logits, boxes))
    return next(taken), next(taken)


def decoded(deltas: Tensor, anchors: Tensor) -> Tensor:
    """(batch, boxes, 2 * axes, *coarse) centres and lengths, from anchors and their regressed deltas.

    deltas:  (batch, boxes, 2 * axes, *coarse) shifts in lengths of the anchor, and logarithms of the growth
    anchors: (boxes, 2 * axes, *coarse) centres and lengths
    Ren et al., arXiv:1506.01497, section 3.1.2
    """
    shifts, growth = deltas.chunk(2, dim=2)
    centres, lengths = anchors.chunk(2, dim=1)
    return torch.cat([centres + shifts * lengths, growth.clamp(max=LONGEST).exp() * lengths], dim=2)


def laid_out(anchors: Tensor, coarse: Sequence[int]) -> Tensor:
    """(boxes, 2 * axes, *coarse) centres and lengths of (cells * boxes, 2 * axes) edges, in order of the cells."""
    axes = len(coarse)  # counted from the first: ONNX has no negative axes here
    apart = anchors.reshape(*coarse, -1, 2 * axes).permute(axes, axes + 1, *range(axes))
    low, high = apart.chunk(2, dim=1)
    return torch.cat([(low + high) / 2, high - low], dim=1)


def in_rows(raw: Tensor, boxes: int) -> Tensor:
    """(batch, boxes * channels, *coarse) to (batch, cells * boxes, channels), the layout of torchvision and MONAI."""
    apart = raw.unflatten(1, (boxes, -1))
    return apart.movedim((1, 2), (-2, -1)).flatten(1, -2)


def turned(pairs: Tensor, dim: int) -> Tensor:
    """Two numbers an axis in the reverse order of axes: torchvision has x before y."""
    return torch.cat([half.flip(dim) for half in pairs.chunk(2, dim=dim)], dim=dim)


def truth_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 2 * axes) edges and (n,) classes of one image's boxes, without padding and without empty boxes.

    boxes: (n, 1 + 2 * axes) class, low and high edges in voxels; class -1 is padding
    """
    low, high = boxes[:, 1:].chunk(2, dim=1)
    real = (boxes[:, 0] >= 0) & (high > low).all(dim=1)
    return boxes[real, 1:], boxes[real, 0].long()


def _on_grid(level: Level, size: Sequence[int]) -> Tensor:
    outputs = torch.cat([level.logits, level.centres, level.lengths], dim=1).float()
    reached = [(n - 1) * step + 1 for n, step in zip(outputs.shape[2:], level.steps, strict=True)]
    outputs = interpolate(outputs, size=reached, mode=LINEAR[len(size)], align_corners=True)
    # The first cell continues before itself, the last one after.
    beyond = [(start, n - have - start) for n, have, start in zip(size, reached, level.first, strict=True)]
    return pad(outputs, [side for pair in reversed(beyond) for side in pair], mode="replicate")
