"""RetinaNet: boxes beside anchors on several grids, taught by the focal loss; in pictures and in volumes.

Lin et al., ICCV 2017, arXiv:1708.02002. In pictures it is torchvision's, in volumes MONAI's: networks, anchors,
matching and losses are the libraries' own; how levels become one map is `levels`. MONAI's takes two axes too, but
published weights have only torchvision's names. This file needs torch, torchvision and, in volumes, MONAI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as OfPictures
from torchvision.models.detection.retinanet import RetinaNetHead

from isocenter.networks import resnet_pyramid
from isocenter.networks.family import Family, Published
from isocenter.networks.grid_levels import (
    Level,
    decoded,
    in_rows,
    laid_out,
    one_map,
    only_head,
    surest,
    truth_of,
    turned,
)
from isocenter.networks.retinanet_volumes import detector_of

PAPER = "arXiv:1708.02002"
# What the parts of MONAI's network are called, in files of its weights.
OF_MONAI = ("feature_extractor.", "classification_head.", "regression_head.")
# Of one level's anchors: section 4, "Anchors".
SCALES, SHAPES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)), (0.5, 1.0, 2.0)
# The finest level's shortest anchor is half as long as the median side of a box; each level's are twice as long as
# those before. None is shorter than 4 voxels: the libraries round their sides. Chosen by reasoning, and never varied.
SHARE, SHORTEST = 0.5, 4.0
# Groups of maps that are normalised together, as in torchvision's second version (arXiv:1803.08494).
GROUPS = 32


class Library(Protocol):
    """What the two libraries have alike, each in its own way.

    steps:     voxels from cell to cell of each level, per axis
    first:     the voxel of each level's first cell, per axis
    backwards: whether it tells of the last axis first
    each:      anchors of a cell
    """

    steps: Sequence[Sequence[int]]
    first: Sequence[Sequence[int]]
    backwards: bool
    each: int

    def features(self, detector: Any, images: Tensor) -> Sequence[Tensor]:
        """(batch, inside, *coarse) of each level."""

    def heads(self, detector: Any) -> tuple[Any, Any]:
        """Which tells of classes and which of places."""

    def loss(
        self, detector: Any, truth: list[dict[str, Tensor]], said: tuple[Tensor, Tensor], anchors: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The library's losses. said: (batch, all anchors, classes) and (batch, all anchors, 2 * axes)"""


class RetinaNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}; it owns its loss.

    In training each level says, as `head/level`, (batch, anchors * classes + anchors * 2 * axes, *coarse), logits
    before what is said of places. Afterwards they become one map, at each voxel the surest anchor of the surest level.

    detector: of torchvision or MONAI, which holds all weights
    library:  how it is spoken to
    unit:     voxels that a length or an offset of 1 is long
    """

    def __init__(self, name: str, classes: int, detector: nn.Module, library: Library, unit: float) -> None:
        super().__init__()
        self.name, self.classes, self.unit = name, classes, unit
        self.detector: Any = detector
        self.library = library

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        kinds, places = self.library.heads(self.detector)
        raw = [
            (kinds.cls_logits(kinds.conv(one)), places.bbox_reg(places.conv(one)))
            for one in self.library.features(self.detector, images)
        ]
        if self.training:
            return {f"{self.name}/{number}": torch.cat(one, dim=1) for number, one in enumerate(raw)}
        size = images.shape[2:]
        anchors = self._anchors([one.shape[2:] for one, _ in raw], images)
        levels = [self._level(number, *one, anchors[number]) for number, one in enumerate(raw)]
        return {self.name: one_map(levels, size, self.unit)}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """The library's own, of classes and of places.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 2 * axes) class, low and high edges in voxels; of class -1 none
        """
        raw = [outputs[f"{self.name}/{level}"] for level in range(len(self.library.steps))]
        each, parts = self.library.each, [self.library.each * self.classes, -1]
        split = [one.split([parts[0], one.shape[1] - parts[0]], dim=1) for one in raw]
        said = [torch.cat([in_rows(one[part], each) for one in split], dim=1) for part in (0, 1)]
        anchors = self._anchors([one.shape[2:] for one in raw], raw[0])
        lost = self.library.loss(self.detector, self._truth(boxes), (said[0], said[1]), anchors)
        return torch.stack(list(lost.values())).sum()

    def _truth(self, boxes: Tensor) -> list[dict[str, Tensor]]:
        found = [truth_of(one) for one in boxes]
        return [
            {"boxes": turned(edges, 1) if self.library.backwards else edges, "labels": kinds} for edges, kinds in found
        ]

    def _anchors(self, sizes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor]:
        """(cells * anchors, 2 * axes) edges of each level, as the library tells them."""
        generator = self.detector.anchor_generator
        generator.set_cell_anchors(torch.float32, like.device)
        anchors: list[Tensor] = generator.grid_anchors([list(one) for one in sizes], self.library.steps)
        return anchors

    def _level(self, number: int, logits: Tensor, deltas: Tensor, anchors: Tensor) -> Level:
        each, coarse = self.library.each, logits.shape[2:]
        boxes = decoded(deltas.float().unflatten(1, (each, -1)), laid_out(anchors, coarse))
        logits, boxes = surest(logits.float().unflatten(1, (each, -1)), boxes)
        centres, lengths = (turned(boxes, 1) if self.library.backwards else boxes).chunk(2, dim=1)
        return Level(logits, centres, lengths, self.library.steps[number], self.library.first[number])


class Torchvision:
    """How torchvision's RetinaNet is spoken to."""

    backwards = True

    def __init__(self, steps: Sequence[Sequence[int]]) -> None:
        self.steps: Sequence[Sequence[int]] = steps
        self.first: Sequence[Sequence[int]] = [[0, 0] for _ in steps]
        self.each = len(SCALES) * len(SHAPES)

    def features(self, detector: Any, images: Tensor) -> Sequence[Tensor]:
        """The levels of the pyramid for (batch, channels, *spatial) images."""
        return list(detector.backbone(images).values())

    def heads(self, detector: Any) -> tuple[Any, Any]:
        """The two heads, for classes and for boxes."""
        return detector.head.classification_head, detector.head.regression_head

    def loss(
        self, detector: Any, truth: list[dict[str, Tensor]], said: tuple[Tensor, Tensor], anchors: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The two losses by name."""
        outputs = {"cls_logits": said[0], "bbox_regression": said[1]}
        lost: Mapping[str, Tensor] = detector.compute_loss(truth, outputs, [torch.cat(list(anchors))] * len(truth))
        return lost


def sides(unit: float, share: float, number: int) -> list[float]:
    """Voxels of a square anchor at each scale of a level, where the finest is number 0."""
    return [max(SHORTEST, unit * share * 2**number * scale) for scale in SCALES]


def of_pictures(
    name: str,
    classes: int,
    channels: int,
    unit: float,
    model: str = "resnet18",
    inside: int = 64,
    layers: Sequence[int] = (1, 2, 3),
    coarser: int = 0,
    share: float = SHARE,
) -> RetinaNet:
    """torchvision's; the settings are those of `resnet_pyramid`.

    share: of the unit that the shortest anchor of the finest level is long
    """
    backbone = resnet_pyramid.resnet_pyramid(channels, model, inside, layers, coarser)
    steps = resnet_pyramid.steps_of(layers, coarser)
    anchors = AnchorGenerator(
        tuple(tuple(sides(unit, share, number)) for number in range(len(steps))), (SHAPES,) * len(steps)
    )
    library = Torchvision(steps)
    head = RetinaNetHead(inside, library.each, classes, norm_layer=partial(nn.GroupNorm, GROUPS))
    head.regression_head._loss_type = "giou"  # as in torchvision's second version
    return RetinaNet(name, classes, OfPictures(backbone, classes, anchor_generator=anchors, head=head), library, unit)


def of_volumes(
    name: str,
    classes: int,
    channels: int,
    unit: float,
    strides: Sequence[Sequence[int]] = ((2, 2, 2),),
    model: str = "resnet10",
    width: int = 16,
    inside: int = 32,
    layers: Sequence[int] = (1, 2),
    share: float = SHARE,
) -> RetinaNet:
    """MONAI's.

    strides: by which factors the stem reduces each axis
    model:   "resnet10", "resnet18" or "resnet34"
    width:   feature maps of its first stage, doubled by each
    inside:  feature maps of every level
    layers:  stages that are levels, 1 to 4 one after the other, each half as fine as the one before
    share:   of the unit that the shortest anchor of the finest level is long
    """
    # An axis that is reduced less has longer voxels: what is as long in mm is shorter on it.
    stem = [math.prod(one) for one in zip(*strides, strict=True)]
    mean = math.prod(stem) ** (1 / len(stem))
    resnet_pyramid.refuse_apart(layers)
    shapes = [[max(SHORTEST, side * step / mean) for step in stem] for side in sides(unit, share, 0)]
    made = detector_of(classes, channels, shapes, strides, model, width, inside, layers)
    return RetinaNet(name, classes, *made, unit)


# By the number of axes.
MADE: Mapping[int, Callable[..., RetinaNet]] = {2: of_pictures, 3: of_volumes}


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> RetinaNet:
    """torchvision's detector for pictures, MONAI's for volumes."""
    name, classes = only_head(dense, spatial_dims)
    return MADE[spatial_dims](name, classes, channels, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A residual network that the device goes through quickly; the reason and its source."""
    anchors = "anchors from half the median side of a box on"
    if len(patch) == 2:
        size, because = resnet_pyramid.size_for(patch, strides, device)
        return {**size, "share": SHARE}, f"{because}; {anchors}", PAPER
    slow = device == "cpu"
    # Small things of volumes are a few voxels long: the finest level is half as fine as the image.
    last = max(1, min(len(strides) - 1, 3 if slow else 4))
    size = {
        "strides": [list(one) for one in strides[1:2]] or [[2] * len(patch)],
        "model": "resnet10" if slow else "resnet18",
        "width": 16 if slow else 64,
        "inside": 32 if slow else 128,
        "layers": list(range(1, last + 1)),
        "share": SHARE,
    }
    levels = f"{last} level{'s' * (last > 1)} from half as fine as the image on"
    because = f"patch {tuple(patch)}: {levels}; {size['model']} for the {device}"
    return size, f"{because}; {anchors}", PAPER


def published(channels: int, size: Mapping[str, Any]) -> dict[str, Tensor]:
    """torchvision's weights, trained on COCO: of a network whose finest level is the second stage."""
    return resnet_pyramid.fetched(RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1, size, 2)


def translated(name: str) -> str:
    """A tensor of torchvision's or MONAI's network by our name."""
    return f"detector.network.{name}" if name.startswith(OF_MONAI) else resnet_pyramid.translated(name)


RETINANET = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    answers=frozenset({"boxes"}),
    in_voxels=True,
    has_loss=True,
    published=Published(published, resnet_pyramid.PUBLISHED_AT),
    translated=translated,
)
