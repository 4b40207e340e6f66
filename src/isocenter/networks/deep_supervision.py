"""Coarser outputs of a U-Net that also learn (deep supervision), and the check of its stages.

Lee et al., AISTATS 2015, arXiv:1409.5185, as in nnU-Net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from isocenter.networks.layers import CONVOLUTION


def check_stages(strides: Sequence[Sequence[int]], axes: int, levels: int) -> None:
    """ValueError where these are no stages of so many axes, or too few for so many coarser outputs."""
    if not strides or max(strides[0]) > 1 or any(len(stride) != axes for stride in strides):
        raise ValueError(f"strides need {axes} numbers a stage, and 1 in the first, not {strides}")
    if not 0 <= levels <= max(0, len(strides) - 2):
        raise ValueError(f"{len(strides)} stages have no {levels} coarser outputs (deep_supervision)")


def coarse_heads(axes: int, widths: Sequence[int], dense: Mapping[str, int], levels: int) -> nn.ModuleDict:
    """`head@1` (half the resolution), `head@2`, ... of each dense head: 1 x 1 convolutions of a stage's maps.

    widths: feature maps of each stage, finest first
    """
    return nn.ModuleDict(
        {
            f"{name}@{level}": CONVOLUTION[axes](widths[level], count, 1)
            for name, count in dense.items()
            for level in range(1, levels + 1)
        }
    )


def coarse_outputs(heads: nn.ModuleDict, decoded: Sequence[Tensor]) -> dict[str, Tensor]:
    """The outputs of `coarse_heads` for the maps of the decoder, coarsest first."""
    return {name: layer(decoded[-1 - int(name.rpartition("@")[2])]) for name, layer in heads.items()}
