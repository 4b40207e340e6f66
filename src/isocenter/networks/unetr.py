"""UNETR: a transformer over cubes of 16 voxels, whose layers a convolutional decoder joins; MONAI's.

Hatamizadeh et al., WACV 2022, arXiv:2103.10504. This file needs torch and MONAI, and `of_monai` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import einops  # noqa: F401 - MONAI asks for it only once the network is made
from monai.networks import nets
from torch import Tensor, nn
from torch.nn.functional import interpolate

from isocenter.networks.family import Family
from isocenter.networks.monai_common import OfMonai, outputs_of, sizes

PAPER = "arXiv:2103.10504"
# Of the usual learning rate, and why: PneumoniaMNIST, three minutes on one core, one seed.
CUBE = 16  # voxels per axis that one token stands for; fixed in MONAI's class
TAPPED = (3, 6, 9)  # layers that the decoder joins beside the last, from 0 as in MONAI's class
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
# The paper's, ViT-B16 (section 3.2), and a narrow one for processors: features of a token, those of its inner layer,
# heads, and maps of the finest decoder.
PAPERS = {"hidden": 768, "inner": 3072, "heads": 12, "width": 16}
NARROW = {"hidden": 192, "inner": 768, "heads": 6, "width": 8}


class Unetr(nets.UNETR):
    """MONAI's network in two halves.

    patch:   voxels per axis of the images for which places are learnt; for images of another size what was learnt is
             read in between (as Dosovitskiy et al., arXiv:2010.11929, section 3.2)
    hidden:  features of a token, a multiple of heads; inner: of the layer between two
    heads:   of attention
    width:   maps of the finest decoder; doubled by each coarser one
    dropout: in the transformer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        outputs: int,
        patch: Sequence[int],
        hidden: int = PAPERS["hidden"],
        inner: int = PAPERS["inner"],
        heads: int = PAPERS["heads"],
        width: int = PAPERS["width"],
        dropout: float = 0.0,
    ) -> None:
        if len(patch) != spatial_dims or min(patch) < 1:
            raise ValueError(f"patch needs {spatial_dims} sizes, not {patch}")
        grid = [-(-n // CUBE) for n in patch]
        whole = [n * CUBE for n in grid]
        super().__init__(
            channels, outputs, whole, width, hidden, inner, heads, dropout_rate=dropout, spatial_dims=spatial_dims
        )
        self.multiple, self.deepest, self.grid = [CUBE] * spatial_dims, hidden, grid
        for block in self.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # of an attention that it does not have

    def places(self, grid: Sequence[int]) -> Tensor:
        """(1, tokens, hidden) what says where a token lies, on the grid of an image."""
        learnt = self.vit.patch_embedding.position_embeddings
        if list(grid) == self.grid:
            return learnt
        laid_out = learnt.transpose(1, 2).unflatten(2, self.grid)
        between = interpolate(laid_out, size=list(grid), mode=LINEAR[len(self.grid)], align_corners=False)
        return between.flatten(2).transpose(1, 2)

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        embedding: Any = self.vit.patch_embedding
        cubes = embedding.patch_embeddings(images)
        grid = sizes(cubes)
        tokens = embedding.dropout(cubes.flatten(2).transpose(1, 2) + self.places(grid))
        layers = []
        for number, block in enumerate(self.vit.blocks):
            tokens = block(tokens)
            layers += [tokens] if number in TAPPED else []
        return [images, *(one.transpose(1, 2).unflatten(2, grid) for one in (*layers, self.vit.norm(tokens)))]

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        images, third, sixth, ninth, last = features
        found = self.decoder5(last, self.encoder4(ninth))
        found = self.decoder4(found, self.encoder3(sixth))
        found = self.decoder3(found, self.encoder2(third))
        return [self.out(self.decoder2(found, self.encoder1(images)))]


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], **size: Any
) -> OfMonai:
    """MONAI's network with our heads."""
    return OfMonai(Unetr(channels, spatial_dims, outputs_of(dense), **size), dense, vectors)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """The paper's on a GPU, a narrow one on a processor; places are learnt for this patch."""
    del strides  # its cubes are as long along each axis
    size = {"patch": [int(n) for n in patch], **(NARROW if device == "cpu" else PAPERS)}
    return size, f"patch {tuple(patch)} in cubes of {CUBE} voxels an axis; width for the {device}", PAPER


UNETR = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    rate={"vector": (0.25, "came to an AUROC of 0.967 with it, and of 0.951 with the usual one")},
)
