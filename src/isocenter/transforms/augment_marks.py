"""Errors put into the label maps of an earlier stage, so that the next stage learns not to trust them blindly.

The idea is that of the cascade of nnU-Net (Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z), which
grows, shrinks and removes what its first stage has marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Voxels by which a label grows or shrinks at the most, and how much rarer it is that it is forgotten as a whole.
MOST_VOXELS, RARER = 3, 4


def mismarked(numbers: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """(*spatial) numbers of labels, each of which may have grown, shrunk or gone.

    What shrinks leaves background; what grows does so over background alone, so that no other label is lost.
    """
    made = numbers.clone()
    for number in torch.unique(numbers[numbers > 0]).tolist():
        change, size, forgotten, grows = rng.random(), int(rng.integers(1, MOST_VOXELS + 1)), rng.random(), rng.random()
        if forgotten < chance / RARER:
            made[numbers == number] = 0
        elif change < chance and grows < 0.5:
            made[grown(numbers == number, size) & (numbers == 0) & (made == 0)] = number
        elif change < chance:
            made[(numbers == number) & grown(numbers != number, size)] = 0
    return made


def grown(mask: Tensor, voxels: int) -> Tensor:
    """(*spatial) a structure with all that lies within so many voxels of it along each axis."""
    pools = {1: torch.nn.functional.max_pool1d, 2: torch.nn.functional.max_pool2d, 3: torch.nn.functional.max_pool3d}
    pooled: Tensor = pools[mask.ndim](mask[None, None].float(), 2 * voxels + 1, stride=1, padding=voxels)
    return pooled[0, 0] > 0.5
