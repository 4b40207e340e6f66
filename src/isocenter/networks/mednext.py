"""MedNeXt of MONAI: ConvNeXt blocks in an encoder-decoder, also for its changes of resolution.

Roy et al., MICCAI 2023, arXiv:2303.09975.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks import nets
from torch import Tensor, nn

from isocenter.networks.family import Family, Sized, Strides
from isocenter.networks.monai_common import OfMonai, check_axes, halvings_for

PAPER = "arXiv:2303.09975"
# Its smallest, S: table 1 of the paper. On a processor a quarter of the width.
WIDTH, HALVINGS, NARROWER = 32, 4, 4


class MedNeXt(nets.MedNeXt):
    """MONAI's network in two parts; all axes are halved equally.

    halvings:         number of changes of resolution
    blocks:           of each stage from the finest to the coarsest, one number or one for each of halvings + 1; the
                      decoder has as many
    expansion:        of the maps inside a block, given likewise
    kernel:           voxels of the depthwise convolutions, odd
    deep_supervision: how many coarser outputs there are in training, each at half the resolution of the one before
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        outputs: int,
        halvings: int = HALVINGS,
        width: int = WIDTH,
        blocks: int | Sequence[int] = 2,
        expansion: int | Sequence[int] = 2,
        kernel: int = 3,
        deep_supervision: int = 0,
    ) -> None:
        check_axes(spatial_dims, (2, 3), "mednext")
        if halvings < 1 or kernel % 2 != 1:
            raise ValueError(f"halvings is a whole number from 1 and kernel an odd one, not {halvings} and {kernel}")
        if not 0 <= deep_supervision <= halvings:
            raise ValueError(f"{halvings} halvings have no {deep_supervision} coarser outputs (deep_supervision)")
        *down, deepest = _each(blocks, halvings + 1, "blocks")
        *wider, widest = _each(expansion, halvings + 1, "expansion")
        super().__init__(
            spatial_dims,
            width,
            channels,
            outputs,
            encoder_expansion_ratio=wider,
            decoder_expansion_ratio=wider[::-1],
            bottleneck_expansion_ratio=widest,
            kernel_size=kernel,
            deep_supervision=deep_supervision > 0,
            use_residual_connection=True,
            blocks_down=down,
            blocks_bottleneck=deepest,
            blocks_up=down[::-1],
        )
        self.multiple, self.deepest = [2**halvings] * spatial_dims, width * 2**halvings
        for place in range(halvings - deep_supervision if deep_supervision else 0):
            self.out_blocks[place] = nn.Identity()  # of grids that give no output
        self.coarser = deep_supervision

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        images, features = self.stem(images), []
        for stage, down in zip(self.enc_stages, self.down_blocks, strict=True):
            features.append(stage(images))
            images = down(features[-1])
        return [*features, self.bottleneck(images)]

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        images, coarser = features[-1], []
        stages = zip(self.up_blocks, self.dec_stages, features[-2::-1], strict=True)
        for place, (up, stage, skip) in enumerate(stages):
            if self.training and place >= len(self.up_blocks) - self.coarser:
                coarser.append(self.out_blocks[place](images))
            images = stage(up(images) + skip)
        return [self.out_0(images), *coarser[::-1]]


def _each(count: int | Sequence[int], stages: int, name: str) -> list[int]:
    counts = [count] * stages if isinstance(count, int) else list(count)
    if len(counts) != stages or min(counts) < 1:
        raise ValueError(f"{name} is one number from 1 or one for each of {stages} stages, not {count}")
    return counts


class MedNeXtWithHeads(OfMonai):
    """MONAI's network with our heads."""

    body_of = MedNeXt


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's smallest network, halved as often as the patch allows; a quarter of its width on a processor."""
    del strides  # all axes are halved equally
    slow, often = device == "cpu", halvings_for(patch, HALVINGS)
    size = {
        "halvings": often,
        "width": WIDTH // NARROWER if slow else WIDTH,
        "deep_supervision": 0 if slow else often - 1,
    }
    return size, f"patch {tuple(patch)}: halved {often} times along all axes; width for the {device}", PAPER


MEDNEXT = Family(build=MedNeXtWithHeads, size_for=size_for, paper=PAPER, features="coarsest")
