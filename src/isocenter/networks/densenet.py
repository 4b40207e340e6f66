"""Densely connected network for whole-image outputs, in two or three dimensions.

Huang et al., CVPR 2017, arXiv:1608.06993: each layer sees the feature maps of all layers before it. Memory is kept
small by computing the joined maps again in the backward pass (Pleiss et al., arXiv:1707.06990). This file needs torch
and `telling` beside it, so that a copy of it travels with a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead

PAPER = "arXiv:1608.06993"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLING: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
BOTTLENECK = 4  # times the growth, the width of the 1 x 1 convolution (DenseNet-B)
LARGE_IMAGE = 64**3  # voxels from which the joined maps are computed twice rather than kept


class Layer(nn.Module):
    """The maps of all layers before, narrowed by a 1 x 1 convolution, to `growth` new ones."""

    def __init__(self, ndim: int, inside: int, growth: int, efficient: bool) -> None:
        super().__init__()
        middle = BOTTLENECK * growth
        self.efficient = efficient
        self.first_norm, self.second_norm = NORMALISATION[ndim](inside), NORMALISATION[ndim](middle)
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
        return self.second(self.second_norm(narrow).relu())

    def _narrow(self, *maps: Tensor) -> Tensor:
        return self.first(self.first_norm(torch.cat(maps, dim=1)).relu())

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._statistics_held()

    @contextmanager
    def _statistics_held(self) -> Iterator[None]:
        """A batch that is computed twice is counted once in the running mean and variance."""
        momentum, self.first_norm.momentum = self.first_norm.momentum, 0.0
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
    efficient:   compute the joined maps twice rather than keep them
    context:     numbers beside each image
    fusion:      how they are used (`ContextFusion`); without it they join its pooled maps before the last layer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        width: int = 64,
        stem_stride: int = 1,
        dropout: float = 0.1,
        efficient: bool = False,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        convolution, normalisation = CONVOLUTION[spatial_dims], NORMALISATION[spatial_dims]
        kernel = 3 if stem_stride == 1 else 7
        self.stem = convolution(channels, width, kernel, stem_stride, kernel // 2, bias=False)
        self.stages, self.transitions = nn.ModuleList(), nn.ModuleList()
        for stage, count in enumerate(blocks):
            layers = (Layer(spatial_dims, width + n * growth, growth, efficient) for n in range(count))
            self.stages.append(nn.ModuleList(layers))
            width += count * growth
            last = stage == len(blocks) - 1
            narrow = [convolution(width, width // 2, 1, bias=False), POOLING[spatial_dims](2)]
            self.transitions.append(nn.Sequential(normalisation(width), nn.ReLU(), *([] if last else narrow)))
            width = width if last else width // 2
        self.end(width, vectors, dropout, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        images = self.stem(images)
        for stage, transition in zip(self.stages, self.transitions, strict=True):
            maps = [images]
            for layer in stage:  # type: ignore[attr-defined]
                maps.append(layer(maps))
            images = transition(torch.cat(maps, dim=1))
        return self.answers(images, context)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """Fewer layers for small images, whose resolution the stem keeps; DenseNet-121 for large ones on a GPU."""
    del strides
    voxels = math.prod(patch)
    slow = device == "cpu"
    small = max(patch) <= 64
    if small:
        blocks, growth = [4, 4, 4], 12 if slow else 24
    else:
        blocks, growth = ([4, 6, 8, 6], 16) if slow else ([6, 12, 24, 16], 32)
    # On a processor a volume costs seven times as much at its own resolution.
    stride = 1 if small and not (slow and len(patch) == 3) else 2
    size = {
        "blocks": blocks,
        "growth": growth,
        "width": 2 * growth,
        "stem_stride": stride,
        "efficient": voxels >= LARGE_IMAGE,
    }
    stem = "the stem keeps the resolution" if stride == 1 else "the stem halves it"
    again = "; joined maps are computed twice to save memory" if size["efficient"] else ""
    return size, f"images of {tuple(patch)}: {sum(blocks)} layers in {len(blocks)} blocks, {stem}{again}", PAPER


DENSENET = Family(
    build=DenseNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
    search_order=5,
)
