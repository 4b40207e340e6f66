"""Attention U-Net: what a U-Net hands across is weighed by gates that the coarser grid sets; MONAI's.

Oktay et al., MIDL 2018, arXiv:1804.03999. This file needs torch and MONAI, and `of_monai` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets.attentionunet import AttentionUnet
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.monai_common import OfMonai, outputs_of, product_of, stages_for

PAPER = "arXiv:1804.03999"
# Five grids of 16 to 256 feature maps: 5.9 million weights in volumes.
WIDTH, STAGES = 16, 5


class AttentionUNet(AttentionUnet):
    """MONAI's network in two halves.

    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first stage; doubled by each
    dropout: of single values, in each stage
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
        """Of each grid but the coarsest its gate with what follows, and the convolutions that lead below it."""
        found: list[tuple[Any, Any]] = []
        gate: Any = self.model[1]
        while isinstance(gate.submodule, nn.Sequential):
            below, deeper = gate.submodule
            found.append((gate, below))
            gate = deeper
        return [*found, (gate, gate.submodule)]

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


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], **size: Any
) -> OfMonai:
    """MONAI's network with our heads."""
    return OfMonai(AttentionUNet(channels, spatial_dims, outputs_of(dense), **size), dense, vectors)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """Five stages, or as many as the patch has; half the width on a processor."""
    kept = stages_for(strides, STAGES)
    size = {"strides": kept, "width": WIDTH // 2 if device == "cpu" else WIDTH}
    return size, f"patch {tuple(patch)}: {len(kept)} stages; width for the {device}", PAPER


ATTENTION_UNET = Family(build=build, size_for=size_for, paper=PAPER)
