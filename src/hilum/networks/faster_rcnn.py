"""Faster R-CNN of torchvision for pictures: region proposals, then classification and regression of each.

Ren et al., NeurIPS 2015, arXiv:1506.01497, on a feature pyramid (arXiv:1612.03144). Both stages, their sampling and
their losses are torchvision's own; predicted boxes are rendered into the map that every detection task decodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign

from hilum.networks import context_fusion, pyramid, resnet_pyramid
from hilum.networks.network_family import Sized, Strides
from hilum.networks.pyramid import ADDED, LEAST

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:1506.01497"
# Shapes of the first stage's anchors: section 3.3, one size a level as in arXiv:1612.03144.
SHAPES = (0.5, 1.0, 2.0)
# The finest level's anchor has half the median side of a box, and each level's is twice as long as the one before; at
# least 4 voxels, because torchvision rounds its sides. Chosen by reasoning, never varied.
SHARE = 0.5
SHORTEST = 4.0
# Cells an axis of a proposal's pooled features (RoIAlign).
SEEN = 7
# Boxes of a lower score are not rendered, because the task decodes none; and the most boxes of an image.
LEAST_SCORE = 0.02
MOST_BOXES = 300
# The logit without a box: a little below the least score, so that a window without a box where another window has one
# lowers the score, and does not remove the box.
NOTHING = math.log(0.01 / 0.99)
# A box is rendered as a hill over this share of its half sides, and at least this many voxels: overlapping windows say
# slightly different boxes, and the mean of their hills has one maximum. Half the overlap of two boxes that both stay.
CORE = 0.3
NARROWEST = 1.5


class FasterRcnn(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 4, *spatial)}, with its own loss.

    In training it also gets the true boxes, for the sampling of proposals, and its output is the losses of both stages,
    `head/losses`, (batch, 4). In prediction each box is rendered into the map, as a hill about its centre.

    unit:    voxels of a length or an offset of 1
    share:   length of the finest level's anchor, as a share of the unit
    deep:    features of a proposal in the second stage
    samples: proposals of an image for the loss of the second stage
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
        share: float = SHARE,
        deep: int = 256,
        samples: int = 128,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.classes = classes
        self.unit = unit
        self.samples = samples
        sides = [max(SHORTEST, unit * share * 2**number) for number in range(len(layers) + 1)]
        anchors = AnchorGenerator(tuple((side,) for side in sides), (SHAPES,) * len(sides))
        levels = [str(number) for number in range(len(layers))]
        self.detector = FasterRCNN(
            resnet_pyramid.resnet_pyramid(channels, model, inside, layers, 0, pooled=True),
            rpn_anchor_generator=anchors,
            box_roi_pool=MultiScaleRoIAlign(featmap_names=levels, output_size=SEEN, sampling_ratio=2),
            box_head=TwoMLPHead(inside * SEEN**2, deep),
            box_predictor=FastRCNNPredictor(deep, 1 + classes),
            box_score_thresh=LEAST_SCORE,
            box_detections_per_img=MOST_BOXES,
            box_batch_size_per_image=samples,
        )
        self.telling = context_fusion.pyramid_fusion(len(sides), inside, context, fusion)

    def forward(
        self, images: Tensor, context: Tensor | None = None, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the map of boxes, in training the losses; context: (batch, covariates); targets: as for `loss`."""
        levels: dict[str, Tensor] = self.detector.backbone(images)
        modulated = self.telling.modulate_levels(levels.values(), self.telling(context))
        features = dict(zip(levels, modulated, strict=True))
        if images.is_meta:
            return self._of_same_work(images, features)
        with torch.autocast(images.device.type, enabled=False):
            features = {name: maps.float() for name, maps in features.items()}
            if self.training:
                losses = {f"{self.name}/losses": self._losses(images, features, targets)}
                return {**losses, **self.telling.penalties(images)}
            return {self.name: self._render_boxes(images, features)}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: object) -> Tensor:
        """torchvision's losses of both stages, averaged over images; `boxes` went into `forward`."""
        return outputs[f"{self.name}/losses"].mean(dim=0).sum()

    @torch.compiler.disable
    def _losses(self, images: Tensor, features: Mapping[str, Tensor], targets: Tensor | None) -> Tensor:
        """(batch, 4) of each image by itself, so that they do not depend on the other images of a process.

        targets: (batch, n, 1 + 4) class, low and high edges in voxels; class -1 is padding, -2 to be ignored
        """
        if targets is None:
            raise ValueError("training needs the true boxes")
        size = (int(images.shape[2]), int(images.shape[3]))
        losses = []
        for number in range(len(targets)):
            levels = {name: maps[number : number + 1] for name, maps in features.items()}
            boxes = targets[number].float()
            # torchvision's first class is the background.
            truth = resnet_pyramid.boxes_by_library(boxes[None], first=1)
            image = ImageList(images[number : number + 1], [size])
            proposals, first = self._proposals(image, levels, truth, boxes)
            second = [loss.new_zeros(()) for loss in first]
            if len(proposals[0]) or len(truth[0]["boxes"]):
                second = [*self.detector.roi_heads(levels, proposals, [size], truth)[1].values()]
            losses.append(torch.stack([*first, *second]))
        return torch.stack(losses)

    def _proposals(
        self, image: ImageList, levels: dict[str, Tensor], truth: list[dict[str, Tensor]], boxes: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The proposals of an image and the losses of the first stage, without what lies in regions to be ignored.

        As `RegionProposalNetwork.forward`, which would take such anchors as background.
        """
        rpn = self.detector.rpn
        features = list(levels.values())
        logits, moves = rpn.head(features)
        anchors = rpn.anchor_generator(image, features)
        counts = [maps[0].numel() for maps in logits]
        logits, moves = concat_box_prediction_layers(logits, moves)
        proposed = rpn.box_coder.decode(moves.detach(), anchors).reshape(1, -1, 4)
        [chosen], _ = rpn.filter_proposals(proposed, logits, image.image_sizes, counts)
        [labels], matched = rpn.assign_targets_to_anchors(anchors, truth)
        # -1 is torchvision's mark of an anchor that is no sample.
        labels = torch.where((labels == 0) & _is_ignored(anchors[0], boxes), -1.0, labels)
        losses = [logits.sum() * 0, moves.sum() * 0]  # where all of an image is to be ignored
        if bool((labels >= 0).any()):
            losses = [*rpn.compute_loss(logits, moves, [labels], rpn.box_coder.encode(matched, anchors))]
        return [chosen[~_is_ignored(chosen, boxes)]], losses

    @torch.compiler.disable
    def _render_boxes(self, images: Tensor, features: dict[str, Tensor]) -> Tensor:
        """(batch, classes + 4, *spatial) of the predicted boxes."""
        size = (int(images.shape[2]), int(images.shape[3]))
        sizes = [size] * len(images)
        proposals, _ = self.detector.rpn(ImageList(images, sizes), features)
        predicted, _ = self.detector.roi_heads(features, proposals, sizes)
        maps = [
            render_boxes(
                pyramid.reverse_axes(own["boxes"], 1), own["labels"] - 1, own["scores"], self.classes, size, self.unit
            )
            for own in predicted
        ]
        return torch.stack(maps).to(images.device)

    def _of_same_work(self, images: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs on the meta device, where memory is planned, with the work of the largest number of proposals."""
        proposed = self.detector.rpn.head(list(features.values()))
        most = self.samples if self.training else self.detector.rpn._post_nms_top_n["testing"]
        pooled = images.new_empty(len(images) * most, features["0"].shape[1], SEEN, SEEN)
        looked = self.detector.roi_heads.box_predictor(self.detector.roi_heads.box_head(pooled))
        if self.training:
            every = (*proposed[0], *proposed[1], *looked)
            return {f"{self.name}/losses": torch.stack([part.sum() for part in every]).sum().expand(len(images), 4)}
        return {self.name: images.new_empty(len(images), self.classes + 4, *images.shape[2:])}


def _is_ignored(edges: Tensor, boxes: Tensor) -> Tensor:
    """(n,) whether each of torchvision's boxes, (n, 4), has its centre in a region to be ignored, and in no box."""
    low, high = pyramid.reverse_axes(edges, 1).chunk(2, dim=1)
    return pyramid.in_ignored_regions((low + high) / 2, boxes)


def render_boxes(
    boxes: Tensor, kinds: Tensor, scores: Tensor, classes: int, size: Sequence[int], unit: float
) -> Tensor:
    """(classes + 2 * axes, *size) logits, lengths and offsets from which the task decodes these boxes again.

    boxes: (n, 2 * axes) low and high edges in voxels; kinds: (n,) classes; scores: (n,)
    The voxel of a box's centre has its logit, with a hill about it over the core of the box; each voxel of the hill has
    the box's lengths and the offset of its centre. Of two boxes in a voxel the one of higher score counts.
    """
    boxes = boxes.cpu()
    kinds = kinds.cpu()
    sure = torch.logit(scores.cpu(), eps=LEAST)
    axes = len(size)
    centres = (boxes[:, :axes] + boxes[:, axes:]) / 2
    lengths = boxes[:, axes:] - boxes[:, :axes]
    middles = pyramid.voxel_centres(size, boxes)
    heat = boxes.new_full((classes, *size), NOTHING)
    highest = boxes.new_full(tuple(size), -math.inf)
    owner = torch.full(tuple(size), -1, dtype=torch.long)
    last = torch.tensor(size) - 1
    order = sure.argsort().tolist()
    voxels = torch.minimum(centres.floor().long().clamp(min=0), last)
    for number in order:
        # The maximum is at the centre of a voxel, so that one voxel has the exact score.
        top = voxels[number] + 0.5
        reach = (CORE * lengths[number] / 2).clamp(min=NARROWEST)
        low = torch.minimum((top - reach).floor().long().clamp(min=0), last).tolist()
        high = torch.minimum((top + reach).floor().long().clamp(min=0), last).tolist()
        core = tuple(slice(first, end + 1) for first, end in zip(low, high, strict=True))
        shape = (-1, *[1] * axes)
        away = ((middles[(slice(None), *core)] - top.reshape(shape)) / reach.reshape(shape)).square().sum(dim=0)
        # Flat about the maximum: the mean of two neighbouring hills then has no dip in between.
        hill = NOTHING + (sure[number] - NOTHING) * (1 - away.square()).clamp(min=0)
        covered = hill > NOTHING
        region: tuple[Any, ...] = (int(kinds[number]), *core)
        heat[region] = torch.maximum(heat[region], hill)
        over = covered & (hill > highest[core])
        highest[core] = torch.where(over, hill, highest[core])
        owner[core] = torch.where(over, number, owner[core])
    for number in order:  # the highest score last
        voxel: tuple[int, ...] = tuple(voxels[number].tolist())
        heat[(int(kinds[number]), *voxel)] = torch.maximum(heat[(int(kinds[number]), *voxel)], sure[number])
        owner[voxel] = number
    occupied = owner >= 0
    # Voxels without a box have the typical length, so that they shift a mean of windows only a little.
    extents = torch.cat([torch.full_like(middles, unit), torch.zeros_like(middles)])
    extents[:, occupied] = torch.cat(
        [lengths.T[:, owner[occupied]], centres.T[:, owner[occupied]] - middles[:, occupied]]
    )
    return torch.cat([heat - ADDED, extents / unit])


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> FasterRcnn:
    """A detector for the one head of boxes."""
    return FasterRcnn(*pyramid.single_box_head(dense, spatial_dims), channels, **size)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A residual network for the device, and anchors by the size of boxes."""
    size, because = resnet_pyramid.size_for(patch, strides, device)
    second = {"deep": 256, "samples": 128} if device == "cpu" else {"deep": 1024, "samples": 512}
    return {**size, "share": SHARE, **second}, f"{because}; anchors from half the median side of a box on", PAPER


FASTER_RCNN = resnet_pyramid.detector_family(
    build,
    size_for,
    PAPER,
    FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    1,
    otherwise="torchvision's Faster R-CNN is for pictures: choose retinanet for volumes",
    sees_targets=True,
    without_onnx="the number of its proposals differs between images, and a graph has fixed shapes",
    features="detector.backbone.body",
)
