"""TransUNet in one, two or three dimensions: a U-Net whose deepest map goes through a transformer.

Chen et al., arXiv:2102.04306: each cell of the deepest map of a convolutional encoder is a token; what the transformer
makes of them is brought back to the image's grid step by step, joined by what the encoder found on each. Different from
the paper: the encoder is that of our U-Net, which starts on the image's own grid, instead of ResNet-50, and maps are
normalised within each image. This file needs torch, and `of_monai`, `unet` and `vit` beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from isocenter.networks.family import OWN, Family
from isocenter.networks.monai_common import cut, filled, product_of, sizes, stages_for
from isocenter.networks.transformer import DEVIATION, EPSILON
from isocenter.networks.transformer import Block as Layer
from isocenter.networks.unet import CONVOLUTION, Block, Single
from isocenter.networks.vit import LINEAR, MOST_TOKENS, resized

PAPER = "arXiv:2102.04306"
# The deepest map is a sixteenth as fine as the image (section 4.2), or coarser where these were too many tokens.
STAGES = 5
# Voxels an axis that positions are learnt for where nobody says how large the images are.
USUAL = 224
# The paper's transformer, ViT-B (section 4.2), and a small one for processors.
PAPERS = {"layers": 12, "hidden": 768, "heads": 12}
SMALL = {"layers": 4, "hidden": 192, "heads": 3}


class TransUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    strides:       one entry a stage and axis; the first stage has stride 1. A cell of the last stage is a token
    patch:         (*spatial) that positions are learnt for; for images of another size they are read in between
    width, widest: feature maps of the first stage; doubled by each stage up to `widest`
    layers:        of the transformer
    hidden:        features of a token
    heads:         of the attention; they share these
    expansion:     by which factor the layer for each token alone is wider
    dropout:       in the transformer
    context:       numbers beside each image. Each is a token of its own: a learnt direction, times the number, plus a
                   learnt embedding of which one it is, as in Gorishniy et al., arXiv:2106.11959
    Images of any size are taken: they are continued by their last voxels to whole cells of the coarsest grid. A vector
    head is a linear layer on the mean of the image's tokens.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        strides: Sequence[Sequence[int]],
        patch: Sequence[int] | None = None,
        width: int = 32,
        widest: int = 512,
        layers: int = PAPERS["layers"],
        hidden: int = PAPERS["hidden"],
        heads: int = PAPERS["heads"],
        expansion: int = 4,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.multiple = product_of(strides, spatial_dims)
        patch = [USUAL] * spatial_dims if patch is None else list(patch)
        _refuse(spatial_dims, patch, layers, hidden, heads)
        self.grid = [-(-n // step) for n, step in zip(patch, self.multiple, strict=True)]
        widths = [min(width * 2**stage, widest) for stage in range(len(strides))]
        kernel, one = [3] * spatial_dims, [1] * spatial_dims
        inside = [channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            Block(spatial_dims, before, maps, kernel, stride)
            for before, maps, stride in zip(inside, widths, strides, strict=True)
        )
        self.tokens = nn.Linear(widths[-1], hidden)
        self.positions = nn.Parameter(torch.empty(1, math.prod(self.grid), hidden))
        self.directions = nn.Parameter(torch.empty(context, hidden)) if context else None
        self.of_entry = nn.Parameter(torch.empty(context, hidden)) if context else None
        self.layers = nn.ModuleList(Layer(hidden, heads, expansion, dropout, 0.0) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden, eps=EPSILON)
        finer = list(zip(widths[:0:-1], widths[-2::-1], strict=True)) if dense else []
        self.first = Single(spatial_dims, hidden, widths[-1], kernel, "relu") if dense else None
        self.decoder = nn.ModuleList(
            Block(spatial_dims, below + here, here, kernel, one, residual=False, activation="relu")
            for below, here in finer
        )
        convolution = CONVOLUTION[spatial_dims]
        self.dense = nn.ModuleDict({name: convolution(widths[0], count, 1) for name, count in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(hidden, count) for name, count in vectors.items()})
        self._begin()

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        size, images = sizes(images), filled(images, self.multiple)
        features = []
        for stage in self.encoder:
            images = stage(images)
            features.append(images)
        tokens = self._transformed(images, context)
        outputs = {name: layer(tokens.mean(dim=1)) for name, layer in self.vectors.items()}
        if self.first is None:
            return outputs
        images = self.first(tokens.transpose(1, 2).unflatten(2, sizes(images)))
        for block, skip in zip(self.decoder, features[-2::-1], strict=True):
            finer = interpolate(images, size=sizes(skip), mode=LINEAR[skip.ndim - 2], align_corners=False)
            images = block(torch.cat([finer, skip], dim=1))
        images = cut(images, size, sizes(images))
        return outputs | {name: layer(images) for name, layer in self.dense.items()}

    def _transformed(self, deepest: Tensor, context: Tensor | None) -> Tensor:
        """(batch, cells, hidden) of the deepest map, (batch, maps, *grid), after all have attended to all."""
        tokens = self.tokens(deepest.flatten(2).transpose(1, 2)) + resized(self.positions, self.grid, sizes(deepest))
        count = int(tokens.shape[1])
        if context is not None and self.directions is not None and self.of_entry is not None:
            tokens = torch.cat([tokens, context.unsqueeze(2) * self.directions + self.of_entry], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, :count])

    def _begin(self) -> None:
        """The transformer's weights as in `vit`."""
        for part in [self.tokens, *self.layers.modules()]:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=DEVIATION)
                nn.init.zeros_(part.bias)
        for one in (self.positions, self.directions, self.of_entry):
            if one is not None:
                nn.init.trunc_normal_(one, std=DEVIATION)


def _refuse(ndim: int, patch: Sequence[int], layers: int, hidden: int, heads: int) -> None:
    """ValueError for settings that make no network."""
    if len(patch) != ndim or min(patch) < 1:
        raise ValueError(f"patch needs {ndim} sizes from 1, not {patch}")
    if layers < 1:
        raise ValueError(f"{layers} layers: there is at least one")
    if heads < 1 or hidden < 1 or hidden % heads:
        raise ValueError(f"{heads} heads cannot share {hidden} features evenly (hidden)")


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """The paper's transformer on a GPU, a small one on a processor; positions are learnt for this patch."""
    slow = device == "cpu"
    count, most = STAGES, MOST_TOKENS["cpu" if slow else "gpu"]
    while count < len(strides) and _tokens(patch, strides[:count]) > most:
        count += 1
    kept = stages_for(strides, count)
    size = {"strides": kept, "patch": list(patch), "width": 16 if slow else 32, **(SMALL if slow else PAPERS)}
    said = f"patch {tuple(patch)}: {len(kept)} stages, {_tokens(patch, kept)} tokens"
    return size, f"{said}; {size['layers']} layers of {size['hidden']} on {device}", PAPER


def _tokens(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    return math.prod(-(-n // step) for n, step in zip(patch, product_of(strides, len(patch)), strict=True))


TRANSUNET = Family(build=TransUNet, size_for=size_for, paper=PAPER, takes_context=(OWN,))
