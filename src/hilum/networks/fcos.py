"""FCOS of torchvision: anchor-free boxes by the distances to their four sides, for pictures.

Tian et al., ICCV 2019, arXiv:1904.01355. Network, matching and losses are torchvision's own; `merge_levels` makes one
map of the levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection import fcos as torchvision_fcos
from torchvision.models.detection.anchor_utils import AnchorGenerator

from hilum.networks import pyramid, resnet_pyramid
from hilum.networks.network_family import Sized, Strides
from hilum.networks.pyramid import LEAST, LevelPredictions
from hilum.networks.resnet_pyramid import LevelDetector

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:1904.01355"


class Fcos(LevelDetector):
    """FCOS of torchvision: logits of classes, distances to the sides in cells, and the logit of centre-ness.

    The settings are those of `resnet_pyramid`, and those of every `LevelDetector`.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        channels: int,
        unit: float,
        model: str = "resnet18",
        inside: int = 64,
        layers: Sequence[int] = (1, 2, 3),
        coarser: int = 0,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        steps = resnet_pyramid.level_steps(layers, coarser)
        cells = AnchorGenerator(tuple((step[0],) for step in steps), ((1.0,),) * len(steps))
        backbone = resnet_pyramid.resnet_pyramid(channels, model, inside, layers, coarser)
        head = torchvision_fcos.FCOSHead(inside, 1, classes)
        detector = torchvision_fcos.FCOS(backbone, classes, anchor_generator=cells, head=head)
        super().__init__(name, classes, unit, detector, steps, inside, context, fusion)

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: object) -> Tensor:
        """torchvision's loss of classes, boxes and centre-ness.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 4) class, low and high edges in voxels; class -1 is padding, -2 to be ignored
        """
        raw = self.trained_levels(outputs)
        truth = resnet_pyramid.boxes_by_library(boxes)
        logits, sides, middle = torch.cat([pyramid.flatten_to_rows(maps, 1) for maps in raw], dim=1).split(
            [self.classes, 4, 1], dim=2
        )
        cells = self.anchors_of(raw)
        logits = resnet_pyramid.silence_ignored(logits, torch.cat(cells), boxes)
        named = {"cls_logits": logits, "bbox_regression": sides, "bbox_ctrness": middle}
        losses = self.detector.compute_loss(truth, named, [torch.cat(cells)] * len(truth), list(map(len, cells)))
        return torch.stack(list(losses.values())).sum()

    def levels_of(self, images: Tensor) -> Sequence[Tensor]:
        """The maps of each level."""
        return list(self.detector.backbone(images).values())

    def outputs_of(self, maps: Tensor) -> Tensor:
        """(batch, classes + 4 + 1, *coarse)."""
        kinds = self.detector.head.classification_head
        places = self.detector.head.regression_head
        around = places.conv(maps)
        sides = places.bbox_reg(around).relu()
        return torch.cat([kinds.cls_logits(kinds.conv(maps)), sides, places.bbox_ctrness(around)], dim=1)

    def predict_level(self, number: int, outputs: Tensor, anchors: Tensor) -> LevelPredictions:
        """Boxes about the cells of a level; anchors: (cells, 4) edges of the square of each cell."""
        logits, sides, middle = outputs.float().split([self.classes, 4, 1], dim=1)
        # The geometric mean of both probabilities, as in torchvision.
        sure = torch.logit((logits.sigmoid() * middle.sigmoid()).sqrt(), eps=LEAST)
        before, behind = pyramid.reverse_axes(sides, 1).chunk(2, dim=1)
        places, lengths = pyramid.reverse_axes(pyramid.lay_out_anchors(anchors, outputs.shape[2:])[0], 0).chunk(2)
        centres = places + (behind - before) / 2 * lengths
        return LevelPredictions(sure, centres, (before + behind) * lengths, self.steps[number], [0, 0])


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> Fcos:
    """A detector for the one head of boxes."""
    return Fcos(*pyramid.single_box_head(dense, spatial_dims), channels, **size)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A residual network for the device."""
    return *resnet_pyramid.size_for(patch, strides, device), PAPER


FCOS = resnet_pyramid.detector_family(
    build,
    size_for,
    PAPER,
    FCOS_ResNet50_FPN_Weights.COCO_V1,
    2,
    otherwise="torchvision's FCOS is for pictures: choose retinanet for volumes",
    features="detector.backbone.body",
)
