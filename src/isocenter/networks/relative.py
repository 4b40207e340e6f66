"""Relative positions: parameters for each offset between two positions along an axis, for grids of any size."""

from __future__ import annotations

import torch
from torch import Tensor


def for_pairs(table: Tensor, axis: int, count: int) -> Tensor:
    """(..., 2 old - 1, ...) by offset to (..., count, count, ...): at (i, j) the entry of the offset i - j.

    table: of the offsets between `old` places along this axis, the most negative first
    count: places along the axis
    """
    read = stretched(table, axis, count)
    places = torch.arange(count, device=table.device)
    offsets = places[:, None] - places[None, :] + count - 1
    return read.index_select(axis, offsets.flatten()).unflatten(axis, (count, count))


def stretched(table: Tensor, axis: int, count: int) -> Tensor:
    """(..., 2 old - 1, ...) to (..., 2 count - 1, ...) by linear interpolation; the same tensor for the same size.

    Both grids span the same image: the largest offset stays the largest, and 0 stays 0. Dai et al., arXiv:2106.04803,
    section 2.1, enlarge their tables likewise.
    """
    farthest = int(table.shape[axis]) // 2
    if count == farthest + 1:
        return table
    offsets = torch.arange(1 - count, count, device=table.device, dtype=torch.float32)
    places = (offsets * (farthest / max(count - 1, 1)) + farthest).clamp(0, 2 * farthest)
    below = places.floor()
    share = (places - below).to(table.dtype).reshape(-1, *[1] * (table.ndim - 1 - axis % table.ndim))
    above = (below + 1).clamp(max=2 * farthest)
    return table.index_select(axis, below.long()) * (1 - share) + table.index_select(axis, above.long()) * share
