"""Rings: a family of networks of somebody else, who knows torch and the page on contributing, and no file of ours.

Convolutions whose steps grow from layer to layer see far without making the image smaller. What no family of ours has:
it is taught each voxel by a margin (Wang et al., arXiv:1801.05599), for which it needs the truth while it trains and a
loss of its own. One file; its line is the entry point that `tests/test_promise_network.py` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hilum.networks.network_family import Family

PAPER = "arXiv:1511.07122"
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Rings(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    width:   feature maps of each layer
    reaches: steps of each layer, in voxels
    margin:  taken off the true class in training, so that it has to win by more
    context: number of covariates
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        width: int = 8,
        reaches: Sequence[int] = (1, 2),
        margin: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.margin = margin
        convolution = CONVOLUTION[spatial_dims]
        entering = [channels, *[width] * (len(reaches) - 1)]
        self.rings = nn.ModuleList(
            convolution(n, width, 3, padding=reach, dilation=reach) for n, reach in zip(entering, reaches, strict=True)
        )
        self.dense = nn.ModuleDict({name: convolution(width, count, 1) for name, count in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(width + context, size) for name, size in vectors.items()})

    def forward(
        self, images: Tensor, context: Tensor | None = None, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        for ring in self.rings:
            images = ring(images).relu()
        pooled = images.flatten(2).mean(dim=2)
        features = pooled if context is None else torch.cat([pooled, context], dim=1)
        outputs = {name: layer(features) for name, layer in self.vectors.items()}
        outputs |= {name: layer(images) for name, layer in self.dense.items()}
        if targets is None:
            return outputs
        return {name: one - self.margin * by_class(targets, one.shape[1]) for name, one in outputs.items()}

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """Cross-entropy, after the margin that `forward` took off."""
        assert self.training
        return torch.stack([nn.functional.cross_entropy(outputs[name], targets.long()) for name in heads]).sum()


def by_class(targets: Tensor, classes: int) -> Tensor:
    """(batch, *spatial) numbers of classes as (batch, classes, *spatial) of 0 and 1."""
    return nn.functional.one_hot(targets.long(), classes).movedim(-1, 1)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A ring more for each stage that a U-Net would have."""
    reaches = [2**n for n in range(len(strides))]
    return {"reaches": reaches}, f"patch {tuple(patch)}: {len(reaches)} rings on the {device}", PAPER


RINGS = Family(
    Rings,
    size_for,
    PAPER,
    preset={"margin": 0.5},
    preset_reason="the true class has to win by 0.5",
    takes_context=("own",),
    sees_targets=True,
    has_loss=True,
)
