"""Swin UNETR of MONAI: a Swin transformer on four grids, and a convolutional decoder.

Hatamizadeh et al., BrainLes 2021, arXiv:2201.01266; windows as in Liu et al., ICCV 2021, arXiv:2103.14030.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import einops  # noqa: F401 - MONAI asks for it only once the network is made
import torch
from monai.networks import nets
from torch import Tensor
from torch.overrides import TorchFunctionMode

from isocenter.networks.family import Family, Sized, Strides
from isocenter.networks.monai_common import OfMonai, check_axes

PAPER = "arXiv:2201.01266"
# Of the paper, table 1; on a processor the narrowest that MONAI's class takes.
WIDTH, NARROWEST = 48, 12
# Heads of attention on each grid, in the paper of 16 maps each; on a processor of 12. With a width of 12 a step of a
# volume of 40 x 56 x 40 took 3.6 s with the paper's heads and windows of 7 cells, 1.3 s with these heads, and with
# windows of 4 besides 0.6 s.
HEADS, FEW_HEADS, WINDOW, SMALL_WINDOW = (3, 6, 12, 24), (1, 2, 4, 8), 7, 4
CELL = 32  # voxels per axis of a cell of the coarsest grid: halved five times


class Rates(TorchFunctionMode):
    """MONAI's class reads the rates of stochastic depth from a tensor: it stays on the CPU, also on the meta device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        where = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **(options or {}), **where)


class SwinUNETR(nets.SwinUNETR):
    """MONAI's network in two parts; all axes are halved five times.

    width:   feature maps of the first grid, a multiple of 12; doubled by each
    depths:  layers of attention on each of four grids
    heads:   of attention on each of them
    window:  cells per axis of a window of attention
    dropout: in the transformer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        outputs: int,
        width: int = WIDTH,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = HEADS,
        window: int = WINDOW,
        dropout: float = 0.0,
    ) -> None:
        check_axes(spatial_dims, (2, 3), "swin_unetr")
        if len(depths) != 4 or len(heads) != 4:
            raise ValueError(f"depths and heads need one number for each of four grids, not {depths} and {heads}")
        with Rates():
            super().__init__(
                channels,
                outputs,
                depths=tuple(depths),
                num_heads=tuple(heads),
                window_size=window,
                feature_size=width,
                drop_rate=dropout,
                spatial_dims=spatial_dims,
            )
        self.multiple, self.deepest = [CELL] * spatial_dims, 16 * width

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        *finer, fourth, deepest = self.swinViT(images, self.normalize)
        skips: Any = zip((self.encoder1, self.encoder2, self.encoder3, self.encoder4), (images, *finer), strict=True)
        return [*(encoder(skip) for encoder, skip in skips), fourth, self.encoder10(deepest)]

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        maps = features[-1]
        decoders = (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        for decoder, skip in zip(decoders, features[-2::-1], strict=True):
            maps = decoder(maps, skip)
        return [self.out(maps)]


class SwinUNETRWithHeads(OfMonai):
    """MONAI's network with our heads."""

    body_of = SwinUNETR


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's settings on a GPU; on a processor a quarter of the width, fewer heads, smaller windows in volumes."""
    del strides  # all axes are halved equally
    filled = tuple(-(-n // CELL) * CELL for n in patch)
    padded = "" if filled == tuple(patch) else f", padded to {filled}"
    size: dict[str, Any] = {"width": WIDTH}
    if device == "cpu":
        size = {"width": NARROWEST, "heads": list(FEW_HEADS)}
        size |= {"window": SMALL_WINDOW} if len(patch) == 3 else {}
    settings = "width" if device != "cpu" else "width, heads and windows"
    return size, f"patch {tuple(patch)}{padded}: halved five times; {settings} for the {device}", PAPER


SWIN_UNETR = Family(build=SwinUNETRWithHeads, size_for=size_for, paper=PAPER, features="coarsest")
