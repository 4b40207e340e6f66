"""Networks for clips: one encoder for every frame, then a network over time; one output for the whole clip.

The network over time is convolutional (Tran et al., CVPR 2018, arXiv:1711.11248), recurrent (Donahue et al., CVPR 2015,
arXiv:1411.4389) or a transformer (Arnab et al., ICCV 2021, arXiv:2103.15691). Frames are channels, those of the first
channel first. A missing frame is NaN, and influences neither outputs nor gradients nor the running means of batch
normalisation. So gaps need no second input, and batches with gaps are handled like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from hilum.networks import context_fusion, resnet
from hilum.networks.common_layers import BATCH_NORM, CONVOLUTION
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, Strides
from hilum.networks.resnet import ResNet
from hilum.networks.transformer_blocks import DEVIATION, EPSILON, TransformerBlock

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings, NetworkSize

# Of the sinusoidal positions: the longest wave is 2 pi times this many frames (arXiv:1706.03762).
LONGEST = 10_000.0
# Added to the mean of a feature before its centroid is taken: a fainter feature has none.
FAINT = 1e-3
# Gates of a cell; their weights are concatenated as in torch's own layers.
GATES = {"gru": 3, "lstm": 4}


class Frames:
    """The frames of a batch that exist, and the conversion between features of all frames and of the computed ones.

    there: (batch, frames)
    In training only existing frames are computed, so that batch normalisation sees no others. Else all are, and the
    missing ones are 0: the graph has the same shape for every clip, and can be exported.
    """

    def __init__(self, there: Tensor, learning: bool) -> None:
        self.there = there
        self.chosen = _existing_indices(there) if learning and not there.is_meta else None

    def select_computed(self, features: Tensor) -> Tensor:
        """(batch * frames, ...) to (computed frames, ...)."""
        return features if self.chosen is None else features.index_select(0, self.chosen)

    def all(self, features: Tensor) -> Tensor:
        """(computed frames, ...) to (batch, frames, ...), 0 for missing frames."""
        if self.chosen is None:
            present = self.there.flatten().to(features.dtype).reshape(-1, *[1] * (features.ndim - 1))
            spread = features * present
        else:
            spread = features.new_zeros(self.there.numel(), *features.shape[1:])
            spread = spread.index_copy(0, self.chosen, features)
        return spread.reshape(-1, self.there.shape[1], *features.shape[1:])

    def mean(self, series: Tensor) -> Tensor:
        """(batch, frames, features) to (batch, features): the mean over existing frames."""
        weights = self.there.to(series.dtype).unsqueeze(2)
        return (series * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


@torch.compiler.disable  # their number is only known at run time
def _existing_indices(present: Tensor) -> Tensor | None:
    """Indices of existing frames; None where all exist."""
    chosen = present.flatten().nonzero()[:, 0]
    return None if len(chosen) == present.numel() else chosen


class CentroidPool(nn.Module):
    """(frames, maps, *spatial) to (frames, maps): a layer over the mean of each feature and its centroid.

    The centroid is -1 to 1 along each axis. Means without it would not show in which direction something moves.
    Features are positive, because a ReLU precedes.
    """

    def __init__(self, ndim: int, maps: int) -> None:
        super().__init__()
        self.mixed = nn.Linear((1 + ndim) * maps, maps)
        self.norm = nn.LayerNorm(maps, eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """Return (frames, features)."""
        moments = images.flatten(2) @ centroid_weights(images.shape[2:]).to(images)
        mean = moments[:, :, 0]
        first = moments[:, :, 1:]
        where = first / (mean.unsqueeze(2) + FAINT)
        mixed: Tensor = self.norm(self.mixed(torch.cat([mean, where.flatten(1)], dim=1)))
        return mixed


def centroid_weights(spatial: Sequence[int]) -> Tensor:
    """(voxels, 1 + axes): weights of voxels for the mean, and for the first moment along each axis, -1 to 1."""
    axes = [torch.linspace(-1, 1, int(n)) if int(n) > 1 else torch.zeros(1) for n in spatial]
    lattice = [positions.flatten() for positions in torch.meshgrid(*axes, indexing="ij")]
    return torch.stack([torch.ones_like(lattice[0]), *lattice], dim=1) / len(lattice[0])


class MeanPool(nn.Module):
    """(frames, maps, *spatial) to (frames, maps): the mean of each feature."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (frames, maps)."""
        return images.flatten(2).mean(dim=2)


class TemporalConvolution(nn.Module):
    """A convolution over time at each voxel, and a shortcut: the temporal part of (2+1)D, or of 3D + time."""

    def __init__(self, ndim: int, maps: int, span: int) -> None:
        super().__init__()
        self.span = span
        self.norm = BATCH_NORM[ndim](maps)
        self.activation = nn.ReLU(inplace=True)
        # Neighbouring frames are concatenated as channels: a pointwise convolution of them is one over time.
        self.convolution = CONVOLUTION[ndim](span * maps, maps, 1, bias=False)

    def forward(self, images: Tensor, frames: Frames) -> Tensor:
        """Return maps of the same shape, without the missing frames."""
        series = frames.all(self.activation(self.norm(images)))
        reach = self.span // 2
        count = series.shape[1]
        beyond = torch.zeros_like(series[:, :1]).expand(-1, reach, *[-1] * (series.ndim - 2))
        long = torch.cat([beyond, series, beyond], dim=1)
        near = torch.cat([long.narrow(1, start, count) for start in range(self.span)], dim=2)
        return cast("Tensor", images + self.convolution(frames.select_computed(near.flatten(0, 1))))


class Convolutions(nn.Module):
    """(batch, frames, features) to (batch, features): two convolutions over time, a shortcut, then the mean."""

    def __init__(self, features: int, span: int) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = (nn.Conv1d(features, features, span, padding=span // 2) for _ in range(2))
        self.norm = nn.BatchNorm1d(features)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, series: Tensor, frames: Frames) -> Tensor:
        """Return (batch, features)."""
        moved = self._over(self.first, series)
        active = frames.all(self.activation(self.norm(frames.select_computed(moved.flatten(0, 1)))))
        return frames.mean(self.activation(series + self._over(self.second, active)))

    def _over(self, convolution: nn.Module, series: Tensor) -> Tensor:
        moved: Tensor = convolution(series.transpose(1, 2))
        return moved.transpose(1, 2)


class DirectedRecurrence(nn.Module):
    """(batch, frames, inside) to (batch, frames, width): the states of a recurrent layer in one direction of time.

    A missing frame leaves the state unchanged. The weights are those of torch's GRU (Cho et al., arXiv:1406.1078) and
    LSTM (Gers et al., doi:10.1162/089976600300015015), gates in their order. Not torch's own layers, because these
    take gaps only as packed sequences, which ONNX lacks.
    """

    def __init__(self, cell: str, inside: int, width: int, *, backwards: bool) -> None:
        super().__init__()
        self.cell = cell
        self.width = width
        self.backwards = backwards
        self.given = nn.Linear(inside, GATES[cell] * width)
        self.state = nn.Linear(width, GATES[cell] * width)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)

    def forward(self, series: Tensor, there: Tensor) -> Tensor:
        """Return (batch, frames, width); there: (batch, frames), above 0 for a frame that exists."""
        inputs = self.given(series)
        count = series.shape[1]
        state = memory = torch.zeros_like(inputs[:, 0, : self.width])
        states: list[Tensor] = []
        for n in range(count - 1, -1, -1) if self.backwards else range(count):
            present = there[:, n : n + 1]
            new, remembered = self._step(inputs[:, n], state, memory)
            state = torch.where(present, new, state)
            memory = torch.where(present, remembered, memory)
            states.append(state)
        return torch.stack(states[::-1] if self.backwards else states, dim=1)

    def _step(self, inputs: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        gates = inputs.chunk(GATES[self.cell], dim=1)
        gate_values = self.state(state).chunk(GATES[self.cell], dim=1)
        if self.cell == "gru":
            reset, update = (torch.sigmoid(gates[n] + gate_values[n]) for n in range(2))
            new = torch.tanh(gates[2] + reset * gate_values[2])
            return (1 - update) * new + update * state, memory
        enter, forget, leave = (torch.sigmoid(gates[n] + gate_values[n]) for n in (0, 1, 3))
        remembered = forget * memory + enter * torch.tanh(gates[2] + gate_values[2])
        return leave * torch.tanh(remembered), remembered


class TimeDirections(nn.Module):
    """(batch, frames, inside) to (batch, frames, directions * width): forwards, or in both directions."""

    def __init__(self, cell: str, inside: int, width: int, bidirectional: bool) -> None:
        super().__init__()
        directions = (False, True) if bidirectional else (False,)
        self.ways = nn.ModuleList(
            DirectedRecurrence(cell, inside, width, backwards=backwards) for backwards in directions
        )

    def forward(self, series: Tensor, there: Tensor) -> Tensor:
        """Return the states of both directions, joined."""
        return torch.cat([layer(series, there) for layer in self.ways], dim=2)


class Recurrent(nn.Module):
    """(batch, frames, features) to (batch, features): the mean over the frames of the last layer's states.

    Donahue et al. average the outputs of all frames (section 4), which is the same for a linear last layer.
    """

    def __init__(self, inside: int, cell: str, width: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        if cell not in GATES or width < 1 or layers < 1:
            problem = f"a recurrent network of {layers} layers of {width} {cell} cells"
            raise ValueError(f"{problem}: choose gru or lstm, and at least one layer of one cell")
        self.features = 2 * width if bidirectional else width
        self.layers = nn.ModuleList(
            TimeDirections(cell, inside if n == 0 else self.features, width, bidirectional) for n in range(layers)
        )

    def forward(self, series: Tensor, frames: Frames) -> Tensor:
        """Return (batch, features)."""
        for layer in self.layers:
            series = layer(series, frames.there)
        return frames.mean(series)


class Transformer(nn.Module):
    """(batch, frames, features) to (batch, width): the clip's token after attention among the tokens of its frames.

    Positions are sinusoidal, so that clips can have any number of frames; frames are at equal steps, of the clip or in
    seconds. Missing frames are masked.
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
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, 4, dropout, 0.0) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        nn.init.trunc_normal_(self.clip_token, std=DEVIATION)

    def forward(self, series: Tensor, frames: Frames) -> Tensor:
        """Return (batch, width)."""
        tokens = self.projection(series)
        tokens = tokens + sine_positions(tokens.shape[1], self.features).to(tokens)
        tokens = torch.cat([self.clip_token.expand(tokens.shape[0], -1, -1).to(tokens), tokens], dim=1)
        present = torch.cat([torch.ones_like(frames.there[:, :1]), frames.there], dim=1)
        for block in self.blocks:
            tokens = block(tokens, present)
        gathered: Tensor = self.norm(tokens[:, 0])
        return gathered


def sine_positions(count: int, width: int) -> Tensor:
    """(1, count, width): sinusoidal embeddings of the positions 0, 1, ...; Vaswani et al., arXiv:1706.03762."""
    waves = LONGEST ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(count)[:, None] * waves
    return torch.cat([angles.sin(), angles.cos()], dim=1)[None]


class Clip(PooledHead):
    """(batch, channels * frames, *spatial) to {head: (batch, size of the head)}: one output for a clip.

    frames:  of a clip; missing ones are NaN
    within:  frames that a convolution over time after each stage of the encoder sees, at each voxel; 0 for none:
             movement within a frame then shows only in the centroids of features
    where:   pool features to their means and centroids (`CentroidPool`); otherwise to their means
    dropout: before the heads
    context: number of covariates
    fusion:  settings of `ContextFusion`; without them covariates are concatenated to the clip's features
    `size`:  the other settings of the ResNet that encodes each frame
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        over_time: Callable[[int], nn.Module],
        frames: int = 1,
        within: int = 0,
        where: bool = True,
        dropout: float = 0.1,
        context: int = 0,
        fusion: FusionSettings | None = None,
        **size: Any,
    ) -> None:
        nn.Module.__init__(self)
        if frames < 1 or channels % frames:
            raise ValueError(f"{channels} channels are not those of {frames} frames")
        if within < 0 or (within and within % 2 != 1):
            raise ValueError(f"a span of {within} frames has no middle: give an odd number")
        self.channels = channels // frames
        encoder = ResNet(self.channels, spatial_dims, {}, dropout=0.0, **size)
        self.encoder = encoder.body
        # The last layer of each stage of the body, whose layer 0 is the stem.
        ends = list(accumulate(size.get("blocks", (2, 2, 2, 2))))
        maps = {end: int(size.get("width", 32)) * 2**stage for stage, end in enumerate(ends)}
        self.between = nn.ModuleDict(
            {str(end): TemporalConvolution(spatial_dims, maps[end], within) for end in ends if within}
        )
        self.coarsest = nn.Identity()  # where others see its maps
        self.pooled = CentroidPool(spatial_dims, encoder.features) if where else MeanPool()
        self.over_time = over_time(encoder.features)
        inside = cast("int", self.over_time.features)
        self.end(inside, vectors, dropout, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        pictures, frames = self._frames(images)
        maps = frames.select_computed(pictures)
        for n, layer in enumerate(self.encoder.children()):
            maps = layer(maps)
            if str(n) in self.between:
                maps = self.between[str(n)](maps, frames)
        clips = self.dropout(self.over_time(frames.all(self.pooled(self.coarsest(maps))), frames))
        return self.answers_of(clips, context)

    def _frames(self, images: Tensor) -> tuple[Tensor, Frames]:
        """(batch * frames, channels, *spatial) with 0 in place of NaN, and which frames exist."""
        if images.shape[1] % self.channels:
            raise ValueError(f"{images.shape[1]} channels are not those of frames with {self.channels} each")
        spatial = images.shape[2:]
        count = images.shape[1] // self.channels
        pictures = (
            images.reshape(-1, self.channels, count, *spatial).transpose(1, 2).reshape(-1, self.channels, *spatial)
        )
        missing = torch.isnan(pictures)
        present = missing.flatten(1).to(torch.float32).amax(dim=1) < 0.5
        return pictures.masked_fill(missing, 0.0), Frames(present.reshape(-1, count), self.training)


def build_convolutions(
    channels: int, spatial_dims: int, vectors: Mapping[str, int], span: int = 3, where: bool = False, **size: Any
) -> Clip:
    """A network with convolutions over time; span: frames of their kernel, in the encoder and after it."""
    if span < 1 or span % 2 != 1:
        raise ValueError(f"a span of {span} frames has no middle: give an odd number")
    over_time = partial(Convolutions, span=span)
    return Clip(channels, spatial_dims, vectors, over_time, within=span, where=where, **size)


def build_cells(
    channels: int,
    spatial_dims: int,
    vectors: Mapping[str, int],
    cell: str,
    hidden: int = 128,
    layers: int = 1,
    bidirectional: bool = True,
    **size: Any,
) -> Clip:
    """A recurrent network over time; cell: "gru" or "lstm"."""
    over_time = partial(Recurrent, cell=cell, width=hidden, layers=layers, bidirectional=bidirectional)
    return Clip(channels, spatial_dims, vectors, over_time, **size)


def build_transformer(
    channels: int,
    spatial_dims: int,
    vectors: Mapping[str, int],
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
    **size: Any,
) -> Clip:
    """A transformer over time; layers: its blocks."""
    over_time = partial(Transformer, layers=layers, width=hidden, heads=heads, dropout=dropout)
    return Clip(channels, spatial_dims, vectors, over_time, dropout=dropout, **size)


def size_for_convolutions(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a ResNet for a frame; the plan adds the number of frames."""
    size, because = _of_frame(patch, strides, device)
    return {**size, "span": 3}, f"{because}; convolutions over time see three frames", CLIP_RESNET.paper


def size_for_cells(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a ResNet for a frame, and as many cells in each direction as it has features."""
    size, because = _of_frame(patch, strides, device)
    hidden = _features(size)
    cells = f"{hidden} cells a direction, as many as features"
    return {**size, "hidden": hidden}, f"{because}; {cells}", CLIP_GRU.paper


def size_for_transformer(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a ResNet for a frame, and tokens of as many features; fewer layers on a processor."""
    size, because = _of_frame(patch, strides, device)
    hidden = _features(size)
    layers = 2 if device == "cpu" else 4
    more = {"hidden": hidden, "layers": layers, "heads": max(1, hidden // 32)}
    return {**size, **more}, f"{because}; {layers} layers over tokens of {hidden} features", CLIP_TRANSFORMER.paper


def _of_frame(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[NetworkSize, str]:
    size, because, _ = resnet.size_for(patch, strides, device)
    return {**size, "frames": 1}, because


def _features(size: Mapping[str, Any]) -> int:
    """Feature maps of a ResNet's last stage."""
    return cast(int, int(size["width"]) * 2 ** (len(size["blocks"]) - 1))


CLIP_RESNET = context_fusion.pooled_family(
    build_convolutions,
    size_for_convolutions,
    "arXiv:1711.11248",
    takes_gaps=True,
    features="pooled",
    grid_features="coarsest",
    blocks=("ResNetBlock",),
)
CLIP_GRU = CLIP_RESNET.variant("arXiv:1411.4389", {"cell": "gru"}, build=build_cells, size_for=size_for_cells)
CLIP_LSTM = CLIP_GRU.variant("arXiv:1411.4389", {"cell": "lstm"})
CLIP_TRANSFORMER = CLIP_RESNET.variant("arXiv:2103.15691", {}, build=build_transformer, size_for=size_for_transformer)
