"""Multi-scale attention U-Net: each stage gets the image at its scale, and gates weigh the skip connections.

Abraham and Khan, ISBI 2019, arXiv:1810.07842, with the gates of Oktay et al., MIDL 2018, arXiv:1804.03999, and the
blocks of `unet`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hilum.networks import common_layers, unet
from hilum.networks.common_layers import AVERAGE_POOL, CONVOLUTION, INSTANCE_NORM, LINEAR, TRANSPOSED
from hilum.networks.network_family import Family, Sized, Strides
from hilum.networks.unet import UNetBlock

PAPER = "arXiv:1810.07842"


class AttentionGate(nn.Module):
    """Additive attention gate: weights between 0 and 1 for each voxel of the finer maps, from these and coarser ones.

    finer, coarser: (batch, maps, *spatial) each; the weights are computed on the coarser grid, and interpolated
    Oktay et al., arXiv:1804.03999, equations 1 and 2
    """

    def __init__(self, ndim: int, finer: int, coarser: int, stride: Sequence[int]) -> None:
        super().__init__()
        convolution = CONVOLUTION[ndim]
        inside = max(1, finer // 2)
        step = tuple(stride)
        self.of_finer = convolution(finer, inside, step, step, bias=False)
        self.of_coarser = convolution(coarser, inside, 1)
        self.weigh = convolution(inside, 1, 1)
        self.mode = LINEAR[ndim]

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """Return the finer maps times their weights."""
        return finer * self.weights(finer, coarser)

    def weights(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """(batch, 1, *spatial) on the grid of the finer maps."""
        logits = self.weigh(torch.relu(self.of_finer(finer) + self.of_coarser(coarser)))
        size = [int(n) for n in finer.shape[2:]]
        return interpolate(torch.sigmoid(logits), size=size, mode=self.mode, align_corners=False)


class ImageMaps(nn.Module):
    """The image, averaged to a coarser grid, as feature maps of it."""

    def __init__(self, ndim: int, channels: int, maps: int, kernel: Sequence[int], by: Sequence[int]) -> None:
        super().__init__()
        pad = tuple(n // 2 for n in kernel)
        self.average = AVERAGE_POOL[ndim](tuple(by))
        self.look = CONVOLUTION[ndim](channels, maps, tuple(kernel), 1, pad, bias=False)
        self.norm = INSTANCE_NORM[ndim](maps, affine=True)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, maps, *coarse)."""
        maps: Tensor = self.activation(self.norm(self.look(self.average(images))))
        return maps


class MultiscaleUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    dense, vectors:   heads by name with their number of channels
    strides:          one entry a stage and axis; the first stage has stride 1. The input's size per axis must be a
                      multiple of the product of its strides
    width:            feature maps of the first stage; doubled by each stage up to `widest`
    kernels:          one entry a stage and axis, odd; without them 3, and 1 across axes whose voxels are still long
    dropout:          of whole feature maps between the two convolutions of a block
    deep_supervision: how many coarser outputs `head@1`, `head@2`, ... there are in training; the paper has one a stage
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        strides: Sequence[Sequence[int]],
        width: int = 32,
        widest: int = 512,
        kernels: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.0,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__()
        common_layers.check_stages(strides, spatial_dims, deep_supervision)
        stages = len(strides)
        ones = [1] * spatial_dims
        widths = [min(width * 2**stage, widest) for stage in range(stages)]
        shapes = unet.kernels_for(strides) if kernels is None else unet.check_kernels(kernels, stages, spatial_dims)
        by = [[math.prod(along) for along in zip(*strides[: stage + 1], strict=True)] for stage in range(stages)]
        # Each stage gets as many maps of the image as it gets from the stage before.
        self.seeing = nn.ModuleList(
            ImageMaps(spatial_dims, channels, widths[stage - 1], shapes[stage], by[stage]) for stage in range(1, stages)
        )
        convolution = CONVOLUTION[spatial_dims]
        transposed = TRANSPOSED[spatial_dims]
        self.down = nn.ModuleList()
        self.encoder = nn.ModuleList()
        self.encoder.append(UNetBlock(spatial_dims, channels, widths[0], shapes[0], ones, dropout=dropout))
        self.gates = nn.ModuleList()
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for stage in range(1, stages):
            before = widths[stage - 1]
            step = tuple(strides[stage])
            self.down.append(convolution(before, before, step, step, bias=False))
            self.encoder.append(
                UNetBlock(spatial_dims, 2 * before, widths[stage], shapes[stage], ones, dropout=dropout)
            )
        for stage in range(stages - 1, 0, -1):
            finer = widths[stage - 1]
            coarser = widths[stage]
            step = tuple(strides[stage])
            self.gates.append(AttentionGate(spatial_dims, finer, coarser, step))
            self.up.append(transposed(coarser, finer, step, step, bias=False))
            self.decoder.append(UNetBlock(spatial_dims, 2 * finer, finer, shapes[stage - 1], ones, dropout=dropout))
        self.dense = nn.ModuleDict({name: convolution(widths[0], n, 1) for name, n in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(widths[-1], n) for name, n in vectors.items()})
        self.coarse = common_layers.coarse_heads(spatial_dims, widths, dense, deep_supervision)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; `context` is not used."""
        maps = self.encoder[0](images)
        skips: list[Tensor] = []
        for down, seeing, block in zip(self.down, self.seeing, list(self.encoder)[1:], strict=True):
            skips.append(maps)
            maps = block(torch.cat([down(maps), seeing(images)], dim=1))
        pooled = maps.flatten(2).mean(dim=2)
        decoded = [maps]
        for gate, up, block, skip in zip(self.gates, self.up, self.decoder, skips[::-1], strict=True):
            decoded.append(block(torch.cat([gate(skip, decoded[-1]), up(decoded[-1])], dim=1)))
        outputs = {name: layer(pooled) for name, layer in self.vectors.items()}
        outputs |= {name: layer(decoded[-1]) for name, layer in self.dense.items()}
        if self.training:
            outputs |= common_layers.coarse_outputs(self.coarse, decoded)
        return outputs


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a U-Net, with deep supervision of every stage but the two coarsest."""
    size, because, _ = unet.size_for(patch, strides, device)
    coarse = max(0, len(strides) - 3)
    scales = f"gates at {len(strides) - 1} scales, each of which gets the image; {coarse} coarser outputs learn too"
    reason = because.partition("; ")[0] + f"; width for the {device}; {scales}"
    return {**size, "deep_supervision": coarse}, reason, PAPER


MULTISCALE_UNET = Family(build=MultiscaleUNet, size_for=size_for, paper=PAPER, features="encoder.-1")
