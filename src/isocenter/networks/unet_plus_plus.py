"""UNet++ of MONAI's blocks: a U-Net with nested, dense skip connections.

Zhou et al., DLMIA 2018, arXiv:1807.10165. MONAI's own class has five grids, each halved along all axes; this one has
as many as there are strides, with MONAI's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.blocks import UpSample
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.monai_common import OfMonai, product_of, size_by_stages

PAPER = "arXiv:1807.10165"
# Of the paper, section 3; on a processor a quarter, because all nodes of the first row have the image's resolution.
WIDTH, STAGES, NARROWER = 32, 5, 4
ACTIVATION = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
NORMALISATION = ("instance", {"affine": True})


class UNetPlusPlus(nn.Module):
    """Node (row, place) has the resolution of its row, and gets all nodes before it and the node below before it.

    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first row; doubled by each
    dropout: of single voxels, in each node
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        outputs: int,
        strides: Sequence[Sequence[int]],
        width: int = WIDTH,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.multiple = product_of(strides, spatial_dims)
        self.rows, widths = len(strides), [width * 2**row for row in range(len(strides))]
        self.deepest = widths[-1]
        made: Any = {"act": ACTIVATION, "norm": NORMALISATION, "bias": True, "dropout": dropout}
        self.conv_0_0 = TwoConv(spatial_dims, channels, width, **made)
        for row in range(1, self.rows):
            step = tuple(strides[row])
            down = Down(spatial_dims, widths[row - 1], widths[row], **made)
            down.max_pooling = Pool["MAX", spatial_dims](kernel_size=step)
            self.add_module(f"conv_{row}_0", down)
            for place in range(1, self.rows - row + 1):
                # Nodes of the first row get all maps from below, the others half of them, as in MONAI's class.
                halves, joined = row > 1, widths[row - 1] * place
                node = UpCat(spatial_dims, widths[row], joined, widths[row - 1], halves=halves, **made)
                from_below = widths[row] // 2 if halves else widths[row]
                node.upsample = UpSample(spatial_dims, widths[row], from_below, step)
                self.add_module(f"upcat_{row - 1}_{place}", node)
        last = Conv["conv", spatial_dims](width, outputs, kernel_size=1)
        self.add_module(f"final_conv_0_{self.rows - 1}", last)

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        features = [self.conv_0_0(images)]
        for row in range(1, self.rows):
            features.append(self.get_submodule(f"conv_{row}_0")(features[-1]))
        return features

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        nodes = [[maps] for maps in features]
        for place in range(1, self.rows):
            for row in range(self.rows - place):
                before = torch.cat(nodes[row], dim=1)
                nodes[row].append(self.get_submodule(f"upcat_{row}_{place}")(nodes[row + 1][place - 1], before))
        return [self.get_submodule(f"final_conv_0_{self.rows - 1}")(nodes[0][-1])]


class UNetPlusPlusWithHeads(OfMonai):
    """MONAI's network with our heads."""

    body_of = UNetPlusPlus


# Stages as in the paper; a quarter of its width on a processor.
SIZE_FOR = partial(size_by_stages, stages=STAGES, width=WIDTH, narrower=NARROWER, paper=PAPER)
UNET_PLUS_PLUS = Family(build=UNetPlusPlusWithHeads, size_for=SIZE_FOR, paper=PAPER, features="coarsest")
