"""A U-Net that makes images out of noise, told how much noise is left and what the image is to show.

The body is MONAI's `DiffusionModelUNet`: Pinaya et al., arXiv:2209.07162; Rombach et al., arXiv:2112.10752.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

from hilum.networks import common_layers
from hilum.networks.network_family import Family, Sized, Strides

PAPER = "arXiv:2209.07162"
# Maps of the first level; sinusoids of the level were made for a thousand steps of noise.
WIDTH = {"cpu": 16, "gpu": 64}
LEVELS = 4
COARSEST = 6
GROUPS = 8
STEPS = 1000.0


class DiffusionUNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial)}.

    Images of any size are padded, by their last voxels, to whole cells of the coarsest grid, and outputs are cropped.
    The context is (batch, 1 + classes): the level, from 0 (noise) to 1 (an image), then 1 for the class that is asked
    for, else 0. After the channels of the image may stand one for each label of a mask. Without context the level is 1,
    without a mask or a class nothing is asked for.
    width:  maps of the first level, twice as many in the others; levels: each half as fine as the one before
    blocks: residual ones of each level; attention is in the coarsest level alone
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        width: int = 32,
        levels: int = 3,
        blocks: int = 1,
        classes: int = 0,
        labels: int = 0,
    ) -> None:
        super().__init__()
        self.inputs = channels + labels
        self.classes = classes
        self.heads = dict(dense)
        self.multiple = [2 ** (levels - 1)] * spatial_dims
        self.body: Any = DiffusionModelUNet(
            spatial_dims,
            self.inputs,
            sum(dense.values()),
            num_res_blocks=blocks,
            channels=[width, *[2 * width] * (levels - 1)],
            attention_levels=[*[False] * (levels - 1), True],
            norm_num_groups=GROUPS,
            num_class_embeds=1 if classes else None,
        )
        if classes:  # a class may be left out, which an index cannot say
            embedding: Any = nn.Linear(classes, 4 * width, bias=False)
            self.body.class_embedding = embedding

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return outputs by head."""
        size = common_layers.spatial_sizes(images)
        if missing := self.inputs - int(images.shape[1]):
            images = torch.cat([images, torch.zeros_like(images[:, :1]).repeat_interleave(missing, 1)], dim=1)
        padded = common_layers.pad_to_cells(images, self.multiple)
        if context is None:
            level = torch.ones_like(images[:, 0].flatten(1)[:, :1])
            context = torch.cat([level, torch.zeros_like(level).repeat_interleave(self.classes, 1)], dim=1)
        asked = {"class_labels": context[:, 1:]} if self.classes else {}
        maps = self.body(padded, STEPS * context[:, 0], **asked)
        maps = common_layers.crop_to_images(maps, size, common_layers.spatial_sizes(padded))
        return dict(zip(self.heads, maps.split(list(self.heads.values()), dim=1), strict=True))


def _size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    levels = 2
    while levels < LEVELS and min(patch) / 2**levels >= COARSEST:
        levels += 1
    kind = "cpu" if device == "cpu" else "gpu"
    width = WIDTH[kind] if len(patch) < 3 or kind == "cpu" else WIDTH[kind] // 2
    because = f"levels halve {list(patch)} voxels while {COARSEST} a side are left, {LEVELS} at the most"
    return {"width": width, "levels": levels, "blocks": 1}, f"{because}; maps that a {kind} takes", PAPER


DIFFUSION_UNET = Family(
    DiffusionUNet,
    _size_for,
    PAPER,
    answers=frozenset({"dense"}),
    axes=(2, 3),
    otherwise="Give pictures or volumes",
    features="body.middle_block",
    synthesises=True,
)
