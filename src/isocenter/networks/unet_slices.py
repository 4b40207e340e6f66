"""U-Net that goes through a volume slice by slice.

The slices' answers are stacked. This file needs torch, `slices` and the U-Net, so that copies travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from isocenter.networks.slices import beside, check
from isocenter.networks.unet import UNET, UNet, size_for


class SliceUNet(nn.Module):
    """A volume slice by slice through a U-Net in the plane: (batch, channels, i, j, k) in, heads as of a 3D U-Net.

    For volumes whose slices lie so far apart that a convolution across them sees little that belongs together.
    axis:       along which the volume is cut, that of the largest spacing
    neighbours: slices on each side that are given as further channels; the outermost slice stands for those missing
    strides:    one entry a stage for each of the other two axes
    A vector head is the mean of the slices' answers. `size`: the other settings of a U-Net. All
    slices are told what is told.
    """

    def __init__(
        self,
        channels: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        axis: int,
        neighbours: int = 1,
        **size: Any,
    ) -> None:
        super().__init__()
        check(axis, neighbours)
        self.axis, self.neighbours = axis, neighbours
        self.plane = UNet(channels * (2 * neighbours + 1), 2, dense, vectors, **size)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        count, outputs = images.shape[self.axis + 2], {}
        told = None if context is None else context.repeat_interleave(count, dim=0)
        for name, output in self.plane(beside(images, self.axis, self.neighbours), told).items():
            stacked = output.unflatten(0, (-1, count))
            outputs[name] = stacked.mean(dim=1) if stacked.ndim < 4 else stacked.movedim(1, self.axis + 2)
        return outputs


def build_slices(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], **size: Any
) -> SliceUNet:
    """A network for volumes."""
    del spatial_dims
    return SliceUNet(channels, dense, vectors, **size)


def size_for_slices(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """Cut along the axis that is halved least, because its voxels are the longest; the reason and its source."""
    if len(patch) != 3:
        return size_for(patch, strides, device)
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(3)]
    axis = min(range(3), key=lambda one: (factors[one], patch[one]))
    others = [[s for n, s in enumerate(stride) if n != axis] for stride in strides]
    plane = [others[0], *(stride for stride in others[1:] if max(stride) > 1)]
    size, because, source = size_for([n for one, n in enumerate(patch) if one != axis], plane, device)
    cut = (
        f"cut along axis {axis}, whose voxels are the longest (halved to 1/{factors[axis]}), one neighbour on each side"
    )
    return {"axis": axis, "neighbours": 1, **size}, f"{cut}; each slice: {because}", source


UNET_SLICES = replace(
    UNET,
    build=build_slices,
    size_for=size_for_slices,
    axes=(3,),
    otherwise="Only a volume has slices: choose unet for pictures",
    search_order=0,
)
