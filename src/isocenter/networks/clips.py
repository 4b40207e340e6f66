"""Clips: each frame through one residual encoder, then convolutions over time; for whole-clip outputs.

The factorised (2+1)D network of Tran et al., CVPR 2018, arXiv:1711.11248, with all of time behind all of space: the
encoder's features are small, so that time costs little. Frames come as channels, those of the first channel first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from isocenter.networks import resnet
from isocenter.networks.resnet import ResNet

PAPER = "arXiv:1711.11248"


class ClipResNet(nn.Module):
    """(batch, channels * frames, *spatial) to {head: (batch, size of the head)}.

    frames:  of every clip
    span:    frames that a convolution over time sees
    `size`:  the other settings of a ResNet, which looks at each frame
    A clip's answer is that of the mean over its frames.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        frames: int = 1,
        span: int = 3,
        dropout: float = 0.1,
        **size: Any,
    ) -> None:
        super().__init__()
        if frames < 1 or channels % frames or span % 2 != 1:
            raise ValueError(f"{channels} channels are not those of {frames} frames, or a span of {span} is not odd")
        self.frames = frames
        encoder = ResNet(channels // frames, spatial_dims, {}, dropout=0.0, **size)
        self.encoder = encoder.body
        features = self._features(encoder)
        self.over_time = nn.Sequential(
            nn.Conv1d(features, features, span, padding=span // 2, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(inplace=True),
            nn.Conv1d(features, features, span, padding=span // 2),
        )
        self.activation = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.names = tuple(vectors)
        # A head may be called "class", which is no name that an exported network could have for its weights.
        self.vectors = nn.ModuleList(nn.Linear(features, count) for count in vectors.values())

    @staticmethod
    def _features(encoder: ResNet) -> int:
        """Feature maps of the last normalisation, which has a scale and an offset for each."""
        return sum(weight.numel() for weight in encoder.body[-2].parameters()) // 2

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        spatial, channels = images.shape[2:], images.shape[1] // self.frames
        each = images.reshape(-1, channels, self.frames, *spatial).transpose(1, 2).reshape(-1, channels, *spatial)
        pooled = self.encoder(each).flatten(2).mean(dim=2)
        series = pooled.reshape(-1, self.frames, pooled.shape[1]).transpose(1, 2)
        moved = self.activation(series + self.over_time(series))
        whole = self.dropout(moved.mean(dim=2))
        return {name: layer(whole) for name, layer in zip(self.names, self.vectors, strict=True)}


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> ClipResNet:
    if dense:
        raise ValueError("a clip's answer is one for all of it: choose unet, and a mask a frame")
    return ClipResNet(channels, spatial_dims, vectors, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet for a frame; the number of frames is the plan's."""
    size, because, _ = resnet.size_for(patch, strides, device)
    return {**size, "frames": 1}, f"{because}; convolutions over time see three frames", PAPER
