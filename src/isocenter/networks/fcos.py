"""FCOS of torchvision: each cell within a box says how far its four sides are, and how far in its middle it lies.

Tian et al., ICCV 2019, arXiv:1904.01355. For pictures. Network, matching and losses are torchvision's own; how levels
become one map is `levels`. This file needs torch and torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection import fcos as torchvision_fcos
from torchvision.models.detection.anchor_utils import AnchorGenerator

from isocenter.networks import resnet_pyramid
from isocenter.networks.family import Family, Published
from isocenter.networks.grid_levels import LEAST, Level, in_rows, laid_out, one_map, only_head, truth_of, turned

PAPER = "arXiv:1904.01355"


class Fcos(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 4, *spatial)}; it owns its loss.

    In training each level says, as `head/level`, (batch, classes + 4 + 1, *coarse): logits, how far the sides are in
    cells, and the logit of being in the middle. Afterwards they become one map, at each voxel the surest level's.

    unit: voxels that a length or an offset of 1 is long
    The other settings are those of `resnet_pyramid`.
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
    ) -> None:
        super().__init__()
        self.name, self.classes, self.unit = name, classes, unit
        self.steps = resnet_pyramid.steps_of(layers, coarser)
        cells = AnchorGenerator(tuple((step[0],) for step in self.steps), ((1.0,),) * len(self.steps))
        backbone = resnet_pyramid.resnet_pyramid(channels, model, inside, layers, coarser)
        self.detector = torchvision_fcos.FCOS(
            backbone, classes, anchor_generator=cells, head=torchvision_fcos.FCOSHead(inside, 1, classes)
        )

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        features = self.detector.backbone(images).values()
        raw = [self._said(one) for one in features]
        if self.training:
            return {f"{self.name}/{number}": one for number, one in enumerate(raw)}
        cells = self._cells([one.shape[2:] for one in raw], images)
        levels = [self._level(*one) for one in zip(raw, cells, self.steps, strict=True)]
        return {self.name: one_map(levels, images.shape[2:], self.unit)}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """torchvision's own, of classes, places and middles.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 4) class, low and high edges in voxels; of class -1 none
        """
        raw = [outputs[f"{self.name}/{level}"] for level in range(len(self.steps))]
        logits, sides, middle = torch.cat([in_rows(one, 1) for one in raw], dim=1).split([self.classes, 4, 1], dim=2)
        said = {"cls_logits": logits, "bbox_regression": sides, "bbox_ctrness": middle}
        truth = [{"boxes": turned(edges, 1), "labels": kinds} for edges, kinds in map(truth_of, boxes)]
        cells = self._cells([one.shape[2:] for one in raw], raw[0])
        lost = self.detector.compute_loss(truth, said, [torch.cat(cells)] * len(truth), [len(one) for one in cells])
        return torch.stack(list(lost.values())).sum()

    def _said(self, features: Tensor) -> Tensor:
        kinds, places = self.detector.head.classification_head, self.detector.head.regression_head
        around = places.conv(features)
        sides = places.bbox_reg(around).relu()
        return torch.cat([kinds.cls_logits(kinds.conv(features)), sides, places.bbox_ctrness(around)], dim=1)

    def _cells(self, sizes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor]:
        """(cells, 4) edges of squares as long as a step about the place of each cell, of each level."""
        generator = self.detector.anchor_generator
        generator.set_cell_anchors(torch.float32, like.device)
        cells: list[Tensor] = generator.grid_anchors([list(one) for one in sizes], self.steps)
        return cells

    def _level(self, raw: Tensor, cells: Tensor, steps: Sequence[int]) -> Level:
        logits, sides, middle = raw.float().split([self.classes, 4, 1], dim=1)
        # As torchvision has it: the geometric mean of both probabilities.
        sure = torch.logit((logits.sigmoid() * middle.sigmoid()).sqrt(), eps=LEAST)
        before, behind = turned(sides, 1).chunk(2, dim=1)
        places, lengths = turned(laid_out(cells, raw.shape[2:])[0], 0).chunk(2)
        centres = places + (behind - before) / 2 * lengths
        return Level(sure, centres, (before + behind) * lengths, steps, [0, 0])


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> Fcos:
    """A detector for the one head of boxes."""
    return Fcos(*only_head(dense, spatial_dims), channels, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A residual network that the device goes through quickly; the reason and its source."""
    return *resnet_pyramid.size_for(patch, strides, device), PAPER


def published(channels: int, size: Mapping[str, Any]) -> dict[str, Tensor]:
    """torchvision's weights, trained on COCO: of a network whose finest level is the second stage."""
    return resnet_pyramid.fetched(FCOS_ResNet50_FPN_Weights.COCO_V1, size, 2)


FCOS = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    axes=(2,),
    otherwise="torchvision's FCOS is for pictures: choose retinanet for volumes",
    answers=frozenset({"boxes"}),
    in_voxels=True,
    has_loss=True,
    published=Published(published, resnet_pyramid.PUBLISHED_AT),
    translated=resnet_pyramid.translated,
)
