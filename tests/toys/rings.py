"""Rings: a family of network of somebody else's, who knows torch and the page on contributing, and no file of ours.

Convolutions whose steps grow from layer to layer see far without making the image smaller. One file; its line is the
entry point that `tests/test_promise_network.py` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks import Family

PAPER = "arXiv:1511.07122"
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Rings(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    width:   feature maps of each layer
    reaches: steps of each layer, in voxels
    context: numbers that are told beside the image
    """

    def __init__(
        self,
        channels: int,
        axes: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        width: int = 8,
        reaches: Sequence[int] = (1, 2),
        context: int = 0,
    ) -> None:
        super().__init__()
        convolution = CONVOLUTION[axes]
        entering = [channels, *[width] * (len(reaches) - 1)]
        self.rings = nn.ModuleList(
            convolution(n, width, 3, padding=reach, dilation=reach) for n, reach in zip(entering, reaches, strict=True)
        )
        self.dense = nn.ModuleDict({name: convolution(width, count, 1) for name, count in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(width + context, size) for name, size in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        for ring in self.rings:
            images = ring(images).relu()
        pooled = images.flatten(2).mean(dim=2)
        told = pooled if context is None else torch.cat([pooled, context], dim=1)
        whole = {name: layer(told) for name, layer in self.vectors.items()}
        return whole | {name: layer(images) for name, layer in self.dense.items()}


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> Rings:
    return Rings(channels, spatial_dims, dense, vectors, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A ring more for each stage that a U-Net would have."""
    reaches = [2**n for n in range(len(strides))]
    return {"reaches": reaches}, f"patch {tuple(patch)}: {len(reaches)} rings on the {device}", PAPER


RINGS = Family(build, size_for, PAPER, takes_context=("own",))
