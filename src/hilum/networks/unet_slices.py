"""A 2.5D U-Net: each slice of a volume, with its neighbours as channels, through a U-Net in the plane."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hilum.networks import common_layers, unet
from hilum.networks.network_family import Sized, Strides
from hilum.networks.unet import UNET, UNet


class SliceUNet(nn.Module):
    """(batch, channels, i, j, k) to the heads of a 3D U-Net, slice by slice.

    For volumes whose slices are so far apart that convolutions across them add little.
    axis:       along which the volume is cut, that of the largest spacing
    neighbours: slices on each side that are further channels; the outermost slice replaces missing ones
    `size`:     the other settings of a U-Net, with strides for the two axes of the plane
    A vector head is the mean of the slices' outputs. All slices get the same covariates.
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
        common_layers.check_slices(axis, neighbours)
        self.axis = axis
        self.neighbours = neighbours
        self.plane = UNet(channels * (2 * neighbours + 1), 2, dense, vectors, **size)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        count = images.shape[self.axis + 2]
        outputs = {}
        covariates = None if context is None else context.repeat_interleave(count, dim=0)
        slices = common_layers.slices_with_neighbours(images, self.axis, self.neighbours)
        for name, output in self.plane(slices, covariates).items():
            stacked = output.unflatten(0, (-1, count))
            outputs[name] = stacked.mean(dim=1) if stacked.ndim < 4 else stacked.movedim(1, self.axis + 2)
        return outputs


def build_slices(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], **size: Any
) -> SliceUNet:
    """A network for volumes."""
    del spatial_dims
    return SliceUNet(channels, dense, vectors, **size)


def size_for_slices(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Slices across the axis that is halved least often, because its voxels are the longest."""
    if len(patch) != 3:
        return unet.size_for(patch, strides, device)
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(3)]
    axis = min(range(3), key=lambda n: (factors[n], patch[n]))
    others = [[s for n, s in enumerate(stride) if n != axis] for stride in strides]
    plane = [others[0], *(stride for stride in others[1:] if max(stride) > 1)]
    size, because, source = unet.size_for([size for n, size in enumerate(patch) if n != axis], plane, device)
    cut = (
        f"cut along axis {axis}, whose voxels are the longest (halved to 1/{factors[axis]}), one neighbour on each side"
    )
    return {"axis": axis, "neighbours": 1, **size}, f"{cut}; each slice: {because}", source


UNET_SLICES = UNET.variant(
    UNET.paper,
    {},
    build=build_slices,
    size_for=size_for_slices,
    axes=(3,),
    otherwise="Only a volume has slices: choose unet for pictures",
    features="plane.encoder.-1",
)
