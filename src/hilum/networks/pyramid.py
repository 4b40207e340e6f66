"""A feature pyramid with decoupled heads, for boxes in two and three dimensions, on one grid coarser than the image.

Residual stages (He et al., CVPR 2016, arXiv:1512.03385) with a top-down pathway (Lin et al., CVPR 2017,
arXiv:1612.03144), and separate branches for the class and for the extent of a box (Tian et al., ICCV 2019,
arXiv:1904.01355; Ge et al., arXiv:2107.08430). The task has the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import BATCH_NORM, CONVOLUTION, LINEAR
from hilum.networks.network_family import Family, Sized, Strides

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:1612.03144"
# What decoding adds to the logits of classes: an untrained network then calls one voxel in ten.
ADDED = -math.log(9.0)


class PyramidBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        self.first = common_layers.normed_convolution(ndim, width, width, 3)
        self.second = CONVOLUTION[ndim](width, width, 3, 1, 1, bias=False)
        self.norm = BATCH_NORM[ndim](width)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return cast("Tensor", self.activation(self.norm(self.second(self.first(images))) + images))


class PyramidFeatures(nn.Module):
    """(batch, channels, *spatial) to (batch, inside, *coarse) of each stage from `finest` on, finest first.

    strides: one entry a stage and axis; the first has stride 1. The input's size is a multiple of their product
    finest:  the first stage that is a level
    width:   feature maps of the stage after the first; doubled by each up to `widest`
    blocks:  residual blocks of each stage from the third on
    inside:  feature maps of the pyramid
    levels:  number of stages from `finest` on; all if left out
    """

    def __init__(
        self,
        channels: int,
        ndim: int,
        strides: Sequence[Sequence[int]],
        finest: int = 2,
        width: int = 16,
        widest: int = 128,
        blocks: int = 1,
        inside: int = 48,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        strides = strides if levels is None else strides[: finest + levels]
        if max(strides[0]) > 1 or any(len(stride) != ndim for stride in strides):
            raise ValueError(f"strides need {ndim} numbers a stage, and 1 in the first, not {strides}")
        if not 1 <= finest < len(strides):
            raise ValueError(f"{len(strides)} stages have no finest level {finest} after the first")
        self.finest = finest
        self.inside = inside
        self.steps = [
            [math.prod(stride[axis] for stride in strides[: stage + 1]) for axis in range(ndim)]
            for stage in range(finest, len(strides))
        ]
        widths = [min(width * 2**stage, widest) for stage in range(len(strides) - 1)]
        self.stages = nn.ModuleList()
        for stage, (outside, stride) in enumerate(zip(widths, strides[1:], strict=True), start=1):
            deep = [PyramidBlock(ndim, outside) for _ in range(blocks if stage > 1 else 0)]
            before = channels if stage == 1 else widths[stage - 2]
            self.stages.append(nn.Sequential(common_layers.normed_convolution(ndim, before, outside, 3, stride), *deep))
        self.across = nn.ModuleList(CONVOLUTION[ndim](maps, inside, 1) for maps in widths[finest - 1 :])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return (batch, inside, *coarse) of each level, finest first."""
        *finer, coarsest = common_layers.stage_maps(self.stages, images)[self.finest - 1 :]
        levels = [self.across[-1](coarsest)]
        for layer, maps in zip(reversed(self.across[:-1]), reversed(finer), strict=True):
            levels.append(layer(maps) + interpolate(levels[-1], size=maps.shape[2:], mode="nearest"))
        return levels[::-1]


class Pyramid(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}: centres, lengths and offsets.

    In training outputs are on the grid of the finest level, with lengths and offsets in voxels of that grid. In
    prediction they are interpolated linearly to the image's grid, where offsets stay true.

    dense:   heads by name with their number of channels, of which the last are lengths and offsets, one an axis each
    head:    convolutions of each branch of the head
    context: number of covariates, which scale and shift the maps of the finest level
    fusion:  settings of `ContextFusion`
    size:    the other settings, those of `PyramidFeatures`
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        head: int = 1,
        context: int = 0,
        fusion: FusionSettings | None = None,
        **size: Any,
    ) -> None:
        super().__init__()
        ndim = spatial_dims
        classes = classes_by_head(dense, spatial_dims)
        self.body = PyramidFeatures(channels, ndim, **size)
        inside = self.body.inside
        self.smooth = common_layers.normed_convolution(ndim, inside, inside, 3)
        self.kinds = nn.Sequential(*(common_layers.normed_convolution(ndim, inside, inside, 3) for _ in range(head)))
        self.places = nn.Sequential(*(common_layers.normed_convolution(ndim, inside, inside, 3) for _ in range(head)))
        last = CONVOLUTION[ndim]
        self.centres = nn.ModuleDict({name: last(inside, count, 1) for name, count in classes.items()})
        self.lengths = nn.ModuleDict({name: last(inside, 2 * ndim, 1) for name in classes})
        self.linear = LINEAR[ndim]
        self.telling = context_fusion.pyramid_fusion(1, inside, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        features = self.telling.modulate(self.smooth(self.body(images)[0]), self.telling(context))
        kinds = self.kinds(features)
        places = self.places(features)
        outputs = {name: (layer(kinds), self.lengths[name](places)) for name, layer in self.centres.items()}
        if self.training:
            in_steps = {name: (logits, self._in_steps(extent)) for name, (logits, extent) in outputs.items()}
            joined = {name: torch.cat(parts, dim=1) for name, parts in in_steps.items()}
            return {**joined, **self.telling.penalties(images)}
        size = images.shape[2:]
        return {
            name: interpolate(torch.cat(parts, dim=1).float(), size=size, mode=self.linear, align_corners=False)
            for name, parts in outputs.items()
        }

    def _in_steps(self, places: Tensor) -> Tensor:
        """Lengths and offsets in voxels of the coarse grid, the unit of the boxes in the loss."""
        return places / broadcast_to_channels(places.new_tensor(self.body.steps[0] * 2), places)


def broadcast_to_channels(numbers: Tensor, output: Tensor) -> Tensor:
    """(n,) numbers, one a channel, in a shape that broadcasts with an output."""
    return numbers.reshape(1, -1, *[1] * (output.ndim - 2))


def classes_by_head(dense: Mapping[str, int], axes: int) -> dict[str, int]:
    """{head: classes} of heads with lengths and offsets."""
    if axes == 1:
        raise ValueError("boxes lie in two or three dimensions")
    if any(count <= 2 * axes for count in dense.values()):
        raise ValueError(f"a head of boxes has {2 * axes} channels of lengths and offsets, and at least one class")
    return {name: count - 2 * axes for name, count in dense.items()}


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A width for the device, and outputs at a quarter of the image's resolution."""
    slow = device == "cpu"
    size = {
        "width": 24 if slow else 48,
        "widest": 160 if slow else 320,
        "inside": 64 if slow else 128,
        "finest": min(2, len(strides) - 1),
        "strides": [list(one) for one in strides],
    }
    because = f"patch {tuple(patch)}: outputs at a quarter of the resolution, axes halved while 4 voxels are left"
    return size, f"{because}; width for the {device}", PAPER


PYRAMID = Family(
    Pyramid,
    size_for,
    PAPER,
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    answers=frozenset({"boxes"}),
    takes_context=("film",),
    features="body",
    blocks=("PyramidBlock",),
)


# Detections on the grids of several levels as one map on the image's grid, in two and three dimensions.
#
# Detectors of torchvision and MONAI predict boxes in cells of coarse grids, one grid for each range of sizes. The map
# has at each voxel what every detection task decodes: logits that it is a box's centre, the box's lengths, and the
# offset of its centre.

# Largest logarithm of a box's growth, as in torchvision and MONAI.
LONGEST = 4.135  # log(1000 / 16)
# Smallest probability, so that its logit is finite.
LEAST = 1e-6


class LevelPredictions(NamedTuple):
    """Predictions in the cells of one grid.

    logits:  (batch, classes, *coarse) of a box of each class
    centres: (batch, axes, *coarse) of that box, in voxels from the image's edge
    lengths: (batch, axes, *coarse) in voxels
    steps:   voxels from cell to cell, per axis
    first:   index of the first cell's voxel, per axis
    """

    logits: Tensor
    centres: Tensor
    lengths: Tensor
    steps: Sequence[int]
    first: Sequence[int]


def single_box_head(dense: Mapping[str, int], axes: int) -> tuple[str, int]:
    """The name of the one head of boxes, and its classes; ValueError where several are asked for."""
    classes = classes_by_head(dense, axes)
    if len(classes) != 1:
        raise ValueError(f"it has one head of boxes, not {len(classes)}")
    return next(iter(classes.items()))


def merge_levels(levels: Sequence[LevelPredictions], size: Sequence[int], unit: float) -> Tensor:
    """(batch, classes + 2 * axes, *size): at each voxel the predictions of the level with the largest logit there.

    Between the voxels of its cells a level is interpolated linearly, so that the maxima of the map are cells with
    their own boxes. Centres are interpolated as positions in the image and become offsets last, which keeps them true.
    unit: voxels of a length or an offset of 1
    """
    classes = levels[0].logits.shape[1]
    axes = len(size)
    best = most_confident_map((_on_grid(level, size) for level in levels), classes)
    logits, centres, lengths = best.split([classes, axes, axes], dim=1)
    return torch.cat([logits - ADDED, lengths / unit, (centres - voxel_centres(size, best)) / unit], dim=1)


def most_confident_map(maps: Iterator[Tensor], classes: int) -> Tensor:
    """(batch, channels, *size): at each voxel the map with the largest logit, which are its first channels.

    Only two maps are in memory at a time.
    """
    best = next(maps)
    for here in maps:
        highest, other = (logits[:, :classes].amax(dim=1, keepdim=True) for logits in (here, best))
        best = torch.where(highest > other, here, best)
    return best


def voxel_centres(size: Sequence[int], like: Tensor) -> Tensor:
    """(axes, *size): the centre of each voxel."""
    along = [torch.arange(n, device=like.device, dtype=like.dtype) + 0.5 for n in size]
    return torch.stack(torch.meshgrid(*along, indexing="ij"))


def surest_boxes(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The box with the largest logit of any class, of the several boxes of each cell.

    logits: (batch, boxes, classes, *coarse); boxes: (batch, boxes, 2 * axes, *coarse); both return without that axis
    """
    which = logits.amax(dim=2, keepdim=True).argmax(dim=1, keepdim=True)
    taken = (given.gather(1, which.expand(-1, -1, *given.shape[2:])).squeeze(1) for given in (logits, boxes))
    return next(taken), next(taken)


def decode_deltas(deltas: Tensor, anchors: Tensor) -> Tensor:
    """(batch, boxes, 2 * axes, *coarse) centres and lengths, from anchors and their regressed deltas.

    deltas:  (batch, boxes, 2 * axes, *coarse) shifts in lengths of the anchor, and logarithms of the growth
    anchors: (boxes, 2 * axes, *coarse) centres and lengths
    Ren et al., arXiv:1506.01497, section 3.1.2
    """
    shifts, growth = deltas.chunk(2, dim=2)
    centres, lengths = anchors.chunk(2, dim=1)
    return torch.cat([centres + shifts * lengths, growth.clamp(max=LONGEST).exp() * lengths], dim=2)


def lay_out_anchors(anchors: Tensor, coarse: Sequence[int]) -> Tensor:
    """(boxes, 2 * axes, *coarse) centres and lengths of (cells * boxes, 2 * axes) edges, in order of the cells."""
    axes = len(coarse)  # counted from the first: ONNX has no negative axes here
    apart = anchors.reshape(*coarse, -1, 2 * axes).permute(axes, axes + 1, *range(axes))
    low, high = apart.chunk(2, dim=1)
    return torch.cat([(low + high) / 2, high - low], dim=1)


def flatten_to_rows(raw: Tensor, boxes: int) -> Tensor:
    """(batch, boxes * channels, *coarse) to (batch, cells * boxes, channels), the layout of torchvision and MONAI."""
    apart = raw.unflatten(1, (boxes, -1))
    return cast("Tensor", apart.movedim((1, 2), (-2, -1)).flatten(1, -2))


def reverse_axes(pairs: Tensor, dim: int) -> Tensor:
    """Two numbers an axis in the reverse order of axes: torchvision has x before y."""
    return torch.cat([half.flip(dim) for half in pairs.chunk(2, dim=dim)], dim=dim)


def unpadded_boxes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 2 * axes) edges and (n,) classes of one image's boxes, without padding and without empty boxes.

    boxes: (n, 1 + 2 * axes) class, low and high edges in voxels; class -1 is padding, -2 a region to be ignored
    """
    low, high = boxes[:, 1:].chunk(2, dim=1)
    real = (boxes[:, 0] >= 0) & (high > low).all(dim=1)
    return boxes[real, 1:], boxes[real, 0].long()


def in_ignored_regions(places: Tensor, boxes: Tensor) -> Tensor:
    """(n,) whether each place lies in a region to be ignored and in no box.

    places: (n, axes) in voxels
    boxes:  (m, 1 + 2 * axes) of one image: class, low and high edges in voxels; class -2 is a region to be ignored
    """
    low, high = boxes[:, 1:].chunk(2, dim=1)
    holds = ((places[:, None] >= low) & (places[:, None] < high)).all(dim=2)
    unknown = holds & (boxes[:, 0] == -2)
    known = holds & (boxes[:, 0] >= 0)
    return unknown.any(dim=1) & ~known.any(dim=1)


def _on_grid(level: LevelPredictions, size: Sequence[int]) -> Tensor:
    outputs = torch.cat([level.logits, level.centres, level.lengths], dim=1).float()
    reached = [(n - 1) * step + 1 for n, step in zip(outputs.shape[2:], level.steps, strict=True)]
    outputs = interpolate(outputs, size=reached, mode=LINEAR[len(size)], align_corners=True)
    # The first cell continues before itself, the last one after.
    beyond = [(start, n - have - start) for n, have, start in zip(size, reached, level.first, strict=True)]
    return pad(outputs, [side for pair in reversed(beyond) for side in pair], mode="replicate")
