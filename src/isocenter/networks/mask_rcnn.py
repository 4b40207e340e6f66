"""Mask R-CNN: boxes are proposed, then each is looked at closely and its object outlined. For pictures.

He et al., ICCV 2017, arXiv:1703.06870, of torchvision's parts and under its names, so that its weights fit. Its own
preparation of images is left out: they come as the plan prepares them, of any number of channels. Afterwards all that
is found is drawn into the two maps of `rendering`. This file needs torch and torchvision alone, and two beside it, so
that a copy travels with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, pad
from torchvision.models import get_model_weights, resnet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import (
    MaskRCNN_ResNet50_FPN_Weights,
    MaskRCNNHeads,
    MaskRCNNPredictor,
)
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from isocenter.networks.family import Family, Published
from isocenter.networks.regions import best, picked, pooled, unsuppressed, within
from isocenter.networks.rendering import rendered

PAPER = "arXiv:1703.06870"
# The heads of this file are objects told apart: whether a voxel is inside one, and how deep.
# Half, as large as, and twice as large as: of each anchor's height to its width.
RATIOS = (0.5, 1.0, 2.0)
LEVELS = 5
# Voxels of a box that the two heads look at; a mask is twice as fine.
OF_A_BOX, OF_A_MASK = 7, 14
# Of the boxes that the second stage is taught with so many hold an object. Section 3.1 of the paper.
POSITIVE = 0.25
# What of an object is left in a patch is taught from so many voxels on: of less nobody could tell what it is.
FEWEST_VOXELS = 4
# Samples of a mask beside one another in each part of a box.
SAMPLES_OF_A_MASK = 2


# Objects are enlarged to about so many voxels across, four of the finest level's, but no picture by more than this.
ENOUGH, LARGEST = 16.0, 2


class Found(NamedTuple):
    """Of each picture as many as there are places, the surest first.

    boxes:  (batch, n, 4) left, top, right, bottom edges in voxels of what the backbone sees
    scores: (batch, n) 0 where there is none
    masks:  (batch, n, m, m) probability of each part of a box
    """

    boxes: Tensor
    scores: Tensor
    masks: Tensor


class Proposed(NamedTuple):
    """What the first stage says.

    levels:  (batch, inside, *coarse) features, the finest first
    shapes:  anchors of each level
    logits:  (batch * anchors, 1) that there is anything
    moves:   (batch * anchors, 4) of an anchor to the box
    anchors: (anchors, 4) edges
    size:    rows and columns of what the backbone sees
    """

    levels: list[Tensor]
    shapes: list[int]
    logits: Tensor
    moves: Tensor
    anchors: Tensor
    size: tuple[int, int]


class MaskRCNN(nn.Module):
    """(batch, channels, rows, columns) to {head: (batch, 2, rows, columns)}; it owns its loss.

    In training it takes the numbers of the objects beside the images, because the second stage looks at what the first
    proposes, and gives `head/losses`, (batch, 5).

    body:      of torchvision's residual networks
    inside:    feature maps of the pyramid
    hidden:    features of a box
    outline:   feature maps of each layer that outlines
    anchor:    sides of the smallest anchors, in voxels of what the backbone sees; each level's are twice as large
    enlarge:   by which factor images are enlarged first, where objects are small
    proposals: boxes of a picture that the second stage looks at
    found:     objects of a picture at the most
    samples:   boxes of a picture that the second stage is taught with
    overlap:   of two boxes that overlap by more the surer one stays
    surest:    score from which an object is one
    """

    def __init__(
        self,
        channels: int,
        dense: Mapping[str, int],
        body: str = "resnet18",
        inside: int = 64,
        hidden: int = 256,
        outline: Sequence[int] = (64, 64),
        anchor: float = 32.0,
        enlarge: int = 1,
        proposals: int = 600,
        found: int = 300,
        samples: int = 256,
        overlap: float = 0.5,
        surest: float = 0.3,
    ) -> None:
        super().__init__()
        if len(dense) != 1 or set(dense.values()) != {2}:
            raise ValueError("one head of two maps is answered: inside an object, and how deep")
        if enlarge < 1 or anchor <= 0 or body not in dir(resnet) or not body.startswith(("resnet", "wide_resnet")):
            raise ValueError(f"a body {body!r}, enlarged {enlarge} times, with anchors of {anchor} cannot be")
        [self.name] = dense
        self.enlarge, self.proposals, self.found, self.samples = enlarge, proposals, found, samples
        self.overlap, self.surest = overlap, surest
        self.backbone = _backbone(body, channels, inside)
        self.rpn = _first_stage(inside, anchor, proposals)
        self.roi_heads = _second_stage(inside, hidden, outline, samples, (overlap, surest, found))

    def forward(
        self, images: Tensor, context: Tensor | None = None, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        proposed = self.propose(images)
        if not self.training:
            return {self.name: self._drawn(self.look(proposed), images.shape[2:])}
        if targets is None:
            return self._untaught(proposed)
        return {f"{self.name}/losses": self._losses(proposed, targets).expand(len(images), -1)}

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """The sum of the paper's: proposals and where they lie, classes and where they lie, masks."""
        return outputs[f"{self.name}/losses"].mean(dim=0).sum()

    def propose(self, images: Tensor) -> Proposed:
        """The first stage."""
        if self.enlarge > 1:
            images = interpolate(images, scale_factor=float(self.enlarge), mode="bilinear", align_corners=False)
        levels = list(self.backbone(images).values())
        logits, moves = self.rpn.head(levels)
        anchors = self._anchors(levels, images.shape[2:])
        shapes = [one.shape[1] * one.shape[2] * one.shape[3] for one in logits]
        logits, moves = concat_box_prediction_layers(logits, moves)
        size = (int(images.shape[2]), int(images.shape[3]))
        return Proposed(levels, shapes, logits.float(), moves.float(), anchors, size)

    def look(self, proposed: Proposed) -> Found:
        """The second stage: what of the proposals is an object, and its outline."""
        boxes, live = self._best_proposals(proposed)
        batch, count = live.shape
        heads, levels = self.roi_heads, proposed.levels[:-1]
        kinds, moves = heads.box_predictor(heads.box_head(pooled(levels, boxes, OF_A_BOX)))
        placed = heads.box_coder.decode_single(moves.float(), boxes.reshape(-1, 4))
        placed = within(placed.reshape(batch, count, -1, 4)[:, :, 1], proposed.size)
        scores = kinds.float().softmax(dim=1).reshape(batch, count, -1)[:, :, 1]
        scores, order = best(torch.where(live & (scores > self.surest), scores, 0.0), count)
        placed = picked(placed, order)
        kept = unsuppressed(placed, scores > 0, self.overlap)
        scores, order = best(torch.where(kept, scores, 0.0), self._most(kept))
        placed = picked(placed, order)
        outlines = heads.mask_predictor(heads.mask_head(pooled(levels, placed, OF_A_MASK)))
        masks = outlines[:, 1].float().sigmoid().reshape(batch, scores.shape[1], *outlines.shape[2:])
        return Found(placed, scores, masks)

    def _drawn(self, found: Found, size: Sequence[int]) -> Tensor:
        return rendered(found.masks, found.boxes / self.enlarge, found.scores, (int(size[0]), int(size[1])))

    def _most(self, kept: Tensor) -> int:
        """How many objects are outlined: as many as the picture with the most has, where numbers may be looked at."""
        if kept.is_meta or torch.compiler.is_compiling():
            return self.found
        return max(1, min(self.found, int(kept.sum(dim=1).max())))

    def _best_proposals(self, proposed: Proposed) -> tuple[Tensor, Tensor]:
        """(batch, n, 4) boxes, the surest first, and (batch, n) whether there are so many."""
        logits = proposed.logits.reshape(-1, len(proposed.anchors))
        batch, rpn = logits.shape[0], self.rpn  # `len` would fix the number in ONNX
        moved = rpn.box_coder.decode_single(proposed.moves, proposed.anchors.repeat(batch, 1)).reshape(batch, -1, 4)
        each = []
        for own, places in zip(logits.split(proposed.shapes, dim=1), moved.split(proposed.shapes, dim=1), strict=True):
            sure, order = best(own, rpn.pre_nms_top_n())
            each.append((within(picked(places, order), proposed.size), sure))
        # Levels lie beside one another, the shorter ones filled with boxes of no size, so that each is for itself.
        most = max(sure.shape[1] for _, sure in each)
        boxes = torch.stack([pad(one, (0, 0, 0, most - one.shape[1])) for one, _ in each], dim=1)
        sure = torch.stack([pad(one, (0, most - one.shape[1])) for _, one in each], dim=1)
        live = ((boxes[..., 2:] - boxes[..., :2]) >= rpn.min_size).all(dim=3)
        kept = unsuppressed(boxes.flatten(0, 1), live.flatten(0, 1), rpn.nms_thresh).reshape(live.shape)
        scores = torch.where(kept, sure.sigmoid(), -1.0).flatten(1)
        sure, order = best(scores, rpn.post_nms_top_n())
        return picked(boxes.flatten(1, 2), order), sure >= 0

    @torch.compiler.disable
    def _losses(self, proposed: Proposed, targets: Tensor) -> Tensor:
        """(5,) of this batch. What is drawn differs in number at each step."""
        rpn, heads, batch = self.rpn, self.roi_heads, len(targets)
        truth = [objects_of(numbers, self.enlarge) for numbers in targets]
        anchors = [proposed.anchors] * batch
        boxes = rpn.box_coder.decode(proposed.moves.detach(), anchors).reshape(batch, -1, 4)
        chosen, _ = rpn.filter_proposals(boxes, proposed.logits, [proposed.size] * batch, proposed.shapes)
        labels, matched = rpn.assign_targets_to_anchors(anchors, truth)
        moves = rpn.box_coder.encode(matched, anchors)
        first = rpn.compute_loss(proposed.logits, proposed.moves, labels, moves)

        chosen, owners, kinds, moves = heads.select_training_samples(chosen, truth)
        said, placed = heads.box_predictor(heads.box_head(self._features(proposed, chosen, OF_A_BOX)))
        second = fastrcnn_loss(said.float(), placed.float(), kinds, moves)

        held = [torch.nonzero(one > 0)[:, 0] for one in kinds]
        inner = [one[which] for one, which in zip(chosen, held, strict=True)]
        outlines = heads.mask_predictor(heads.mask_head(self._features(proposed, inner, OF_A_MASK)))[:, 1].float()
        wanted = [
            mask_of(numbers, one["numbers"][owner[which]], edges / self.enlarge, outlines.shape[-1])
            for numbers, one, owner, which, edges in zip(targets, truth, owners, held, inner, strict=True)
        ]
        apart = binary_cross_entropy_with_logits(outlines, torch.cat(wanted), reduction="sum")
        return torch.stack([*first, *second, apart / max(1, outlines.numel())])

    def _features(self, proposed: Proposed, boxes: Sequence[Tensor], size: int) -> Tensor:
        """(all boxes, inside, size, size) where each picture has as many boxes as it has."""
        each = [
            pooled([level[n : n + 1] for level in proposed.levels[:-1]], one[None], size) for n, one in enumerate(boxes)
        ]
        return torch.cat(each)

    def _untaught(self, proposed: Proposed) -> dict[str, Tensor]:
        """As many boxes as a step looks at go the whole way, where nothing says what there is: so memory is counted."""
        heads, levels, batch = self.roi_heads, proposed.levels[:-1], len(proposed.levels[0])
        boxes = proposed.logits.new_zeros(batch, self.samples, 4)
        kinds, moves = heads.box_predictor(heads.box_head(pooled(levels, boxes, OF_A_BOX)))
        held = boxes[:, : math.ceil(POSITIVE * self.samples)]
        masks = heads.mask_predictor(heads.mask_head(pooled(levels, held, OF_A_MASK)))
        # Every object is compared with every anchor.
        compared = proposed.logits.new_zeros(1).expand(self.found, len(proposed.anchors))
        said = {"anything": proposed.logits, "places": proposed.moves, "kinds": kinds, "moves": moves, "masks": masks}
        said["compared"] = compared
        return {f"{self.name}/{name}": one for name, one in said.items()}

    def _anchors(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """(anchors, 4) edges, level by level."""
        generator = self.rpn.anchor_generator
        generator.set_cell_anchors(torch.float32, levels[0].device)
        grids = [list(one.shape[2:]) for one in levels]
        steps = [[whole // own for whole, own in zip(size, grid, strict=True)] for grid in grids]
        return torch.cat(generator.grid_anchors(grids, steps))


def objects_of(numbers: Tensor, enlarge: int = 1) -> dict[str, Tensor]:
    """Of (rows, columns) numbers of objects: `numbers`, their `boxes` (n, 4) and `labels`; `masks` stay the numbers."""
    found, owner, sizes = torch.unique(numbers, return_inverse=True, return_counts=True)
    rows, columns = (
        places.expand_as(numbers).flatten().float()
        for places in torch.meshgrid(*(torch.arange(n, device=numbers.device) for n in numbers.shape), indexing="ij")
    )
    flat = owner.flatten()
    edges = [
        torch.zeros(len(found), device=numbers.device).scatter_reduce(0, flat, axis, how, include_self=False) + beyond
        for how, beyond in (("amin", 0), ("amax", 1))
        for axis in (columns, rows)
    ]
    kept = (found > 0) & (sizes >= FEWEST_VOXELS)
    return {
        "numbers": found[kept],
        "boxes": torch.stack(edges, dim=1)[kept] * enlarge,
        "labels": torch.ones(int(kept.sum()), dtype=torch.long, device=numbers.device),
        "masks": numbers,
    }


def mask_of(numbers: Tensor, own: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(n, size, size) share of each part of a box that is the object's, between voxels linearly, as RoIAlign has it.

    numbers: (rows, columns) of objects
    own:     (n,) number of the object that each box is of
    boxes:   (n, 4) edges
    No mask of a whole object is made: hundreds of them would not fit.
    """
    fine = size * SAMPLES_OF_A_MASK
    share = (torch.arange(fine, device=boxes.device, dtype=boxes.dtype) + 0.5) / fine
    low, high = boxes[:, :2, None], boxes[:, 2:, None]
    (columns, rows), ends = (low + (high - low) * share - 0.5).unbind(dim=1), numbers.shape
    made = boxes.new_zeros(len(boxes), fine, fine)
    for row, by_row in _between(rows, ends[0]):
        for column, by_column in _between(columns, ends[1]):
            there = numbers[row[:, :, None], column[:, None]] == own[:, None, None]
            made = made + there * by_row[:, :, None] * by_column[:, None]
    return nn.functional.avg_pool2d(made[:, None], SAMPLES_OF_A_MASK)[:, 0]


def _between(places: Tensor, end: int) -> list[tuple[Tensor, Tensor]]:
    """The voxel before each place and its share, then the one after."""
    places = places.clamp(0, end - 1)
    before = places.floor()
    share = places - before
    return [(before.long(), 1 - share), ((before.long() + 1).clamp(max=end - 1), share)]


def _backbone(body: str, channels: int, inside: int) -> BackboneWithFPN:
    made: Any = getattr(resnet, body)(weights=None)
    made.conv1 = nn.Conv2d(channels, made.conv1.out_channels, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(made.conv1.weight, mode="fan_out", nonlinearity="relu")
    deepest = made.fc.in_features
    layers = {f"layer{n + 1}": str(n) for n in range(4)}
    return BackboneWithFPN(made, layers, [deepest // 2**n for n in (3, 2, 1, 0)], inside)


def _first_stage(inside: int, anchor: float, proposals: int) -> RegionProposalNetwork:
    """Thresholds and numbers are those of Ren et al., arXiv:1506.01497, section 3.1.3, and of torchvision."""
    sizes = tuple((anchor * 2.0**level,) for level in range(LEVELS))
    anchors = AnchorGenerator(sizes, (RATIOS,) * LEVELS)
    head = RPNHead(inside, len(RATIOS))
    counts = {"training": proposals, "testing": proposals}
    return RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, counts, counts, 0.7)


def _second_stage(
    inside: int, hidden: int, outline: Sequence[int], samples: int, ending: tuple[float, float, int]
) -> RoIHeads:
    overlap, surest, found = ending
    return RoIHeads(
        None,  # boxes are pooled by `pooled`
        TwoMLPHead(inside * OF_A_BOX**2, hidden),
        FastRCNNPredictor(hidden, 2),
        0.5,
        0.5,
        samples,
        POSITIVE,
        None,
        surest,
        overlap,
        found,
        None,
        MaskRCNNHeads(inside, tuple(outline), 1),
        MaskRCNNPredictor(outline[-1], outline[-1], 2),
    )


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> MaskRCNN:
    """A network for the one head of objects."""
    del spatial_dims
    return MaskRCNN(channels, dense, **size)


def published(channels: int, size: Mapping[str, Any]) -> dict[str, Tensor]:
    """torchvision's weights, fetched: of COCO for `body: resnet50`, else of ImageNet for the body alone."""
    body = size.get("body", "resnet18")
    if body == "resnet50":
        return dict(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict())
    weights = get_model_weights(body).DEFAULT
    return {f"backbone.body.{name}": value for name, value in weights.get_state_dict().items()}


def size_of(unit: float) -> tuple[Mapping[str, Any], str]:
    """By the depth of an object, in voxels: small ones are enlarged, and the smallest anchors are half as long."""
    enlarge = max(1, min(LARGEST, round(ENOUGH / (2 * unit))))
    anchor = round(unit * enlarge, 1)
    because = f"objects about {2 * unit:.3g} voxels across, enlarged {enlarge} times: anchors from {anchor:g} on"
    return {"anchor": anchor, "enlarge": enlarge}, because


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A small residual network for a processor; on a GPU torchvision's own size, whose weights fit."""
    del strides
    if device == "cpu":
        size: dict[str, Any] = {"body": "resnet18", "inside": 64, "hidden": 256, "outline": [64, 64]}
    else:
        size = {"body": "resnet50", "inside": 256, "hidden": 1024, "outline": [256] * 4}
    return size, f"patch {tuple(patch)}: {size['body']} with a pyramid of {size['inside']} maps for the {device}", PAPER


MASK_RCNN = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    axes=(2,),
    otherwise="It outlines objects in pictures alone; unet tells them apart in volumes",
    answers=frozenset({"objects"}),
    sees_targets=True,
    has_loss=True,
    size_of=size_of,
    published=Published(published, "https://download.pytorch.org"),
)
