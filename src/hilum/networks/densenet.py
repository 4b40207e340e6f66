"""DenseNet for whole-image outputs, in one, two or three dimensions.

Huang et al., CVPR 2017, arXiv:1608.06993: each layer sees the feature maps of all layers before it. To save memory the
concatenated maps can be computed again in the backward pass (Pleiss et al., arXiv:1707.06990).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hilum.networks import context_fusion
from hilum.networks.common_layers import AVERAGE_POOL, BATCH_NORM, CONVOLUTION
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, SizeValue, Strides

PAPER = "arXiv:1608.06993"
BOTTLENECK = 4  # width of the 1 x 1 convolution, in multiples of the growth (DenseNet-B)
LARGE_IMAGE = 64**3  # voxels from which the concatenated maps are computed again


class DenseLayer(nn.Module):
    """`growth` new maps from the maps of all layers before, which a 1 x 1 convolution narrows first."""

    def __init__(self, ndim: int, inside: int, growth: int, efficient: bool) -> None:
        super().__init__()
        middle = BOTTLENECK * growth
        self.efficient = efficient
        self.first_norm = BATCH_NORM[ndim](inside)
        self.second_norm = BATCH_NORM[ndim](middle)
        self.first = CONVOLUTION[ndim](inside, middle, 1, bias=False)
        self.second = CONVOLUTION[ndim](middle, growth, 3, padding=1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return (batch, growth, *spatial)."""
        if self.efficient and self.training and torch.is_grad_enabled():
            narrow = checkpoint(
                self._narrow, *maps, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts
            )
        else:
            narrow = self._narrow(*maps)
        return cast("Tensor", self.second(self.second_norm(narrow).relu()))

    def _narrow(self, *maps: Tensor) -> Tensor:
        return cast("Tensor", self.first(self.first_norm(torch.cat(maps, dim=1)).relu()))

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._statistics_held()

    @contextmanager
    def _statistics_held(self) -> Iterator[None]:
        """The running mean and variance stay unchanged inside: the first pass has counted this batch."""
        momentum = self.first_norm.momentum
        self.first_norm.momentum = 0.0
        try:
            yield
        finally:
            self.first_norm.momentum = momentum


class DenseNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      layers of each dense block; between two blocks the resolution and the number of maps are halved
    growth:      feature maps that each layer adds
    width:       feature maps of the stem
    stem_stride: of the first convolution; 1 keeps small images whole
    dropout:     before the heads
    efficient:   compute the concatenated maps again in the backward pass
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        width: int = 64,
        stem_stride: int = 1,
        dropout: float = 0.1,
        efficient: bool = False,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        convolution = CONVOLUTION[spatial_dims]
        normalisation = BATCH_NORM[spatial_dims]
        kernel = 3 if stem_stride == 1 else 7
        self.stem = convolution(channels, width, kernel, stem_stride, kernel // 2, bias=False)
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for stage, count in enumerate(blocks):
            layers = (DenseLayer(spatial_dims, width + n * growth, growth, efficient) for n in range(count))
            self.stages.append(nn.ModuleList(layers))
            width += count * growth
            last = stage == len(blocks) - 1
            narrow = [convolution(width, width // 2, 1, bias=False), AVERAGE_POOL[spatial_dims](2)]
            self.transitions.append(nn.Sequential(normalisation(width), nn.ReLU(), *([] if last else narrow)))
            width = width if last else width // 2
        return width, dropout

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        images = self.stem(images)
        for stage, transition in zip(self.stages, self.transitions, strict=True):
            maps = [images]
            for layer in cast("nn.ModuleList", stage):
                maps.append(layer(maps))
            images = transition(torch.cat(maps, dim=1))
        return self.answers(images, context)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Fewer layers and a stem without stride for small images; DenseNet-121 for large images on a GPU."""
    del strides
    voxels = math.prod(patch)
    slow = device == "cpu"
    small = max(patch) <= 64
    if small:
        blocks = [4, 4, 4]
        growth = 12 if slow else 24
    else:
        blocks, growth = ([4, 6, 8, 6], 16) if slow else ([6, 12, 24, 16], 32)
    # On a processor a step on a volume takes seven times as long without the stride.
    stride = 1 if small and not (slow and len(patch) == 3) else 2
    size: dict[str, SizeValue] = {
        "blocks": blocks,
        "growth": growth,
        "width": 2 * growth,
        "stem_stride": stride,
        "efficient": voxels >= LARGE_IMAGE,
    }
    stem = "the stem keeps the resolution" if stride == 1 else "the stem halves the resolution"
    again = "; joined maps are computed twice to save memory" if size["efficient"] else ""
    return size, f"images of {tuple(patch)}: {sum(blocks)} layers in {len(blocks)} blocks, {stem}{again}", PAPER


DENSENET = context_fusion.pooled_family(
    DenseNet, size_for, PAPER, search_order=5, features="transitions.-1", blocks=("DenseLayer",)
)
