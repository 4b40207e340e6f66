"""TransUNet in one, two or three dimensions: a U-Net whose coarsest maps go through a transformer.

Chen et al., arXiv:2102.04306: each cell of the encoder's coarsest maps is a token, and a decoder with skip connections
follows the transformer. Different from the paper: the encoder is that of our U-Net, which starts on the image's own
grid, instead of ResNet-50, and maps are normalised within each image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hilum.networks import common_layers, transformer_blocks, vit
from hilum.networks.common_layers import CONVOLUTION, LINEAR
from hilum.networks.network_family import OWN, Family, Sized, Strides
from hilum.networks.transformer_blocks import EPSILON, TransformerBlock
from hilum.networks.unet import SingleConvolution, UNetBlock
from hilum.networks.vit import MOST_TOKENS

PAPER = "arXiv:2102.04306"
# The coarsest grid has a sixteenth of the image's resolution (section 4.2), or less where these were too many tokens.
STAGES = 5
# Voxels an axis of images whose positions are learnt, where the settings have no `patch`.
USUAL = 224
# The paper's transformer, ViT-B (section 4.2), and a small one for processors.
PAPERS = {"layers": 12, "hidden": 768, "heads": 12}
SMALL = {"layers": 4, "hidden": 192, "heads": 3}


class TransUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    strides:       one entry a stage and axis; the first stage has stride 1. A cell of the last stage is a token
    patch:         (*spatial) of images whose positions are learnt; for images of another size these are interpolated
    width, widest: feature maps of the first stage; doubled by each stage up to `widest`
    layers:        of the transformer
    hidden:        features of a token
    heads:         of the attention; they share these
    expansion:     of the transformer's feed-forward layers
    dropout:       in the transformer
    context:       number of covariates. Each is a token of its own: a learnt direction, times the number, plus a
                   learnt embedding of which covariate it is, as in Gorishniy et al., arXiv:2106.11959
    Images of any size are padded, by their last voxels, to whole cells of the coarsest grid. A vector head is a linear
    layer on the mean of the image's tokens.
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
        self.multiple = common_layers.cell_size(strides, spatial_dims)
        patch = [USUAL] * spatial_dims if patch is None else list(patch)
        _refuse(spatial_dims, patch, layers, hidden, heads)
        self.grid = [-(-n // step) for n, step in zip(patch, self.multiple, strict=True)]
        widths = [min(width * 2**stage, widest) for stage in range(len(strides))]
        kernel = [3] * spatial_dims
        ones = [1] * spatial_dims
        inside = [channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            UNetBlock(spatial_dims, before, maps, kernel, stride)
            for before, maps, stride in zip(inside, widths, strides, strict=True)
        )
        self.tokens = nn.Linear(widths[-1], hidden)
        self.positions = nn.Parameter(torch.empty(1, math.prod(self.grid), hidden))
        self.directions = nn.Parameter(torch.empty(context, hidden)) if context else None
        self.of_entry = nn.Parameter(torch.empty(context, hidden)) if context else None
        self.layers = nn.ModuleList(TransformerBlock(hidden, heads, expansion, dropout, 0.0) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden, eps=EPSILON)
        finer = list(zip(widths[:0:-1], widths[-2::-1], strict=True)) if dense else []
        self.first = SingleConvolution(spatial_dims, hidden, widths[-1], kernel, "relu") if dense else None
        self.decoder = nn.ModuleList(
            UNetBlock(spatial_dims, below + here, here, kernel, ones, residual=False, activation="relu")
            for below, here in finer
        )
        convolution = CONVOLUTION[spatial_dims]
        self.dense = nn.ModuleDict({name: convolution(widths[0], count, 1) for name, count in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(hidden, count) for name, count in vectors.items()})
        embeddings = self.positions, self.directions, self.of_entry
        transformer_blocks.initialise_layers([self.tokens, *self.layers.modules()], embeddings)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        size = common_layers.spatial_sizes(images)
        images = common_layers.pad_to_cells(images, self.multiple)
        features = common_layers.stage_maps(self.encoder, images)
        tokens = self._transform(features[-1], context)
        outputs = {name: layer(tokens.mean(dim=1)) for name, layer in self.vectors.items()}
        if self.first is None:
            return outputs
        images = self.first(tokens.transpose(1, 2).unflatten(2, common_layers.spatial_sizes(features[-1])))
        for block, skip in zip(self.decoder, features[-2::-1], strict=True):
            finer = interpolate(
                images, size=common_layers.spatial_sizes(skip), mode=LINEAR[skip.ndim - 2], align_corners=False
            )
            images = block(torch.cat([finer, skip], dim=1))
        images = common_layers.crop_to_images(images, size, common_layers.spatial_sizes(images))
        return outputs | {name: layer(images) for name, layer in self.dense.items()}

    def spread_rollout(self, flow: Tensor, images: Tensor) -> Tensor:
        """(batch, 1, *spatial) of a rollout: each cell's share in the mean of the tokens, for vector heads."""
        return transformer_blocks.spread_of_mean(flow, images, self.multiple)

    def _transform(self, deepest: Tensor, context: Tensor | None) -> Tensor:
        """(batch, cells, hidden): the coarsest maps, (batch, maps, *grid), after the transformer."""
        tokens = self.tokens(deepest.flatten(2).transpose(1, 2)) + vit.resize_positions(
            self.positions, self.grid, common_layers.spatial_sizes(deepest)
        )
        count = int(tokens.shape[1])
        if context is not None and self.directions is not None and self.of_entry is not None:
            tokens = torch.cat([tokens, context.unsqueeze(2) * self.directions + self.of_entry], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return cast("Tensor", self.norm(tokens[:, :count]))


def _refuse(ndim: int, patch: Sequence[int], layers: int, hidden: int, heads: int) -> None:
    """ValueError for settings that make no network."""
    if len(patch) != ndim or min(patch) < 1:
        raise ValueError(f"patch needs {ndim} sizes from 1, not {patch}")
    if layers < 1:
        raise ValueError(f"{layers} layers: there is at least one")
    if heads < 1 or hidden < 1 or hidden % heads:
        raise ValueError(f"{heads} heads cannot share {hidden} features evenly (hidden)")


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's transformer on a GPU, a small one on a processor; positions for this patch."""
    slow = device == "cpu"
    count = STAGES
    most = MOST_TOKENS["cpu" if slow else "gpu"]
    while count < len(strides) and _tokens(patch, strides[:count]) > most:
        count += 1
    stages = common_layers.first_stages(strides, count)
    size = {"strides": stages, "patch": list(patch), "width": 16 if slow else 32, **(SMALL if slow else PAPERS)}
    because = f"patch {tuple(patch)}: {len(stages)} stages, {_tokens(patch, stages)} tokens"
    return size, f"{because}; {size['layers']} layers of {size['hidden']} on {device}", PAPER


def _tokens(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    return math.prod(-(-n // step) for n, step in zip(patch, common_layers.cell_size(strides, len(patch)), strict=True))


TRANSUNET = Family(
    build=TransUNet,
    size_for=size_for,
    paper=PAPER,
    takes_context=(OWN,),
    features="encoder.-1",
    attention="layers",
)
