"""Residual network for whole-image and whole-clip outputs, in one, two or three dimensions.

He et al., CVPR 2016, arXiv:1512.03385, with pre-activation (arXiv:1603.05027). The stem keeps the resolution of small
images, where the original would halve it twice before the first block. This file needs torch alone, so that a copy of
it travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PAPER, PAPER_CLIPS = "arXiv:1603.05027", "arXiv:1711.11248"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Block(nn.Module):
    """Normalise, activate, convolve, twice, beside a shortcut; the first convolution takes the stride."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        convolution, normalisation = CONVOLUTION[ndim], NORMALISATION[ndim]
        self.first_norm = normalisation(inside)
        self.first = convolution(inside, outside, 3, stride, 1, bias=False)
        self.second_norm = normalisation(outside)
        self.second = convolution(outside, outside, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if inside != outside or stride > 1:
            self.shortcut = convolution(inside, outside, 1, stride, bias=False)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        active = self.activation(self.first_norm(images))
        shortcut = images if self.shortcut is None else self.shortcut(active)
        return self.second(self.activation(self.second_norm(self.first(active)))) + shortcut


class ResNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      residual blocks of each stage; each stage but the first halves the resolution
    width:       feature maps of the first stage; doubled by each stage
    stem_stride: of the first convolution; 1 keeps small images whole
    dropout:     before the heads
    context:     numbers beside each image, which join its pooled maps before the last layer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 32,
        stem_stride: int = 1,
        dropout: float = 0.1,
        context: int = 0,
    ) -> None:
        super().__init__()
        kernel = 3 if stem_stride == 1 else 7
        stem = CONVOLUTION[spatial_dims](channels, width, kernel, stem_stride, kernel // 2, bias=False)
        layers: list[nn.Module] = [stem]
        inside = width
        for stage, count in enumerate(blocks):
            outside = width * 2**stage
            for n in range(count):
                layers.append(Block(spatial_dims, inside, outside, 2 if stage > 0 and n == 0 else 1))
                inside = outside
        self.features = inside
        self.body = nn.Sequential(*layers, NORMALISATION[spatial_dims](inside), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.vectors = nn.ModuleDict({name: nn.Linear(inside + context, size) for name, size in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        pooled = self.dropout(self.body(images).flatten(2).mean(dim=2))
        told = pooled if context is None else torch.cat([pooled, context], dim=1)
        return {name: layer(told) for name, layer in self.vectors.items()}


class ClipResNet(nn.Module):
    """(batch, channels * frames, *spatial) to {head: (batch, size of the head)}: a clip's answer as a whole.

    Each frame goes through one residual encoder, then convolutions run over time: the factorised (2+1)D network of Tran
    et al., CVPR 2018, arXiv:1711.11248, with all of time behind all of space. The encoder's features are small, so that
    time costs little. Frames come as channels, those of the first channel first.
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
        features = encoder.features
        self.over_time = nn.Sequential(
            nn.Conv1d(features, features, span, padding=span // 2, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(inplace=True),
            nn.Conv1d(features, features, span, padding=span // 2),
        )
        self.activation = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.vectors = nn.ModuleDict({name: nn.Linear(features, count) for name, count in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        spatial, channels = images.shape[2:], images.shape[1] // self.frames
        each = images.reshape(-1, channels, self.frames, *spatial).transpose(1, 2).reshape(-1, channels, *spatial)
        pooled = self.encoder(each).flatten(2).mean(dim=2)
        series = pooled.reshape(-1, self.frames, pooled.shape[1]).transpose(1, 2)
        moved = self.activation(series + self.over_time(series))
        whole = self.dropout(moved.mean(dim=2))
        return {name: layer(whole) for name, layer in self.vectors.items()}


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> ResNet:
    if dense:
        raise ValueError("a ResNet has no output for every voxel: choose unet")
    return ResNet(channels, spatial_dims, vectors, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """Fewer stages for small images, whose resolution the stem keeps; the reason and its source."""
    del strides
    small = max(patch) <= 64
    blocks = [2, 2, 2] if small else [2, 2, 2, 2]
    stem = "the stem keeps the resolution" if small else "the stem halves it"
    # A volume costs a processor some thirty pictures: at half the width it sees three times as many in the time.
    width = 16 if device == "cpu" and len(patch) == 3 else 32
    size = {"width": width, "blocks": blocks, "stem_stride": 1 if small else 2}
    because = f"images of {tuple(patch)}: {len(blocks)} stages, {stem}; width for the {device}"
    return size, because, "arXiv:1512.03385"


def build_clips(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> ClipResNet:
    if dense:
        raise ValueError("a clip's answer is one for all of it: choose unet, and a mask a frame")
    return ClipResNet(channels, spatial_dims, vectors, **size)


def size_for_clips(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet for a frame; the number of frames is the plan's."""
    size, because, _ = size_for(patch, strides, device)
    return {**size, "frames": 1}, f"{because}; convolutions over time see three frames", PAPER_CLIPS
