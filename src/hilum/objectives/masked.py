"""Masked images: blocks of voxels are blanked, and the network restores their values.

Xie et al., "SimMIM", CVPR 2022, arXiv:2111.09886
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt

from hilum.lazy import torch
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:2111.09886"
# The paper's share; and its blocks of 32 pixels in images of 192, within what a network of few levels can bridge.
RATIO = 0.6
BLOCKS_A_SIDE = 6
SMALLEST = 2
LARGEST = 16
IMAGE = "image"


@dataclass(frozen=True)
class Masked(Objective):
    """The mean absolute difference between restored and true values of the blanked voxels.

    ratio: share of the blocks that are blanked
    block: voxels of a block along each axis
    """

    ratio: Annotated[float, Gt(0), Lt(1)] = RATIO
    block: Annotated[int, Ge(1)] = 8

    needs: ClassVar[Needs] = Needs(labels=False)
    head: ClassVar[str] = IMAGE

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The paper's share, and blocks as large in these images as in the paper's."""
        sides = [min((size for size in case.shape if size > 1), default=1) for case in fingerprint.cases]
        side = float(np.median(sides)) if sides else 1.0
        block = int(np.clip(round(side / BLOCKS_A_SIDE), SMALLEST, LARGEST))
        because = f"a sixth of the shortest side, {side:.0f} voxels in the median, from {SMALLEST} to {LARGEST}"
        return {
            "ratio": Decision(RATIO, "the paper's share", PAPER),
            "block": Decision(block, because, PAPER),
        }

    def refusal(self, task: Task) -> str:
        """The network has to give an image."""
        return "" if IMAGE in task.heads else "it restores voxels, and the network has no image as output"

    def losses(self, step: ObjectiveStep) -> Tensor:
        """The difference of each image."""
        images = step.labelled.images
        blank = sample_blocks(len(images), images.shape[2:], self.block, self.ratio).to(images.device)
        restored = step.run(replace(step.labelled, images=blank_out(images, blank)))[IMAGE]
        return restoration_error(restored, step.whole(images), step.whole(blank.to(images.dtype)))


def sample_blocks(count: int, spatial: Sequence[int], block: int, ratio: float) -> Tensor:
    """(count, 1, *spatial) which voxels are blanked: the same share of blocks of each image, at least one of them."""
    cells = [-(-size // min(block, size)) for size in spatial]
    number = min(max(1, round(ratio * int(np.prod(cells)))), max(1, int(np.prod(cells)) - 1))
    order = torch.rand(count, int(np.prod(cells))).argsort(dim=1).argsort(dim=1)
    chosen = (order < number).reshape(count, 1, *cells)
    for axis, size in enumerate(spatial, start=2):
        chosen = chosen.repeat_interleave(min(block, size), dim=axis).narrow(axis, 0, size)
    return chosen


def blank_out(images: Tensor, blank: Tensor) -> Tensor:
    """The images with the mean of what is left of each channel in place of the blanked voxels."""
    axes = tuple(range(2, images.ndim))
    left = (~blank).sum(dim=axes, keepdim=True).clamp(min=1)
    mean = images.masked_fill(blank, 0.0).sum(dim=axes, keepdim=True) / left
    return torch.where(blank, mean, images)


def restoration_error(restored: Tensor, images: Tensor, blank: Tensor) -> Tensor:
    """(batch,) mean absolute difference over the blanked voxels and the channels.

    blank: (batch, 1, *spatial) 1 where a voxel is blanked, else 0
    """
    apart = (restored.float() - images.float()).abs() * blank.float()
    return apart.flatten(1).sum(dim=1) / (blank.flatten(1).sum(dim=1) * images.shape[1])
