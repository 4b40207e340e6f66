"""Regions of interest of a picture in fixed numbers: non-maximum suppression and pooled features.

Shapes do not depend on values, so that a two-stage network is one graph: for a whole batch, on torch's meta device and
in ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.ops import roi_align

# Longest chain of suppressions: the first box suppresses the second, which then does not suppress the third. In longer
# chains a box too many may stay; 600 boxes drawn around 60 centres took at most 7 rounds, in 60 draws.
ROUNDS = 12
# Regions of this side, in voxels, are pooled from the level with a sixteenth of the resolution; of half the side, from
# the next finer level. Lin et al., CVPR 2017, arXiv:1612.03144, equation 1.
CANONICAL, CANONICAL_LEVEL, FINEST_LEVEL = 224.0, 4, 2
SMALL = 1e-6


def overlaps(boxes: Tensor) -> Tensor:
    """(batch, n, n) intersection over union of (batch, n, 4) edges: left, top, right, bottom."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    return both / (areas[:, :, None] + areas[:, None] - both).clamp(min=SMALL)


def unsuppressed(boxes: Tensor, live: Tensor, threshold: float) -> Tensor:
    """(batch, n) which boxes non-maximum suppression keeps.

    boxes: (batch, n, 4) edges, in order of falling score
    live:  (batch, n) which boxes exist
    Sequential suppression is the fixed point of suppressing all boxes at once, reached after as many rounds as its
    longest chain has links: Zheng et al., IEEE Trans Cybern 2022, arXiv:2005.03572, proposition 1.
    """
    count = boxes.shape[1]
    surer = torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)  # the column's box than the row's
    over = (overlaps(boxes) > threshold) & surer & live.unsqueeze(1)
    kept = live
    for _ in range(ROUNDS):
        kept = live & ~(over & kept.unsqueeze(1)).any(dim=2)
    return kept


def mosaic(levels: Sequence[Tensor]) -> Tensor:
    """(batch, channels, rows, columns) all levels of a pyramid in one picture, from left to right.

    Each has a copy of its last row and column, so that interpolation at its edge is the same as in the level itself.
    """
    rows = levels[0].shape[2] + 1
    edged = [pad(level, (0, 1, 0, 1), mode="replicate") for level in levels]
    return torch.cat([pad(level, (0, 0, 0, rows - level.shape[2])) for level in edged], dim=3)


def pooled(levels: Sequence[Tensor], boxes: Tensor, size: int, samples: int = 2) -> Tensor:
    """(batch * n, channels, size, size) features of each box, from the level for its size.

    levels: (batch, channels, *coarse) with a quarter of the picture's resolution, then each with half of the one before
    boxes:  (batch, n, 4) edges in voxels of the picture
    RoIAlign: He et al., arXiv:1703.06870; one call for a mosaic of all levels.
    """
    batch, count = boxes.shape[:2]
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    last = FINEST_LEVEL + len(levels) - 1
    exact = CANONICAL_LEVEL + torch.log2(sides.prod(dim=-1).sqrt() / CANONICAL + SMALL)
    level = torch.floor(exact + SMALL).clamp(FINEST_LEVEL, last).long() - FINEST_LEVEL
    starts = [0, *(one.shape[3] + 1 for one in levels[:-1])]
    from_left = boxes.new_tensor([sum(starts[: n + 1]) for n in range(len(levels))])[level]
    placed = boxes * torch.exp2(-(level + FINEST_LEVEL).to(boxes.dtype))[..., None]
    placed = placed + torch.stack([from_left, torch.zeros_like(from_left)] * 2, dim=-1)
    number = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(batch, count, 1)
    rois = torch.cat([number, placed], dim=2).reshape(batch * count, 5)
    return roi_align(mosaic(levels).float(), rois.float(), size, 1.0, samples)


def within(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(..., 4) edges cut at those of a picture of (rows, columns)."""
    rows, columns = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([columns, rows, columns, rows]))


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(batch, count) the highest of (batch, n) scores and their indices; fewer where n is smaller."""
    highest = torch.topk(scores, min(count, scores.shape[1]), dim=1)
    return highest.values, highest.indices


def picked(boxes: Tensor, places: Tensor) -> Tensor:
    """(batch, k, 4) of (batch, n, 4) boxes, by (batch, k) indices."""
    return torch.gather(boxes, 1, places[..., None].expand(-1, -1, 4))
