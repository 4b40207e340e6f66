"""Blind spots: single voxels are replaced by neighbours, and the network says what was there.

What a neighbourhood does not tell is noise, so that the network learns the image without it, and needs none that is
clean. The noise must not hang together from voxel to voxel, and its mean must be 0.
Krull et al., "Noise2Void", CVPR 2019, arXiv:1811.10980
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le

from hilum.lazy import torch
from hilum.objectives.masked import IMAGE
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:1811.10980"
# The paper's share: 64 voxels of 64 x 64. Neighbours are at most so many voxels away along each axis, and never the
# voxel itself, which some of them were in the paper: Höck et al., arXiv:2211.08512.
RATIO = 64 / 64**2
REACH = 5


@dataclass(frozen=True)
class BlindSpot(Objective):
    """The mean squared difference of restored from noisy values at the blind spots.

    ratio: share of the voxels that are blind spots
    reach: voxels along each axis among which the neighbour is sampled
    """

    ratio: Annotated[float, Gt(0), Le(0.25)] = RATIO
    reach: Annotated[int, Ge(1)] = REACH

    needs: ClassVar[Needs] = Needs(labels=False)
    head: ClassVar[str] = IMAGE
    replaces_references: ClassVar[bool] = True

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """The paper's share, and the reach of its program."""
        return {"ratio": Decision(RATIO, "the paper's share", PAPER), "reach": Decision(REACH, "its program's", PAPER)}

    def refusal(self, task: Task) -> str:
        """The network has to give an image."""
        return "" if IMAGE in task.heads else "it restores voxels, and the network has no image as output"

    def losses(self, step: ObjectiveStep) -> Tensor:
        """The difference of each image."""
        images = step.labelled.images
        spots = sample_spots(len(images), images.shape[2:], self.ratio).to(images.device)
        hidden = hide_spots(images, spots, self.reach)
        restored = step.run(replace(step.labelled, images=hidden))[IMAGE]
        channels = list(step.task.heads[IMAGE].of_input) or list(range(images.shape[1]))
        shown = step.whole(images)[:, channels]
        return spot_error(restored[:, : len(channels)], shown, step.whole(spots.to(images.dtype)))


def sample_spots(count: int, spatial: Sequence[int], ratio: float) -> Tensor:
    """(count, 1, *spatial) which voxels are blind spots: one in each cell of a grid, so that they lie apart."""
    axes = sum(size > 1 for size in spatial)
    side = max(2, round(ratio ** (-1 / max(axes, 1))))
    cells = [-(-size // side) for size in spatial]
    starts = torch.stack(torch.meshgrid(*(torch.arange(number) * side for number in cells), indexing="ij"))
    # A cell at the edge that is cut short is as large as what is left of it.
    room = torch.stack([(size - start).clamp(max=side) for size, start in zip(spatial, starts, strict=True)])
    places = starts + (torch.rand(count, *starts.shape) * room).long()
    spots = torch.zeros(count, *spatial, dtype=torch.bool)
    batch = torch.arange(count).reshape(-1, *[1] * len(spatial)).expand(count, *cells)
    spots[(batch, *places.unbind(dim=1))] = True
    return spots[:, None]


def hide_spots(images: Tensor, spots: Tensor, reach: int) -> Tensor:
    """The images with the values of a neighbour, sampled for each blind spot, in its place, in all channels."""
    batch, *places = spots[:, 0].nonzero(as_tuple=True)
    reaches = [min(reach, (size - 1) // 2) for size in images.shape[2:]]
    sides = [2 * one + 1 for one in reaches]
    others = max(1, torch.Size(sides).numel() - 1)
    draws = torch.randint(others, (len(batch),)).to(images.device)
    draws = draws + (draws >= others // 2)  # the voxel itself, in the middle, is passed over
    neighbours = []
    for place, size, far, side in zip(places, images.shape[2:], reaches, sides, strict=True):
        offset = draws % side - far
        draws = draws // side
        is_inside = (place + offset >= 0) & (place + offset < size)
        neighbours.append(torch.where(is_inside, place + offset, place - offset))  # one of both lies in the image
    hidden = images.clone()
    everywhere: Any = slice(None)
    hidden[(batch, everywhere, *places)] = images[(batch, everywhere, *neighbours)]
    return hidden


def spot_error(restored: Tensor, images: Tensor, spots: Tensor) -> Tensor:
    """(batch,) mean squared difference over the blind spots and the channels.

    spots: (batch, 1, *spatial) 1 at a blind spot, else 0
    """
    apart = (restored.float() - images.float()) ** 2 * spots.float()
    return apart.flatten(1).sum(dim=1) / (spots.flatten(1).sum(dim=1) * images.shape[1])
