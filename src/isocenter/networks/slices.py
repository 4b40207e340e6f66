"""2.5D: each slice of a volume as a picture, with its neighbours as further channels.

Roth et al., MICCAI 2014, arXiv:1406.2639, give views of a volume to a network for pictures as channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def slices_with_neighbours(images: Tensor, axis: int, neighbours: int) -> Tensor:
    """(batch, channels, *spatial) to (batch * slices, channels * (2 * neighbours + 1), *plane), slice by slice.

    axis:       along which the volume is cut
    neighbours: slices on each side; the outermost slice replaces missing ones. Channels come neighbour by neighbour,
                in the order of the slices
    """
    slices = images.movedim(axis + 2, 1)  # (batch, slices, channels, *plane)
    count = slices.shape[1]
    first, last = slices[:, :1], slices[:, -1:]
    padded = torch.cat([first] * neighbours + [slices] + [last] * neighbours, dim=1)
    near = torch.cat([padded[:, n : n + count] for n in range(2 * neighbours + 1)], dim=2)
    return near.flatten(0, 1)


def check(axis: int, neighbours: int) -> None:
    """ValueError for an axis that no volume has, or fewer than 0 neighbours."""
    if axis not in (0, 1, 2) or neighbours < 0:
        raise ValueError(f"axis {axis} is not 0, 1 or 2, or neighbours {neighbours} is negative")
