"""FCOS of torchvision: anchor-free boxes by the distances to their four sides, for pictures.

Tian et al., ICCV 2019, arXiv:1904.01355. Network, matching and losses are torchvision's own; `merge_levels` makes one
map of the levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection import fcos as torchvision_fcos
from torchvision.models.detection.anchor_utils import AnchorGenerator

from isocenter.networks import context_fusion, pyramid, resnet_pyramid
from isocenter.networks.network_family import Family, PublishedWeights, Sized, Strides
from isocenter.networks.pyramid import LEAST, LevelPredictions

if TYPE_CHECKING:
    from isocenter.networks.network_family import FusionSettings, NetworkSize
    from isocenter.values import Dense

PAPER = "arXiv:1904.01355"


class Fcos(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 4, *spatial)}, with its own loss.

    In training each level has the output `head/level`, (batch, classes + 4 + 1, *coarse): logits of classes, distances
    to the sides in cells, and the logit of centre-ness. In prediction they become one map, at each voxel the level with
    the largest logit.

    unit:    voxels of a length or an offset of 1
    context: number of covariates, which scale and shift the maps of each level; fusion: settings of `ContextFusion`
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
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        super().__init__()
        self.name, self.classes, self.unit = name, classes, unit
        self.steps = resnet_pyramid.level_steps(layers, coarser)
        cells = AnchorGenerator(tuple((step[0],) for step in self.steps), ((1.0,),) * len(self.steps))
        backbone = resnet_pyramid.resnet_pyramid(channels, model, inside, layers, coarser)
        self.detector = torchvision_fcos.FCOS(
            backbone, classes, anchor_generator=cells, head=torchvision_fcos.FCOSHead(inside, 1, classes)
        )
        self.telling = context_fusion.pyramid_fusion(len(self.steps), inside, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        features = self.telling.modulate_levels(self.detector.backbone(images).values(), self.telling(context))
        raw = [self._outputs(maps) for maps in features]
        if self.training:
            levels = {f"{self.name}/{number}": maps for number, maps in enumerate(raw)}
            return {**levels, **self.telling.penalties(images)}
        cells = self._cells([maps.shape[2:] for maps in raw], images)
        predicted = [self._level(maps, cell, step) for maps, cell, step in zip(raw, cells, self.steps, strict=True)]
        return {self.name: pyramid.merge_levels(predicted, images.shape[2:], self.unit)}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: Mapping[str, Dense]) -> Tensor:
        """torchvision's loss of classes, boxes and centre-ness.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 4) class, low and high edges in voxels; class -1 is padding
        """
        raw = [outputs[f"{self.name}/{level}"] for level in range(len(self.steps))]
        logits, sides, middle = torch.cat([pyramid.flatten_to_rows(maps, 1) for maps in raw], dim=1).split(
            [self.classes, 4, 1], dim=2
        )
        named = {"cls_logits": logits, "bbox_regression": sides, "bbox_ctrness": middle}
        truth = [
            {"boxes": pyramid.reverse_axes(edges, 1), "labels": kinds}
            for edges, kinds in map(pyramid.unpadded_boxes, boxes)
        ]
        cells = self._cells([maps.shape[2:] for maps in raw], raw[0])
        losses = self.detector.compute_loss(truth, named, [torch.cat(cells)] * len(truth), list(map(len, cells)))
        return torch.stack(list(losses.values())).sum()

    def _outputs(self, features: Tensor) -> Tensor:
        kinds, places = self.detector.head.classification_head, self.detector.head.regression_head
        around = places.conv(features)
        sides = places.bbox_reg(around).relu()
        return torch.cat([kinds.cls_logits(kinds.conv(features)), sides, places.bbox_ctrness(around)], dim=1)

    def _cells(self, sizes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor]:
        """(cells, 4) edges of the square of each cell, of each level."""
        cells: list[Tensor] = resnet_pyramid.level_anchors(self.detector.anchor_generator, sizes, self.steps, like)
        return cells

    def _level(self, raw: Tensor, cells: Tensor, steps: Sequence[int]) -> LevelPredictions:
        logits, sides, middle = raw.float().split([self.classes, 4, 1], dim=1)
        # The geometric mean of both probabilities, as in torchvision.
        sure = torch.logit((logits.sigmoid() * middle.sigmoid()).sqrt(), eps=LEAST)
        before, behind = pyramid.reverse_axes(sides, 1).chunk(2, dim=1)
        places, lengths = pyramid.reverse_axes(pyramid.lay_out_anchors(cells, raw.shape[2:])[0], 0).chunk(2)
        centres = places + (behind - before) / 2 * lengths
        return LevelPredictions(sure, centres, (before + behind) * lengths, steps, [0, 0])


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> Fcos:
    """A detector for the one head of boxes."""
    return Fcos(*pyramid.single_box_head(dense, spatial_dims), channels, **size)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A residual network for the device."""
    return *resnet_pyramid.size_for(patch, strides, device), PAPER


def published(channels: int, size: NetworkSize) -> dict[str, Tensor]:
    """torchvision's weights from COCO, downloaded, of a network whose finest level is the second stage."""
    return resnet_pyramid.fetch_weights(FCOS_ResNet50_FPN_Weights.COCO_V1, size, 2)


FCOS = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    axes=(2,),
    otherwise="torchvision's FCOS is for pictures: choose retinanet for volumes",
    answers=frozenset({"boxes"}),
    takes_context=("film",),
    in_voxels=True,
    has_loss=True,
    published=PublishedWeights(published, resnet_pyramid.PUBLISHED_AT),
    translated=resnet_pyramid.detector_tensor_name,
    features="detector.backbone.body",
    blocks=("BasicBlock",),
)
