"""Attention U-Net of MONAI: gates from the coarser grid weigh the skip connections.

Oktay et al., MIDL 2018, arXiv:1804.03999.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.nets.attentionunet import AttentionUnet
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.monai_common import OfMonai, product_of, size_by_stages

PAPER = "arXiv:1804.03999"
# Five grids of 16 to 256 feature maps: 5.9 million weights in volumes.
WIDTH, STAGES = 16, 5


class AttentionUNet(AttentionUnet):
    """MONAI's network in two parts.

    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first stage; doubled by each
    dropout: of single voxels, in each stage
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
        multiple = product_of(strides, spatial_dims)
        widths = [width * 2**stage for stage in range(len(strides))]
        steps: Any = [tuple(stride) for stride in strides[1:]]
        super().__init__(spatial_dims, channels, outputs, widths, steps, dropout=dropout)
        self.multiple, self.deepest = multiple, widths[-1]

    def stages(self) -> list[tuple[Any, Any]]:
        """Each grid but the coarsest, finest first: its gate with what follows, and the convolutions below."""
        stages: list[tuple[Any, Any]] = []
        gate: Any = self.model[1]
        while isinstance(gate.submodule, nn.Sequential):
            below, deeper = gate.submodule
            stages.append((gate, below))
            gate = deeper
        return [*stages, (gate, gate.submodule)]

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        features = [self.model[0](images)]
        for _, below in self.stages():
            features.append(below(features[-1]))
        return features

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        images = features[-1]
        for (gate, _), skip in zip(self.stages()[::-1], features[-2::-1], strict=True):
            wide = gate.upconv(images)
            images = gate.merge(torch.cat([gate.attention(g=wide, x=skip), wide], dim=1))
        return [self.model[2](images)]


class AttentionUNetWithHeads(OfMonai):
    """MONAI's network with our heads."""

    body_of = AttentionUNet


# Half the width on a processor.
SIZE_FOR = partial(size_by_stages, stages=STAGES, width=WIDTH, narrower=2, paper=PAPER)
ATTENTION_UNET = Family(build=AttentionUNetWithHeads, size_for=SIZE_FOR, paper=PAPER, features="coarsest")
