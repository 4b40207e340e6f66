"""V-Net of MONAI's transitions: residual stages of convolutions of 5 voxels an axis, with strided ones in between.

Milletari et al., 3DV 2016, arXiv:1606.04797. MONAI's own class has one width and halves four times along all axes; here
both follow the settings, with MONAI's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.monai_common import OfMonai, check_axes, product_of, size_by_stages

PAPER = "arXiv:1606.04797"
WIDTH, STAGES, NARROWER = 16, 5, 4
# Convolutions of each stage below the first on the way down and on the way up, as MONAI counts them.
DOWN, UP = (1, 2, 3, 2), (1, 1, 2, 2)
ACTIVATION = ("elu", {"inplace": True})


class VNet(nn.Module):
    """MONAI's transitions in two parts.

    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first stage; doubled by each
    dropout: of whole feature maps, from the fourth stage on, and in skip connections
    Images are repeated to the width of the first maps, and added to them: where their channels do not divide the width,
    channels of zeros are added until they do.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        outputs: int,
        strides: Sequence[Sequence[int]],
        width: int = WIDTH,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_axes(spatial_dims, (2, 3), "vnet")
        self.multiple = product_of(strides, spatial_dims)
        if channels > width:
            raise ValueError(f"{channels} channels cannot be added to {width} maps (width)")
        taken = next(n for n in range(channels, width + 1) if width % n == 0)
        self.added = taken - channels
        widths = [width * 2**stage for stage in range(len(strides))]
        self.deepest = widths[-1]
        # MONAI's class uses the dropout of volumes also for pictures, where torch would drop whole images.
        drops: Any = {"dropout_dim": spatial_dims}
        self.in_tr = InputTransition(spatial_dims, taken, width, ACTIVATION)
        self.names = widths[1:]
        before = widths[-1]
        for stage, maps in enumerate(widths[1:], start=1):
            often = DOWN[min(stage, len(DOWN)) - 1]
            deep = dropout if stage > 2 else None
            down = DownTransition(spatial_dims, widths[stage - 1], often, ACTIVATION, deep, **drops)
            step = tuple(strides[stage])
            down.down_conv = Conv["conv", spatial_dims](widths[stage - 1], maps, step, step, bias=False)
            self.add_module(f"down_tr{maps}", down)
        for stage in range(len(widths) - 1, 0, -1):
            maps, often = widths[stage], UP[min(stage, len(UP)) - 1]
            deep_and_across: Any = (dropout if stage > 2 else None, dropout)
            up = UpTransition(spatial_dims, before, maps, often, ACTIVATION, deep_and_across, **drops)
            step = tuple(strides[stage])
            up.up_conv = Conv["convtrans", spatial_dims](before, maps // 2, step, step)
            self.add_module(f"up_tr{maps}", up)
            before = maps
        self.out_tr = OutputTransition(spatial_dims, before, outputs, ACTIVATION)

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        if self.added:
            images = torch.cat([images, torch.zeros_like(images[:, :1]).repeat_interleave(self.added, 1)], dim=1)
        features = [self.in_tr(images)]
        for maps in self.names:
            features.append(self.get_submodule(f"down_tr{maps}")(features[-1]))
        return features

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        images = features[-1]
        for maps, skip in zip(self.names[::-1], features[-2::-1], strict=True):
            images = self.get_submodule(f"up_tr{maps}")(images, skip)
        return [self.out_tr(images)]


class VNetWithHeads(OfMonai):
    """MONAI's network with our heads."""

    body_of = VNet


# Stages as in the paper; a quarter of its width on a processor.
SIZE_FOR = partial(size_by_stages, stages=STAGES, width=WIDTH, narrower=NARROWER, paper=PAPER)
VNET = Family(build=VNetWithHeads, size_for=SIZE_FOR, paper=PAPER, features="coarsest")
