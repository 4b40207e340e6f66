"""Regions of a picture in fixed numbers: which of them stand for the rest, and what features they hold.

Nothing here depends on what is found, so that a two-stage network is one graph: for a whole batch, on torch's meta
device and in ONNX. This file needs torch and torchvision alone, so that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.ops import roi_align

# How often boxes may suppress one another in a chain: the first, hence not the second, hence the third. Where chains
# are longer a box too many may stay; of 600 boxes drawn around 60 centres none took more than 7 rounds, in 60 draws.
ROUNDS = 12
# Regions as large as this, in voxels, are looked at on the level that is a sixteenth as fine; half as large ones a
# level finer. Lin et al., CVPR 2017, arXiv:1612.03144, equation 1.
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
    """(batch, n) whether a box stays where of two that overlap by more than a threshold the surer one stays.

    boxes: (batch, n, 4) edges, the surest first
    live:  (batch, n) whether there is a box at all
    Suppression one box after the other is the fixed point of suppressing all at once, reached after as many rounds as
    its longest chain has links: Zheng et al., IEEE Trans Cybern 2022, arXiv:2005.03572, proposition 1.
    """
    count = boxes.shape[1]
    surer = torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)  # the column's box than the row's
    over = (overlaps(boxes) > threshold) & surer & live.unsqueeze(1)
    kept = live
    for _ in range(ROUNDS):
        kept = live & ~(over & kept.unsqueeze(1)).any(dim=2)
    return kept


def beside_one_another(levels: Sequence[Tensor]) -> Tensor:
    """(batch, channels, rows, columns) all levels of a pyramid as one picture, from left to right.

    Each keeps a copy of its last row and column, so that what is read between its last voxels and its edge is what
    reading it alone would give.
    """
    rows = levels[0].shape[2] + 1
    edged = [pad(one, (0, 1, 0, 1), mode="replicate") for one in levels]
    return torch.cat([pad(one, (0, 0, 0, rows - one.shape[2])) for one in edged], dim=3)


def pooled(levels: Sequence[Tensor], boxes: Tensor, size: int, samples: int = 2) -> Tensor:
    """(batch * n, channels, size, size) features of each box, from the level that is as fine as it is large.

    levels: (batch, channels, *coarse) a fourth as fine as the picture, then each half as fine as the one before
    boxes:  (batch, n, 4) edges in voxels of the picture
    RoIAlign: He et al., arXiv:1703.06870; one call for all levels, which lie beside one another in one picture.
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
    return roi_align(beside_one_another(levels).float(), rois.float(), size, 1.0, samples)


def within(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(..., 4) edges cut at those of a picture of (rows, columns)."""
    rows, columns = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([columns, rows, columns, rows]))


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(batch, count) the highest of (batch, n) scores and where they are; fewer where there are fewer."""
    found = torch.topk(scores, min(count, scores.shape[1]), dim=1)
    return found.values, found.indices


def picked(boxes: Tensor, places: Tensor) -> Tensor:
    """(batch, k, 4) of (batch, n, 4)."""
    return torch.gather(boxes, 1, places[..., None].expand(-1, -1, 4))
