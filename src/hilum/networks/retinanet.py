"""RetinaNet: boxes from anchors on several grids, trained by the focal loss, in pictures and in volumes.

Lin et al., ICCV 2017, arXiv:1708.02002. torchvision's for pictures, MONAI's for volumes: networks, anchors, matching
and losses are the libraries' own, and `merge_levels` makes one map of the levels. MONAI's supports pictures too, but
published weights have torchvision's names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as OfPictures
from torchvision.models.detection.retinanet import RetinaNetHead

from hilum.networks import pyramid, resnet_pyramid, retinanet_volumes
from hilum.networks.network_family import Sized, Strides
from hilum.networks.pyramid import LevelPredictions
from hilum.networks.resnet_pyramid import LevelDetector

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:1708.02002"
# Names of the parts of MONAI's network in files of weights.
OF_MONAI = ("feature_extractor.", "classification_head.", "regression_head.")
# Scales and shapes of one level's anchors: section 4, "Anchors".
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
SHAPES = (0.5, 1.0, 2.0)
# The finest level's shortest anchor has half the median side of a box, and each level's anchors are twice as long as
# those before; at least 4 voxels, because the libraries round their sides. Chosen by reasoning, never varied.
SHARE = 0.5
SHORTEST = 4.0
# Groups of the normalisation, as in torchvision's second version (arXiv:1803.08494).
GROUPS = 32


class Library(Protocol):
    """The common interface of the two libraries' detectors.

    steps:     voxels from cell to cell of each level, per axis
    first:     index of the voxel of each level's first cell, per axis
    backwards: whether the last axis comes first
    each:      anchors of a cell
    """

    steps: Sequence[Sequence[int]]
    first: Sequence[Sequence[int]]
    backwards: bool
    each: int

    def features(self, detector: Any, images: Tensor) -> Sequence[Tensor]:
        """The maps of each level, (batch, inside, *coarse)."""

    def heads(self, detector: Any) -> tuple[Any, Any]:
        """The heads for classes and for boxes."""

    def loss(
        self, detector: Any, truth: list[dict[str, Tensor]], outputs: tuple[Tensor, Tensor], anchors: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The library's losses, by name; outputs: (batch, all anchors, classes) and (batch, all anchors, 2 * axes)."""


class RetinaNet(LevelDetector):
    """RetinaNet of torchvision or MONAI: logits of the classes of each anchor, then deltas of boxes.

    library: the interface of the detector
    The other settings are those of every `LevelDetector`.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        detector: nn.Module,
        library: Library,
        unit: float,
        inside: int,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        super().__init__(name, classes, unit, detector, library.steps, inside, context, fusion)
        self.library = library

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: object) -> Tensor:
        """The library's loss of classes and boxes.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 2 * axes) class, low and high edges in voxels; class -1 is padding, -2 to be ignored
        """
        raw = self.trained_levels(outputs)
        truth = resnet_pyramid.boxes_by_library(boxes, backwards=self.library.backwards)
        split = [self._split(maps) for maps in raw]
        kinds, deltas = (
            torch.cat([pyramid.flatten_to_rows(level[part], self.library.each) for level in split], dim=1)
            for part in (0, 1)
        )
        anchors = self.anchors_of(raw)
        kinds = resnet_pyramid.silence_ignored(kinds, torch.cat(anchors), boxes, backwards=self.library.backwards)
        losses = self.library.loss(self.detector, truth, (kinds, deltas), anchors)
        return torch.stack(list(losses.values())).sum()

    def levels_of(self, images: Tensor) -> Sequence[Tensor]:
        """The maps of each level."""
        return self.library.features(self.detector, images)

    def outputs_of(self, maps: Tensor) -> Tensor:
        """(batch, anchors * classes + anchors * 2 * axes, *coarse)."""
        kinds, places = self.library.heads(self.detector)
        return torch.cat([kinds.cls_logits(kinds.conv(maps)), places.bbox_reg(places.conv(maps))], dim=1)

    def _split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.library.each * self.classes
        return outputs[:, :logits], outputs[:, logits:]

    def predict_level(self, number: int, outputs: Tensor, anchors: Tensor) -> LevelPredictions:
        """The boxes of the anchor with the largest logit of each cell."""
        logits, deltas = (part.float().unflatten(1, (self.library.each, -1)) for part in self._split(outputs))
        boxes = pyramid.decode_deltas(deltas, pyramid.lay_out_anchors(anchors, outputs.shape[2:]))
        logits, boxes = pyramid.surest_boxes(logits, boxes)
        centres, lengths = (pyramid.reverse_axes(boxes, 1) if self.library.backwards else boxes).chunk(2, dim=1)
        return LevelPredictions(logits, centres, lengths, self.steps[number], self.library.first[number])


class Torchvision:
    """The interface of torchvision's RetinaNet."""

    backwards = True

    def __init__(self, steps: Sequence[Sequence[int]]) -> None:
        self.steps: Sequence[Sequence[int]] = steps
        self.first: Sequence[Sequence[int]] = [[0, 0] for _ in steps]
        self.each = len(SCALES) * len(SHAPES)

    def features(self, detector: Any, images: Tensor) -> Sequence[Tensor]:
        """The levels of the pyramid for (batch, channels, *spatial) images."""
        return list(detector.backbone(images).values())

    def heads(self, detector: Any) -> tuple[Any, Any]:
        """The heads for classes and for boxes."""
        return detector.head.classification_head, detector.head.regression_head

    def loss(
        self, detector: Any, truth: list[dict[str, Tensor]], outputs: tuple[Tensor, Tensor], anchors: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The two losses by name."""
        named = {"cls_logits": outputs[0], "bbox_regression": outputs[1]}
        losses: Mapping[str, Tensor] = detector.compute_loss(truth, named, [torch.cat(list(anchors))] * len(truth))
        return losses


def anchor_sides(unit: float, share: float, number: int) -> list[float]:
    """Voxels of a square anchor at each scale of a level, where the finest is number 0."""
    return [max(SHORTEST, unit * share * 2**number * scale) for scale in SCALES]


def picture_detector(
    name: str,
    classes: int,
    channels: int,
    unit: float,
    model: str = "resnet18",
    inside: int = 64,
    layers: Sequence[int] = (1, 2, 3),
    coarser: int = 0,
    share: float = SHARE,
    **covariates: Any,
) -> RetinaNet:
    """torchvision's RetinaNet; the settings are those of `resnet_pyramid`.

    share:      length of the finest level's shortest anchor, as a share of the unit
    covariates: `context` and `fusion`
    """
    backbone = resnet_pyramid.resnet_pyramid(channels, model, inside, layers, coarser)
    steps = resnet_pyramid.level_steps(layers, coarser)
    anchors = AnchorGenerator(
        tuple(tuple(anchor_sides(unit, share, number)) for number in range(len(steps))), (SHAPES,) * len(steps)
    )
    library = Torchvision(steps)
    head = RetinaNetHead(inside, library.each, classes, norm_layer=partial(nn.GroupNorm, GROUPS))
    head.regression_head._loss_type = "giou"  # as in torchvision's second version
    detector = OfPictures(backbone, classes, anchor_generator=anchors, head=head)
    return RetinaNet(name, classes, detector, library, unit, inside, **covariates)


def volume_detector(
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
    **covariates: Any,
) -> RetinaNet:
    """MONAI's RetinaNet.

    strides: factors by which the stem reduces each axis
    model:   "resnet10", "resnet18" or "resnet34"
    width:   feature maps of its first stage, doubled by each
    inside:  feature maps of every level
    layers:  consecutive stages that are levels, from 1 to 4, each at half the resolution of the one before
    share:   length of the finest level's shortest anchor, as a share of the unit
    covariates: `context` and `fusion`
    """
    # An axis that is reduced less has longer voxels: the same length in mm is fewer of them.
    stem = [math.prod(along) for along in zip(*strides, strict=True)]
    mean = math.prod(stem) ** (1 / len(stem))
    resnet_pyramid.refuse_stage_gaps(layers)
    shapes = [[max(SHORTEST, side * step / mean) for step in stem] for side in anchor_sides(unit, share, 0)]
    detector = retinanet_volumes.monai_detector(classes, channels, shapes, strides, model, width, inside, layers)
    return RetinaNet(name, classes, *detector, unit, inside, **covariates)


# By the number of axes.
MADE: Mapping[int, Callable[..., RetinaNet]] = {2: picture_detector, 3: volume_detector}


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> RetinaNet:
    """torchvision's detector for pictures, MONAI's for volumes."""
    name, classes = pyramid.single_box_head(dense, spatial_dims)
    return MADE[spatial_dims](name, classes, channels, **size)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A residual network for the device, and anchors by the size of boxes."""
    anchors = "anchors from half the median side of a box on"
    if len(patch) == 2:
        size, because = resnet_pyramid.size_for(patch, strides, device)
        return {**size, "share": SHARE}, f"{because}; {anchors}", PAPER
    slow = device == "cpu"
    # Small objects in volumes are a few voxels long: the finest level has half the image's resolution.
    last = max(1, min(len(strides) - 1, 3 if slow else 4))
    size = {
        "strides": [list(one) for one in strides[1:2]] or [[2] * len(patch)],
        "model": "resnet10" if slow else "resnet18",
        "width": 16 if slow else 64,
        "inside": 32 if slow else 128,
        "layers": list(range(1, last + 1)),
        "share": SHARE,
    }
    levels = f"{last} level{'s' * (last > 1)} from half the image's resolution on"
    because = f"patch {tuple(patch)}: {levels}; {size['model']} for the {device}"
    return size, f"{because}; {anchors}", PAPER


def retinanet_tensor_name(name: str) -> str:
    """Our name of a tensor of torchvision's or MONAI's network."""
    return f"detector.network.{name}" if name.startswith(OF_MONAI) else resnet_pyramid.detector_tensor_name(name)


RETINANET = resnet_pyramid.detector_family(
    build,
    size_for,
    PAPER,
    RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
    2,
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    translated=retinanet_tensor_name,
    features="coarsest",
    blocks=("BasicBlock", "ResNetBlock"),
)
