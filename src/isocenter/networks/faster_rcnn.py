"""Faster R-CNN of torchvision: a first stage proposes boxes, a second looks into each.

Ren et al., NeurIPS 2015, arXiv:1506.01497, on a feature pyramid (arXiv:1612.03144). For pictures. Both stages, their
sampling and their losses are torchvision's own; what they find is drawn into the map that every detection decodes.
This file needs torch and torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from isocenter.networks import resnet_pyramid
from isocenter.networks.family import Family, Published
from isocenter.networks.grid_levels import LEAST, only_head, places, truth_of, turned
from isocenter.networks.pyramid import ADDED

PAPER = "arXiv:1506.01497"
# Of the first stage's anchors: section 3.3, one size a level as in arXiv:1612.03144.
SHAPES = (0.5, 1.0, 2.0)
# The finest level's anchor is half as long as the median side of a box, each level's twice as long as those before;
# none is shorter than 4 voxels, as torchvision rounds its sides. Chosen by reasoning, and never varied.
SHARE, SHORTEST = 0.5, 4.0
# Voxels on each side of what the second stage sees of a proposal.
SEEN = 7
# What is less sure is not drawn: the task decodes no less. And the most boxes of an image.
LEAST_SCORE, MOST_BOXES = 0.02, 300
# The logit where nothing was found: a little below the least, so that a window which found nothing where another did
# lowers the score, and does not undo it.
NOTHING = math.log(0.01 / 0.99)
# A box is drawn as a hill over so much of its half sides, and over so many voxels at least: windows that overlap put a
# box a little apart, and the mean of their hills has one top between. Half the overlap of two boxes that stay apart.
CORE, NARROWEST = 0.3, 1.5


class FasterRcnn(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 4, *spatial)}; it owns its loss.

    In training it is told the truth, by which proposals are chosen, and answers with the losses of both stages, as
    `head/losses`, (batch, 4). Afterwards every box that it finds is drawn into the map, a hill about its centre.

    unit:    voxels that a length or an offset of 1 is long
    share:   of the unit that the finest level's anchor is long
    deep:    numbers in which the second stage describes a proposal
    samples: proposals of an image from which it learns
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
    ) -> None:
        super().__init__()
        self.name, self.classes, self.unit, self.samples = name, classes, unit, samples
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

    def forward(
        self, images: Tensor, context: Tensor | None = None, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        features = self.detector.backbone(images)
        if images.is_meta:
            return self._pretended(images, features)
        with torch.autocast(images.device.type, enabled=False):
            features = {name: one.float() for name, one in features.items()}
            if self.training:
                return {f"{self.name}/losses": self._losses(images, features, targets)}
            return {self.name: self._found(images, features)}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """torchvision's own, of both stages: the mean over images. boxes: were told to `forward` already"""
        return outputs[f"{self.name}/losses"].mean(dim=0).sum()

    @torch.compiler.disable
    def _losses(self, images: Tensor, features: Mapping[str, Tensor], targets: Tensor | None) -> Tensor:
        """(batch, 4) of each image alone, so that it does not matter which process has which.

        targets: (batch, n, 1 + 4) class, low and high edges in voxels; of class -1 none
        """
        if targets is None:
            raise ValueError("in training the true boxes are wanted beside the images")
        size, losses = (int(images.shape[2]), int(images.shape[3])), []
        for number, boxes in enumerate(targets):
            alone = {name: one[number : number + 1] for name, one in features.items()}
            edges, kinds = truth_of(boxes.float())
            # Of torchvision's classes the first is the background.
            told = [{"boxes": turned(edges, 1), "labels": kinds + 1}]
            proposals, first = self.detector.rpn(ImageList(images[number : number + 1], [size]), alone, told)
            _, second = self.detector.roi_heads(alone, proposals, [size], told)
            losses.append(torch.stack([*first.values(), *second.values()]))
        return torch.stack(losses)

    @torch.compiler.disable
    def _found(self, images: Tensor, features: dict[str, Tensor]) -> Tensor:
        size = (int(images.shape[2]), int(images.shape[3]))
        sizes = [size] * len(images)
        proposals, _ = self.detector.rpn(ImageList(images, sizes), features)
        found, _ = self.detector.roi_heads(features, proposals, sizes)
        drawn = [
            drawn_boxes(turned(one["boxes"], 1), one["labels"] - 1, one["scores"], self.classes, size, self.unit)
            for one in found
        ]
        return torch.stack(drawn).to(images.device)

    def _pretended(self, images: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where tensors hold no numbers, as when memory is planned: the work of as many proposals as there may be."""
        said = self.detector.rpn.head(list(features.values()))
        most = self.samples if self.training else self.detector.rpn._post_nms_top_n["testing"]
        seen = images.new_empty(len(images) * most, features["0"].shape[1], SEEN, SEEN)
        looked = self.detector.roi_heads.box_predictor(self.detector.roi_heads.box_head(seen))
        if self.training:
            every = (*said[0], *said[1], *looked)
            return {f"{self.name}/losses": torch.stack([one.sum() for one in every]).sum().expand(len(images), 4)}
        return {self.name: images.new_empty(len(images), self.classes + 4, *images.shape[2:])}


def drawn_boxes(boxes: Tensor, kinds: Tensor, scores: Tensor, classes: int, size: Sequence[int], unit: float) -> Tensor:
    """(classes + 2 * axes, *size) logits, lengths and offsets from which the task decodes these boxes again.

    boxes: (n, 2 * axes) low and high edges in voxels; kinds: (n,) classes; scores: (n,)
    In the voxel of a box's centre stands its logit, and about it a hill over the core of the box; all over the hill its
    lengths, and how far its centre is. Of two boxes in one voxel the surer one's.
    """
    boxes, kinds, sure = boxes.cpu(), kinds.cpu(), torch.logit(scores.cpu(), eps=LEAST)
    axes = len(size)
    centres, lengths = (boxes[:, :axes] + boxes[:, axes:]) / 2, boxes[:, axes:] - boxes[:, :axes]
    middles = places(size, boxes)
    heat = boxes.new_full((classes, *size), NOTHING)
    highest = boxes.new_full(tuple(size), -math.inf)
    owner = torch.full(tuple(size), -1, dtype=torch.long)
    last = torch.tensor(size) - 1
    order = sure.argsort().tolist()
    voxels = torch.minimum(centres.floor().long().clamp(min=0), last)
    for number in order:
        # A hill is highest in the middle of a voxel, so that the score stands somewhere as it is.
        top, reach = voxels[number] + 0.5, (CORE * lengths[number] / 2).clamp(min=NARROWEST)
        low = torch.minimum((top - reach).floor().long().clamp(min=0), last).tolist()
        high = torch.minimum((top + reach).floor().long().clamp(min=0), last).tolist()
        core = tuple(slice(begin, end + 1) for begin, end in zip(low, high, strict=True))
        shape = (-1, *[1] * axes)
        away = ((middles[(slice(None), *core)] - top.reshape(shape)) / reach.reshape(shape)).square().sum(dim=0)
        # Flat about its top, and without a hollow: the mean of two such hills has none either.
        hill = NOTHING + (sure[number] - NOTHING) * (1 - away.square()).clamp(min=0)
        drawn = hill > NOTHING
        own: tuple[Any, ...] = (int(kinds[number]), *core)
        heat[own] = torch.maximum(heat[own], hill)
        over = drawn & (hill > highest[core])
        highest[core] = torch.where(over, hill, highest[core])
        owner[core] = torch.where(over, number, owner[core])
    for number in order:  # the surest last
        voxel: tuple[int, ...] = tuple(voxels[number].tolist())
        heat[(int(kinds[number]), *voxel)] = torch.maximum(heat[(int(kinds[number]), *voxel)], sure[number])
        owner[voxel] = number
    there = owner >= 0
    # Where there is no box its side is the typical one, so that a mean of windows is not drawn away from it by much.
    said = torch.cat([torch.full_like(middles, unit), torch.zeros_like(middles)])
    said[:, there] = torch.cat([lengths.T[:, owner[there]], centres.T[:, owner[there]] - middles[:, there]])
    return torch.cat([heat - ADDED, said / unit])


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> FasterRcnn:
    """A detector for the one head of boxes."""
    return FasterRcnn(*only_head(dense, spatial_dims), channels, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A residual network that the device goes through quickly; the reason and its source."""
    size, because = resnet_pyramid.size_for(patch, strides, device)
    second = {"deep": 256, "samples": 128} if device == "cpu" else {"deep": 1024, "samples": 512}
    return {**size, "share": SHARE, **second}, f"{because}; anchors from half the median side of a box on", PAPER


def published(channels: int, size: Mapping[str, Any]) -> dict[str, Tensor]:
    """torchvision's weights, trained on COCO: of a network whose finest level is the first stage."""
    return resnet_pyramid.fetched(FasterRCNN_ResNet50_FPN_Weights.COCO_V1, size, 1)


FASTER_RCNN = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    axes=(2,),
    otherwise="torchvision's Faster R-CNN is for pictures: choose retinanet for volumes",
    answers=frozenset({"boxes"}),
    in_voxels=True,
    sees_targets=True,
    has_loss=True,
    published=Published(published, resnet_pyramid.PUBLISHED_AT),
    translated=resnet_pyramid.translated,
    without_onnx="it chooses proposals anew for each image, which a graph of fixed shapes cannot say",
)
