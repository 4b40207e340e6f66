"""Networks for clips: one encoder looks at every frame, then time is gone through; the answer is one for the whole.

Time is gone through by convolutions (Tran et al., CVPR 2018, arXiv:1711.11248), by a recurrent network (Donahue et al.,
CVPR 2015, arXiv:1411.4389) or by a transformer (Arnab et al., ICCV 2021, arXiv:2103.15691). Frames come as channels,
those of the first channel first. A frame that is not there, because the clip is shorter or lost it, is NaN, and has no
influence: not on the answer, not on a gradient, and not on the means that batch normalisation keeps. That needs no
second input: what makes, moves and exports batches treats a clip with gaps as any other. This file needs torch and the
files of two families beside it, so that copies of them travel with a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead
from isocenter.networks.recurrent import Recurrent
from isocenter.networks.resnet import CONVOLUTION, NORMALISATION, ResNet
from isocenter.networks.resnet import size_for as size_for_frames
from isocenter.networks.transformer import DEVIATION, EPSILON, Block

# Of the sines that say when a frame is: the longest wave is 2 pi times this many frames (arXiv:1706.03762).
LONGEST = 10_000.0
# Added to the mean of a feature before its centroid is taken: of less than this there is none.
FAINT = 1e-3


class Frames:
    """Which frames of a batch are there, and how features of these alone become features of all, and back.

    there: (batch, frames)
    Where a network learns, only frames that are there are computed, so that batch normalisation sees no others. Else
    all are, and those that are not there are 0: the graph has one shape for every clip, and can be exported.
    """

    def __init__(self, there: Tensor, learning: bool) -> None:
        self.there = there
        self.chosen = _chosen(there) if learning and not there.is_meta else None

    def alone(self, features: Tensor) -> Tensor:
        """(batch * frames, ...) to (those that are computed, ...)."""
        return features if self.chosen is None else features.index_select(0, self.chosen)

    def all(self, features: Tensor) -> Tensor:
        """(those that are computed, ...) to (batch, frames, ...), 0 where there is no frame."""
        if self.chosen is None:
            known = self.there.flatten().to(features.dtype).reshape(-1, *[1] * (features.ndim - 1))
            spread = features * known
        else:
            spread = features.new_zeros(self.there.numel(), *features.shape[1:])
            spread = spread.index_copy(0, self.chosen, features)
        return spread.reshape(-1, self.there.shape[1], *features.shape[1:])

    def mean(self, series: Tensor) -> Tensor:
        """(batch, frames, features) to (batch, features), over the frames that are there."""
        weights = self.there.to(series.dtype).unsqueeze(2)
        return (series * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


@torch.compiler.disable  # how many there are is known when it runs
def _chosen(there: Tensor) -> Tensor | None:
    """The numbers of those that are there; None where all are."""
    chosen = there.flatten().nonzero()[:, 0]
    return None if len(chosen) == there.numel() else chosen


class Pooled(nn.Module):
    """(frames, maps, *spatial) to (frames, maps): how much there is of each feature, and where.

    Where is the centroid along each axis, -1 to 1 from end to end. By the mean alone, what moves would look alike
    wherever it goes. Features are positive: they come out of a ReLU.
    """

    def __init__(self, ndim: int, maps: int) -> None:
        super().__init__()
        self.mixed, self.norm = nn.Linear((1 + ndim) * maps, maps), nn.LayerNorm(maps, eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """Return (frames, features)."""
        moments = images.flatten(2) @ places(images.shape[2:]).to(images)
        mean, first = moments[:, :, 0], moments[:, :, 1:]
        where = first / (mean.unsqueeze(2) + FAINT)
        found: Tensor = self.norm(self.mixed(torch.cat([mean, where.flatten(1)], dim=1)))
        return found


def places(spatial: Sequence[int]) -> Tensor:
    """(voxels, 1 + axes): what weighs voxels for a mean, and for a first moment along each axis, -1 to 1."""
    axes = [torch.linspace(-1, 1, int(n)) if int(n) > 1 else torch.zeros(1) for n in spatial]
    lattice = [one.flatten() for one in torch.meshgrid(*axes, indexing="ij")]
    return torch.stack([torch.ones_like(lattice[0]), *lattice], dim=1) / len(lattice[0])


class Mean(nn.Module):
    """(frames, maps, *spatial) to (frames, maps): how much there is of each feature."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (frames, maps)."""
        return images.flatten(2).mean(dim=2)


class AtEachPlace(nn.Module):
    """A convolution over time at each voxel, beside a shortcut: the one dimension in (2+1)D, and in 3D + time."""

    def __init__(self, ndim: int, maps: int, span: int) -> None:
        super().__init__()
        self.span, self.norm, self.activation = span, NORMALISATION[ndim](maps), nn.ReLU(inplace=True)
        # Neighbours in time lie side by side as channels: a kernel of one voxel over them is one over time.
        self.convolution = CONVOLUTION[ndim](span * maps, maps, 1, bias=False)

    def forward(self, images: Tensor, frames: Frames) -> Tensor:
        """Return maps of the same shape; frames that are missing stay out."""
        series = frames.all(self.activation(self.norm(images)))
        reach, count = self.span // 2, series.shape[1]
        beyond = torch.zeros_like(series[:, :1]).expand(-1, reach, *[-1] * (series.ndim - 2))
        long = torch.cat([beyond, series, beyond], dim=1)
        near = torch.cat([long.narrow(1, start, count) for start in range(self.span)], dim=2)
        return images + self.convolution(frames.alone(near.flatten(0, 1)))


class Convolutions(nn.Module):
    """(batch, frames, features) to (batch, features): two convolutions over time beside a shortcut, then the mean."""

    def __init__(self, features: int, span: int) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = (nn.Conv1d(features, features, span, padding=span // 2) for _ in range(2))
        self.norm, self.activation = nn.BatchNorm1d(features), nn.ReLU(inplace=True)

    def forward(self, series: Tensor, frames: Frames) -> Tensor:
        """Return (batch, features)."""
        moved = self._over(self.first, series)
        active = frames.all(self.activation(self.norm(frames.alone(moved.flatten(0, 1)))))
        return frames.mean(self.activation(series + self._over(self.second, active)))

    def _over(self, convolution: nn.Module, series: Tensor) -> Tensor:
        found: Tensor = convolution(series.transpose(1, 2))
        return found.transpose(1, 2)


class Transformer(nn.Module):
    """(batch, frames, features) to (batch, width): what a token of the clip has gathered from those of its frames.

    When a frame is, its token is told by sines: frames lie at even steps, of the clip or in seconds, so that its number
    says it, and any number of them can come. Frames that are not there are attended to by none.
    """

    def __init__(self, inside: int, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if layers < 1 or heads < 1 or width < 2 or width % heads or width % 2:
            raise ValueError(
                f"{layers} layers of {width} features and {heads} heads: give an even width that they share"
            )
        self.features = width
        self.projection = nn.Linear(inside, width)
        self.clip_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4, dropout, 0.0) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        nn.init.trunc_normal_(self.clip_token, std=DEVIATION)

    def forward(self, series: Tensor, frames: Frames) -> Tensor:
        """Return (batch, width)."""
        tokens = self.projection(series)
        tokens = tokens + sines(tokens.shape[1], self.features).to(tokens)
        tokens = torch.cat([self.clip_token.expand(tokens.shape[0], -1, -1).to(tokens), tokens], dim=1)
        seen = torch.cat([torch.ones_like(frames.there[:, :1]), frames.there], dim=1)
        for block in self.blocks:
            tokens = block(tokens, seen)
        gathered: Tensor = self.norm(tokens[:, 0])
        return gathered


def sines(count: int, width: int) -> Tensor:
    """(1, count, width): places 0, 1, ... as sines and cosines of waves that become longer. Vaswani et al., 2017."""
    waves = LONGEST ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(count)[:, None] * waves
    return torch.cat([angles.sin(), angles.cos()], dim=1)[None]


class Clip(PooledHead):
    """(batch, channels * frames, *spatial) to {head: (batch, size of the head)}: a clip's answer as a whole.

    frames:  slots of a clip; those of them that have no frame are NaN
    within:  frames that a convolution over time sees behind each stage of the encoder, at each place; 0 for none: what
             moves within a frame is then known only by where its features lie
    where:   a feature of a frame is told by how much there is of it and by where it lies; without, by its mean alone
    dropout: before the heads
    context: numbers beside each clip
    fusion:  how they are used (`ContextFusion`); without it they join the clip's features before the last layer
    `size`:  the other settings of a ResNet, which looks at each frame
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        over_time: Callable[[int], nn.Module],
        frames: int,
        within: int,
        where: bool,
        dropout: float,
        context: int,
        fusion: Mapping[str, Any] | None = None,
        **size: Any,
    ) -> None:
        super().__init__()
        if frames < 1 or channels % frames:
            raise ValueError(f"{channels} channels are not those of {frames} frames")
        if within < 0 or (within and within % 2 != 1):
            raise ValueError(f"a span of {within} frames has no middle: give an odd number")
        self.channels = channels // frames
        encoder = ResNet(self.channels, spatial_dims, {}, dropout=0.0, **size)
        self.encoder, ends = encoder.body, _ends(size.get("blocks", (2, 2, 2, 2)))
        maps = {end: int(size.get("width", 32)) * 2**stage for stage, end in enumerate(ends)}
        self.between = nn.ModuleDict({str(end): AtEachPlace(spatial_dims, maps[end], within) for end in ends if within})
        self.pooled = Pooled(spatial_dims, encoder.features) if where else Mean()
        self.over_time = over_time(encoder.features)
        inside = int(self.over_time.features)  # type: ignore[arg-type]
        self.end(inside, vectors, dropout, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        each, frames = self._frames(images)
        maps = frames.alone(each)
        for n, layer in enumerate(self.encoder.children()):
            maps = layer(maps)
            if str(n) in self.between:
                maps = self.between[str(n)](maps, frames)
        whole = self.dropout(self.over_time(frames.all(self.pooled(maps)), frames))
        return self.answers_of(whole, context)

    def _frames(self, images: Tensor) -> tuple[Tensor, Frames]:
        """(batch * frames, channels, *spatial) without a number missing, and which frames are there."""
        if images.shape[1] % self.channels:
            raise ValueError(f"{images.shape[1]} channels are not those of frames with {self.channels} each")
        spatial, count = images.shape[2:], images.shape[1] // self.channels
        each = images.reshape(-1, self.channels, count, *spatial).transpose(1, 2).reshape(-1, self.channels, *spatial)
        missing = torch.isnan(each)
        there = missing.flatten(1).to(torch.float32).amax(dim=1) < 0.5
        return each.masked_fill(missing, 0.0), Frames(there.reshape(-1, count), self.training)


def _ends(blocks: Sequence[int]) -> list[int]:
    """The last layer of each stage of a ResNet's body, whose layer 0 is the stem."""
    return [sum(blocks[: n + 1]) for n in range(len(blocks))]


def build_convolutions(
    channels: int,
    spatial_dims: int,
    vectors: Mapping[str, int],
    frames: int = 1,
    span: int = 3,
    where: bool = False,
    dropout: float = 0.1,
    context: int = 0,
    **size: Any,
) -> Clip:
    """span: frames that a convolution over time sees, within the encoder and behind it."""
    if span < 1 or span % 2 != 1:
        raise ValueError(f"a span of {span} frames has no middle: give an odd number")
    made = (channels, spatial_dims, vectors, lambda features: Convolutions(features, span))
    return Clip(*made, frames, span, where, dropout, context, **size)


def build_cells(
    channels: int,
    spatial_dims: int,
    vectors: Mapping[str, int],
    cell: str,
    frames: int = 1,
    hidden: int = 128,
    layers: int = 1,
    bidirectional: bool = True,
    within: int = 0,
    where: bool = True,
    dropout: float = 0.1,
    context: int = 0,
    **size: Any,
) -> Clip:
    """cell: "gru" or "lstm", which goes through the frames."""
    made = (channels, spatial_dims, vectors, lambda inside: Recurrent(inside, cell, hidden, layers, bidirectional))
    return Clip(*made, frames, within, where, dropout, context, **size)


def build_transformer(
    channels: int,
    spatial_dims: int,
    vectors: Mapping[str, int],
    frames: int = 1,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    within: int = 0,
    where: bool = True,
    dropout: float = 0.1,
    context: int = 0,
    **size: Any,
) -> Clip:
    """layers: of a transformer whose tokens are frames."""
    made = (channels, spatial_dims, vectors, lambda inside: Transformer(inside, layers, hidden, heads, dropout))
    return Clip(*made, frames, within, where, dropout, context, **size)


def size_for_convolutions(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet for a frame; the number of frames is the plan's."""
    size, because = _of_frame(patch, strides, device)
    return {**size, "span": 3}, f"{because}; convolutions over time see three frames", CLIP_RESNET.paper


def size_for_cells(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet for a frame, and as many cells each way as it has features."""
    size, because = _of_frame(patch, strides, device)
    hidden = _features(size)
    return {**size, "hidden": hidden}, f"{because}; {hidden} cells each way, as many as features", CLIP_GRU.paper


def size_for_transformer(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet for a frame, and tokens of as many features, in fewer layers on a processor."""
    size, because = _of_frame(patch, strides, device)
    hidden, layers = _features(size), 2 if device == "cpu" else 4
    more = {"hidden": hidden, "layers": layers, "heads": max(1, hidden // 32)}
    return {**size, **more}, f"{because}; {layers} layers over tokens of {hidden} features", CLIP_TRANSFORMER.paper


def _of_frame(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[dict[str, Any], str]:
    size, because, _ = size_for_frames(patch, strides, device)
    return {**size, "frames": 1}, because


def _features(size: Mapping[str, Any]) -> int:
    """That a ResNet's last stage has."""
    return int(size["width"]) * 2 ** (len(size["blocks"]) - 1)


# Frames that are missing are NaN.
CLIP_RESNET = Family(
    build_convolutions,
    size_for_convolutions,
    "arXiv:1711.11248",
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
    takes_gaps=True,
)
CLIP_GRU = replace(
    CLIP_RESNET, build=build_cells, size_for=size_for_cells, paper="arXiv:1411.4389", preset={"cell": "gru"}
)
CLIP_LSTM = replace(CLIP_GRU, preset={"cell": "lstm"})
CLIP_TRANSFORMER = replace(
    CLIP_RESNET, build=build_transformer, size_for=size_for_transformer, paper="arXiv:2103.15691"
)
