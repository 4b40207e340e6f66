"""Mask R-CNN for pictures: region proposals, then class, box and mask of each.

He et al., ICCV 2017, arXiv:1703.06870, of torchvision's parts and under its names, so that its weights fit. Images are
prepared as the plan says, of any number of channels, instead of by torchvision's own transform. In prediction objects
are rendered into two maps: the logit of being in an object, and a depth that is 0 where two objects touch, so that a
watershed recovers them.

Shapes do not depend on values, so that both stages are one graph for a whole batch, also on torch's meta device and in
ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, pad
from torchvision.models import get_model_weights, resnet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN_ResNet50_FPN_Weights, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import roi_align

from hilum.networks import context_fusion, resnet_pyramid
from hilum.networks.network_family import Family, PublishedWeights, Sized, Strides
from hilum.networks.resnet_pyramid import PUBLISHED_AT

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings, NetworkSize, SizeValue

PAPER = "arXiv:1703.06870"
# Ratios of each anchor's height to its width.
RATIOS = (0.5, 1.0, 2.0)
LEVELS = 5
# Cells an axis of the pooled features for boxes and for masks; a mask has twice as many.
OF_A_BOX = 7
OF_A_MASK = 14
# Share of the second stage's training samples that hold an object. Section 3.1 of the paper.
POSITIVE = 0.25
# The part of an object in a patch is trained from so many voxels on: smaller parts are hard to recognise.
FEWEST_VOXELS = 4
# Samples an axis in each cell of a mask.
SAMPLES_OF_A_MASK = 2


# Images are enlarged until objects are about so many voxels across, four of the finest level's; by this at the most.
ENOUGH = 16.0
LARGEST = 2
# Longest chain of suppressions: the first box suppresses the second, which then does not suppress the third. In longer
# chains a box too many may stay; 600 boxes sampled around 60 centres took at most 7 rounds, in 60 draws.
ROUNDS = 12
# Regions of this side, in voxels, are pooled from the level with a sixteenth of the resolution; of half the side, from
# the next finer level. Lin et al., CVPR 2017, arXiv:1612.03144, equation 1.
CANONICAL = 224.0
CANONICAL_LEVEL = 4
FINEST_LEVEL = 2
SMALL = 1e-6
# Lowest probability of an object's voxel: below any threshold that is tried for the inside.
NOBODY = 0.25
# Largest probability, so that in a mean of two contradicting windows neither always wins.
SURE = 0.99
# Share of a mask that objects of higher score must leave free, or it is a duplicate of one of them. Kirillov et al.,
# CVPR 2019, arXiv:1801.00868, section 6.
LEFT = 0.5
# Masks that are rendered at a time.
AT_ONCE = 16


class Objects(NamedTuple):
    """Predicted objects, the same number for each picture, in order of falling score.

    boxes:   (batch, n, 4) left, top, right, bottom edges in voxels of the backbone's input
    scores:  (batch, n) probability of an object of any class; 0 for no object
    masks:   (batch, n, m, m) probability of each cell of a box
    classes: (batch, n, classes) logarithms of the probability of each class
    """

    boxes: Tensor
    scores: Tensor
    masks: Tensor
    classes: Tensor


class Proposals(NamedTuple):
    """Outputs of the first stage.

    levels:  (batch, inside, *coarse) features, finest first
    shapes:  number of anchors of each level
    logits:  (batch * anchors, 1) of an object
    moves:   (batch * anchors, 4) from an anchor to the box
    anchors: (anchors, 4) edges
    size:    rows and columns of the backbone's input
    """

    levels: list[Tensor]
    shapes: list[int]
    logits: Tensor
    moves: Tensor
    anchors: Tensor
    size: tuple[int, int]


class MaskRCNN(nn.Module):
    """(batch, channels, rows, columns) to {head: (batch, 2 + classes, rows, columns)}, with its own loss.

    In training it also gets maps of the objects' numbers, by which proposals are sampled, and its output is
    `head/losses`, (batch, 5). Of several classes a number states that of its object: n of class k is
    (n - 1) * classes + k + 1. Of one class there are no maps of classes.

    body:      name of torchvision's residual network
    inside:    feature maps of the pyramid
    hidden:    features of a box
    outline:   feature maps of each layer of the mask head
    anchor:    side of the finest level's anchors, in voxels of the backbone's input; doubled by each level
    enlarge:   factor by which images are enlarged first, where objects are small
    proposals: proposals of a picture for the second stage
    objects:   their largest number in a picture
    samples:   boxes of a picture that the second stage is trained with
    overlap:   of two boxes with a larger intersection over union the one of higher score stays
    surest:    lowest score of an object
    context:   number of covariates, which scale and shift the maps of each level; fusion: settings of `ContextFusion`
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
        objects: int = 300,
        samples: int = 256,
        overlap: float = 0.5,
        surest: float = 0.3,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        super().__init__()
        if len(dense) != 1 or min(dense.values()) < 2:
            raise ValueError("it has one head of maps: inside an object, classes where there are several, and depth")
        if enlarge < 1 or anchor <= 0 or body not in dir(resnet) or not body.startswith(("resnet", "wide_resnet")):
            raise ValueError(f"there is no body {body!r} for images enlarged {enlarge} times and anchors of {anchor}")
        [(self.name, maps)] = dense.items()
        self.classes = max(1, maps - 2)
        self.enlarge = enlarge
        self.proposals = proposals
        self.objects = objects
        self.samples = samples
        self.overlap = overlap
        self.surest = surest
        self.backbone = _backbone(body, channels, inside)
        self.rpn = _first_stage(inside, anchor, proposals)
        self.roi_heads = _second_stage(inside, hidden, outline, samples, (overlap, surest, objects), self.classes)
        self.telling = context_fusion.pyramid_fusion(LEVELS, inside, context, fusion)

    def forward(
        self, images: Tensor, context: Tensor | None = None, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the maps, in training the losses; context: (batch, covariates); targets: as for `loss`."""
        proposed = self.propose(images, context)
        if not self.training:
            return {self.name: self._render_objects(self.look(proposed), images.shape[2:])}
        if targets is None:
            return self._of_same_work(proposed)
        losses = {f"{self.name}/losses": self._losses(proposed, targets).expand(len(images), -1)}
        return {**losses, **self.telling.penalties(images)}

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor, heads: object) -> Tensor:
        """The sum of the paper's losses; `targets`, (batch, rows, columns) numbers of objects, went into `forward`."""
        return outputs[f"{self.name}/losses"].mean(dim=0).sum()

    def propose(self, images: Tensor, context: Tensor | None = None) -> Proposals:
        """Outputs of the first stage for (batch, channels, rows, columns) images and (batch, covariates)."""
        if self.enlarge > 1:
            images = interpolate(images, scale_factor=float(self.enlarge), mode="bilinear", align_corners=False)
        levels = self.telling.modulate_levels(self.backbone(images).values(), self.telling(context))
        logits, moves = self.rpn.head(levels)
        anchors = self._anchors(levels, images.shape[2:])
        shapes = [math.prod(maps.shape[1:]) for maps in logits]
        logits, moves = concat_box_prediction_layers(logits, moves)
        size = (int(images.shape[2]), int(images.shape[3]))
        return Proposals(levels, shapes, logits.float(), moves.float(), anchors, size)

    def look(self, proposed: Proposals) -> Objects:
        """The second stage: which proposals are objects, and their masks."""
        boxes, live = self._best_proposals(proposed)
        batch, count = live.shape
        heads = self.roi_heads
        levels = proposed.levels[:-1]
        kinds, moves = heads.box_predictor(heads.box_head(roi_features(levels, boxes, OF_A_BOX)))
        placed = heads.box_coder.decode_single(moves.float(), boxes.reshape(-1, 4))
        logits = kinds.float().reshape(batch, count, -1)
        classes = logits[:, :, 1:].log_softmax(dim=2)
        own = 1 + classes.argmax(dim=2)
        placed = _of_class(placed.reshape(batch * count, -1, 4), own.flatten()).reshape(batch, count, 4)
        placed = clip_to_picture(placed, proposed.size)
        scores = logits.softmax(dim=2)[:, :, 1:].sum(dim=2)
        scores, order = best_scores(torch.where(live & (scores > self.surest), scores, 0.0), count)
        placed = pick_boxes(placed, order)
        classes = pick_boxes(classes, order)
        surviving = kept_boxes(placed, scores > 0, self.overlap)
        scores, order = best_scores(torch.where(surviving, scores, 0.0), self._most(surviving))
        placed = pick_boxes(placed, order)
        classes = pick_boxes(classes, order)
        outlines = heads.mask_predictor(heads.mask_head(roi_features(levels, placed, OF_A_MASK)))
        masks = _of_class(outlines, 1 + classes.argmax(dim=2).flatten()).float().sigmoid()
        return Objects(placed, scores, masks.reshape(batch, scores.shape[1], *outlines.shape[2:]), classes)

    def _render_objects(self, objects: Objects, size: Sequence[int]) -> Tensor:
        places = (int(size[0]), int(size[1]))
        edges = objects.boxes / self.enlarge
        rendered, owner = render_objects(objects.masks, edges, objects.scores, places)
        if self.classes == 1:
            return rendered
        maps = class_maps(objects.classes, owner)
        return torch.cat([rendered[:, :1], maps, rendered[:, 1:]], dim=1)

    def _most(self, boxes: Tensor) -> int:
        """Number of masks to compute: the largest number of objects of a picture, or a constant in a fixed graph."""
        if boxes.is_meta or torch.compiler.is_compiling():
            return self.objects
        return max(1, min(self.objects, int(boxes.sum(dim=1).max())))

    def _best_proposals(self, proposed: Proposals) -> tuple[Tensor, Tensor]:
        """(batch, n, 4) boxes in order of falling score, and (batch, n) which of them exist."""
        logits = proposed.logits.reshape(-1, len(proposed.anchors))
        # `len` would fix the number in ONNX
        batch = logits.shape[0]
        rpn = self.rpn
        moved = rpn.box_coder.decode_single(proposed.moves, proposed.anchors.repeat(batch, 1)).reshape(batch, -1, 4)
        best_of_levels = []
        for level_logits, places in zip(
            logits.split(proposed.shapes, dim=1), moved.split(proposed.shapes, dim=1), strict=True
        ):
            sure, order = best_scores(level_logits, rpn.pre_nms_top_n())
            best_of_levels.append((clip_to_picture(pick_boxes(places, order), proposed.size), sure))
        # Levels are stacked, the shorter ones padded with empty boxes, and suppressed each by itself.
        most = max(sure.shape[1] for _, sure in best_of_levels)
        boxes = torch.stack(
            [pad(level_logits, (0, 0, 0, most - level_logits.shape[1])) for level_logits, _ in best_of_levels], dim=1
        )
        sure = torch.stack(
            [pad(level_logits, (0, most - level_logits.shape[1])) for _, level_logits in best_of_levels], dim=1
        )
        live = ((boxes[..., 2:] - boxes[..., :2]) >= rpn.min_size).all(dim=3)
        surviving = kept_boxes(boxes.flatten(0, 1), live.flatten(0, 1), rpn.nms_thresh).reshape(live.shape)
        scores = torch.where(surviving, sure.sigmoid(), -1.0).flatten(1)
        sure, order = best_scores(scores, rpn.post_nms_top_n())
        return pick_boxes(boxes.flatten(1, 2), order), sure >= 0

    @torch.compiler.disable
    def _losses(self, proposed: Proposals, targets: Tensor) -> Tensor:
        """(5,) of this batch, outside of a compiled graph, because the number of samples differs at each step."""
        rpn = self.rpn
        heads = self.roi_heads
        batch = len(targets)
        truth = [torchvision_targets(numbers, self.enlarge, self.classes) for numbers in targets]
        anchors = [proposed.anchors] * batch
        boxes = rpn.box_coder.decode(proposed.moves.detach(), anchors).reshape(batch, -1, 4)
        chosen, _ = rpn.filter_proposals(boxes, proposed.logits, [proposed.size] * batch, proposed.shapes)
        labels, matched = rpn.assign_targets_to_anchors(anchors, truth)
        moves = rpn.box_coder.encode(matched, anchors)
        first = rpn.compute_loss(proposed.logits, proposed.moves, labels, moves)

        chosen, owners, kinds, moves = heads.select_training_samples(chosen, truth)
        logits, placed = heads.box_predictor(heads.box_head(self._features(proposed, chosen, OF_A_BOX)))
        second = fastrcnn_loss(logits.float(), placed.float(), kinds, moves)

        held = [torch.nonzero(own > 0)[:, 0] for own in kinds]
        inner = [own[which] for own, which in zip(chosen, held, strict=True)]
        outlines = heads.mask_predictor(heads.mask_head(self._features(proposed, inner, OF_A_MASK)))
        of_held = torch.cat([own[which] for own, which in zip(kinds, held, strict=True)])
        outlines = _of_class(outlines, of_held).float()
        targets_of_images = [
            box_masks(numbers, objects["numbers"][owner[which]], edges / self.enlarge, outlines.shape[-1])
            for numbers, objects, owner, which, edges in zip(targets, truth, owners, held, inner, strict=True)
        ]
        apart = binary_cross_entropy_with_logits(outlines, torch.cat(targets_of_images), reduction="sum")
        return torch.stack([*first, *second, apart / max(1, outlines.numel())])

    def _features(self, proposed: Proposals, boxes: Sequence[Tensor], size: int) -> Tensor:
        """(all boxes, inside, size, size) of pictures with different numbers of boxes."""
        pyramids = [[level[n : n + 1] for level in proposed.levels[:-1]] for n in range(len(boxes))]
        return torch.cat([roi_features(levels, own[None], size) for levels, own in zip(pyramids, boxes, strict=True)])

    def _of_same_work(self, proposed: Proposals) -> dict[str, Tensor]:
        """Outputs without targets, where memory is planned, with the work of as many boxes as a step has."""
        heads = self.roi_heads
        levels = proposed.levels[:-1]
        batch = len(proposed.levels[0])
        boxes = proposed.logits.new_zeros(batch, self.samples, 4)
        kinds, moves = heads.box_predictor(heads.box_head(roi_features(levels, boxes, OF_A_BOX)))
        held = boxes[:, : math.ceil(POSITIVE * self.samples)]
        masks = heads.mask_predictor(heads.mask_head(roi_features(levels, held, OF_A_MASK)))
        # Every object is compared with every anchor.
        compared = proposed.logits.new_zeros(1).expand(self.objects, len(proposed.anchors))
        parts = {"anything": proposed.logits, "places": proposed.moves, "kinds": kinds, "moves": moves, "masks": masks}
        parts["compared"] = compared
        return {f"{self.name}/{name}": part for name, part in parts.items()}

    def _anchors(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """(anchors, 4) edges, level by level."""
        grids = [maps.shape[2:] for maps in levels]
        steps = [[whole // own for whole, own in zip(size, grid, strict=True)] for grid in grids]
        return torch.cat(resnet_pyramid.level_anchors(self.rpn.anchor_generator, grids, steps, levels[0]))


def torchvision_targets(numbers: Tensor, enlarge: int = 1, classes: int = 1) -> dict[str, Tensor]:
    """Targets of torchvision from a map of (rows, columns) numbers of objects, which state their classes.

    `numbers` (n,) of the objects, their `boxes` (n, 4) and `labels` (n,); `masks` is the map itself
    """
    every, owner, sizes = torch.unique(numbers, return_inverse=True, return_counts=True)
    rows, columns = (
        places.expand_as(numbers).flatten().float()
        for places in torch.meshgrid(*(torch.arange(n, device=numbers.device) for n in numbers.shape), indexing="ij")
    )
    flat = owner.flatten()
    edges = [
        torch.zeros(len(every), device=numbers.device).scatter_reduce(0, flat, axis, how, include_self=False) + beyond
        for how, beyond in (("amin", 0), ("amax", 1))
        for axis in (columns, rows)
    ]
    large_enough = (every > 0) & (sizes >= FEWEST_VOXELS)
    return {
        "numbers": every[large_enough],
        "boxes": torch.stack(edges, dim=1)[large_enough] * enlarge,
        "labels": (every[large_enough].long() - 1) % classes + 1,
        "masks": numbers,
    }


def box_masks(numbers: Tensor, labels: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(n, size, size) share of each cell of a box that belongs to the object, interpolated linearly as in RoIAlign.

    numbers: (rows, columns) of objects
    labels:     (n,) number of each box's object
    boxes:   (n, 4) edges
    Without masks of whole objects, hundreds of which would not fit into memory.
    """
    fine = size * SAMPLES_OF_A_MASK
    share = (torch.arange(fine, device=boxes.device, dtype=boxes.dtype) + 0.5) / fine
    low, high = boxes[:, :2, None], boxes[:, 2:, None]
    columns, rows = (low + (high - low) * share - 0.5).unbind(dim=1)
    ends = numbers.shape
    shares = boxes.new_zeros(len(boxes), fine, fine)
    for row, by_row in _between(rows, ends[0]):
        for column, by_column in _between(columns, ends[1]):
            inside = numbers[row[:, :, None], column[:, None]] == labels[:, None, None]
            shares = shares + inside * by_row[:, :, None] * by_column[:, None]
    return nn.functional.avg_pool2d(shares[:, None], SAMPLES_OF_A_MASK)[:, 0]


def _between(places: Tensor, end: int) -> list[tuple[Tensor, Tensor]]:
    """The voxel before each position and its weight, then the voxel after."""
    places = places.clamp(0, end - 1)
    before = places.floor()
    share = places - before
    return [(before.long(), 1 - share), ((before.long() + 1).clamp(max=end - 1), share)]


def _backbone(body: str, channels: int, inside: int) -> BackboneWithFPN:
    network: Any = getattr(resnet, body)(weights=None)
    network.conv1 = nn.Conv2d(channels, network.conv1.out_channels, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    deepest = network.fc.in_features
    layers = {f"layer{n + 1}": str(n) for n in range(4)}
    return BackboneWithFPN(network, layers, [deepest // 2**n for n in (3, 2, 1, 0)], inside)


def _first_stage(inside: int, anchor: float, proposals: int) -> RegionProposalNetwork:
    """Region proposals, with thresholds and numbers of Ren et al., arXiv:1506.01497, section 3.1.3, and torchvision."""
    sizes = tuple((anchor * 2.0**level,) for level in range(LEVELS))
    anchors = AnchorGenerator(sizes, (RATIOS,) * LEVELS)
    head = RPNHead(inside, len(RATIOS))
    counts = {"training": proposals, "testing": proposals}
    return RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, counts, counts, 0.7)


def _second_stage(
    inside: int, hidden: int, outline: Sequence[int], samples: int, ending: tuple[float, float, int], classes: int
) -> RoIHeads:
    overlap, surest, most = ending
    return RoIHeads(
        None,  # boxes are pooled by `roi_features`
        TwoMLPHead(inside * OF_A_BOX**2, hidden),
        FastRCNNPredictor(hidden, 1 + classes),
        0.5,
        0.5,
        samples,
        POSITIVE,
        None,
        surest,
        overlap,
        most,
        None,
        MaskRCNNHeads(inside, tuple(outline), 1),
        MaskRCNNPredictor(outline[-1], outline[-1], 1 + classes),
    )


def build(channels: int, spatial_dims: int, dense: Mapping[str, int], **size: Any) -> MaskRCNN:
    """A network for the one head of objects."""
    del spatial_dims
    return MaskRCNN(channels, dense, **size)


def published(channels: int, size: NetworkSize) -> dict[str, Tensor]:
    """torchvision's weights, downloaded: from COCO for `body: resnet50`, else from ImageNet for the body only."""
    body = size.get("body", "resnet18")
    if body == "resnet50":
        return dict(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict())
    weights = get_model_weights(body).DEFAULT
    return {f"backbone.body.{name}": value for name, value in weights.get_state_dict().items()}


def settings_for_unit(unit: float) -> tuple[NetworkSize, str]:
    """Settings by the objects' depth, in voxels: images of small ones are enlarged, and the smallest anchors fit."""
    enlarge = max(1, min(LARGEST, round(ENOUGH / (2 * unit))))
    anchor = round(unit * enlarge, 1)
    because = f"objects about {2 * unit:.3g} voxels across, enlarged {enlarge} times: anchors from {anchor:g} on"
    return {"anchor": anchor, "enlarge": enlarge}, because


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A small residual network for a processor; on a GPU torchvision's own size, which its weights fit."""
    del strides
    if device == "cpu":
        size: dict[str, SizeValue] = {"body": "resnet18", "inside": 64, "hidden": 256, "outline": [64, 64]}
    else:
        size = {"body": "resnet50", "inside": 256, "hidden": 1024, "outline": [256] * 4}
    return size, f"patch {tuple(patch)}: {size['body']} with a pyramid of {size['inside']} maps for the {device}", PAPER


def pairwise_iou(boxes: Tensor) -> Tensor:
    """(batch, n, n) intersection over union of (batch, n, 4) edges: left, top, right, bottom."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    return both / (areas[:, :, None] + areas[:, None] - both).clamp(min=SMALL)


def kept_boxes(boxes: Tensor, live: Tensor, threshold: float) -> Tensor:
    """(batch, n) which boxes non-maximum suppression keeps.

    boxes: (batch, n, 4) edges, in order of falling score
    live:  (batch, n) which boxes exist
    Sequential suppression is the fixed point of suppressing all boxes at once, reached after as many rounds as its
    longest chain has links: Zheng et al., IEEE Trans Cybern 2022, arXiv:2005.03572, proposition 1.
    """
    count = boxes.shape[1]
    surer = torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)  # the column's box than the row's
    over = (pairwise_iou(boxes) > threshold) & surer & live.unsqueeze(1)
    surviving = live
    for _ in range(ROUNDS):
        surviving = live & ~(over & surviving.unsqueeze(1)).any(dim=2)
    return surviving


def tile_levels(levels: Sequence[Tensor]) -> Tensor:
    """(batch, channels, rows, columns) all levels of a pyramid in one picture, from left to right.

    Each has a copy of its last row and column, so that interpolation at its edge is the same as in the level itself.
    """
    rows = levels[0].shape[2] + 1
    edged = [pad(level, (0, 1, 0, 1), mode="replicate") for level in levels]
    return torch.cat([pad(level, (0, 0, 0, rows - level.shape[2])) for level in edged], dim=3)


def roi_features(levels: Sequence[Tensor], boxes: Tensor, size: int, samples: int = 2) -> Tensor:
    """(batch * n, channels, size, size) features of each box, from the level for its size.

    levels: (batch, channels, *coarse) with a quarter of the picture's resolution, then each with half of the one before
    boxes:  (batch, n, 4) edges in voxels of the picture
    RoIAlign: He et al., arXiv:1703.06870; one call for a mosaic of all levels.
    """
    batch, count = boxes.shape[:2]
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    last = FINEST_LEVEL + len(levels) - 1
    exact = CANONICAL_LEVEL + torch.log2(sides.prod(dim=-1).sqrt() / CANONICAL + SMALL)
    level = torch.floor(exact + SMALL).clamp(FINEST_LEVEL, last).long() - FINEST_LEVEL
    starts = [0, *(one.shape[3] + 1 for one in levels[:-1])]
    from_left = boxes.new_tensor([sum(starts[: n + 1]) for n in range(len(levels))])[level]
    placed = boxes * torch.exp2(-(level + FINEST_LEVEL).to(boxes.dtype))[..., None]
    placed = placed + torch.stack([from_left, torch.zeros_like(from_left)] * 2, dim=-1)
    number = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(batch, count, 1)
    rois = torch.cat([number, placed], dim=2).reshape(batch * count, 5)
    return cast("Tensor", roi_align(tile_levels(levels).float(), rois.float(), size, 1.0, samples))


def clip_to_picture(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(..., 4) edges cut at those of a picture of (rows, columns)."""
    rows, columns = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([columns, rows, columns, rows]))


def best_scores(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(batch, count) the highest of (batch, n) scores and their indices; fewer where n is smaller."""
    highest = torch.topk(scores, min(count, scores.shape[1]), dim=1)
    return highest.values, highest.indices


def pick_boxes(boxes: Tensor, places: Tensor) -> Tensor:
    """(batch, k, 4) of (batch, n, 4) boxes, by (batch, k) indices."""
    return torch.gather(boxes, 1, places[..., None].expand(-1, -1, boxes.shape[2]))


def _of_class(values: Tensor, classes: Tensor) -> Tensor:
    """(n, ...) of (n, 1 + classes, ...) values those of each one's own class; classes: (n,) from 1 on."""
    if values.shape[1] == 2:  # a view of the one class, whose sums add up in the same order as ever
        return values[:, 1]
    places = classes.reshape(-1, *[1] * (values.ndim - 1)).expand(-1, 1, *values.shape[2:])
    return values.gather(1, places)[:, 0]


def class_maps(classes: Tensor, owner: Tensor) -> Tensor:
    """(batch, classes, rows, columns) logarithms of the probability of each class, and 0 outside of objects.

    classes: (batch, n, classes) of each object; owner: (batch, rows, columns) number of each voxel's, 0 for none
    """
    nobody = torch.zeros_like(classes[:, :1])
    of_voxels = torch.cat([nobody, classes], dim=1).transpose(1, 2)
    places = owner.flatten(1)[:, None].expand(-1, classes.shape[2], -1)
    return of_voxels.gather(2, places).reshape(len(owner), -1, *owner.shape[1:])


def render_objects(masks: Tensor, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(batch, 2, rows, columns) logit of inside an object, and depth; (batch, rows, columns) number of its object.

    masks:  (batch, n, m, m) probability of each cell of a box
    boxes:  (batch, n, 4) left, top, right, bottom edges in voxels
    scores: (batch, n) in falling order; 0 for no object
    A voxel belongs to the object of the highest score whose mask has a probability of 0.5 or more there, else to the
    most probable mask. Its probability is that of the mask, or the object's score where this is lower. An object that
    those of higher scores mostly cover is a duplicate, and left out.
    """
    owner, chance = voxel_owners(masks, boxes, scores, size)
    depth, holds = owner_depths(owner)
    chance = torch.where(holds, chance, 0.0).clamp(1 - SURE, SURE)
    return torch.stack([torch.logit(chance), depth], dim=1), owner


def voxel_owners(masks: Tensor, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(batch, rows, columns) number of each voxel's object, from 1 on, else 0, and its probability."""
    count = masks.shape[1]
    owner = torch.zeros(masks.shape[0], *size, dtype=torch.long, device=masks.device)
    chance = torch.zeros(masks.shape[0], *size, dtype=masks.dtype, device=masks.device)
    most = chance
    covered = []
    for start in range(0, count, AT_ONCE):
        end = min(start + AT_ONCE, count)
        sure = scores[:, start:end, None, None]
        shares = paste_masks(masks[:, start:end], boxes[:, start:end], size) * (sure > 0)
        # A claim above 1 is that of a mask with a probability of 0.5 or more.
        rank = 2 - torch.arange(start, end, device=masks.device, dtype=masks.dtype)[:, None, None] / count
        claim = torch.where(shares >= 0.5, rank, shares * (shares >= NOBODY))
        covered.append((claim > 1).flatten(2).sum(dim=2))
        claimed, which = claim.max(dim=1)
        won = claimed > most
        highest = torch.minimum(shares, sure).gather(1, which[:, None])[:, 0]
        owner = torch.where(won, which + start + 1, owner)
        chance = torch.where(won, highest, chance)
        most = torch.maximum(most, claimed)
    stays = _has_enough_left(owner, most > 1, torch.cat(covered, dim=1))
    return torch.where(stays, owner, 0), torch.where(stays, chance, 0.0)


def _has_enough_left(owner: Tensor, likely: Tensor, covered: Tensor) -> Tensor:
    """(batch, rows, columns) whether objects of higher scores leave enough of each voxel's object.

    likely:  voxels of masks with a probability of 0.5 or more; covered: (batch, n) their number for each object
    """
    flat = owner.flatten(1)
    nobody = torch.zeros_like(covered[:, :1])
    left = torch.cat([nobody, torch.zeros_like(covered)], dim=1).scatter_add(1, flat, likely.flatten(1).long())
    enough = left >= LEFT * torch.cat([nobody, covered], dim=1)
    return enough.gather(1, flat).reshape(owner.shape)


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, n, rows, columns) masks interpolated linearly over their boxes, and 0 outside."""
    rows, columns = (
        _weights(boxes[..., axis], boxes[..., axis + 2], masks.shape[-1], length)
        for axis, length in ((1, size[0]), (0, size[1]))
    )
    return rows @ masks @ columns.transpose(-1, -2)


def _weights(low: Tensor, high: Tensor, parts: int, length: int) -> Tensor:
    """(batch, n, length, parts) weight of each cell of a box at each voxel along one axis."""
    middles = torch.arange(length, device=low.device, dtype=low.dtype) + 0.5
    position = (middles - low[..., None]) / (high - low).clamp(min=1e-3)[..., None] * parts - 0.5
    part = torch.arange(parts, device=low.device, dtype=low.dtype)
    return (1 - (position[..., None] - part).abs()).clamp(min=0)


def owner_depths(owner: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, rows, columns) depths, and whether a watershed can assign a voxel to its owner.

    The depth is 0 for voxels next to another object and 1 for all others: unlike a distance it does not split objects
    with a waist. A watershed floods the insides first, and then adds to each the voxels next to it. A strip between
    other objects without an inside cannot be assigned, and is left out.
    """
    touching = _has_neighbour(owner, owner > 0, torch.ne)
    inside = (owner > 0) & ~touching
    holds = inside | (touching & _has_neighbour(owner, inside, torch.eq))
    return inside.float(), holds


def _has_neighbour(owner: Tensor, marked: Tensor, agree: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(batch, rows, columns) whether a next voxel along an axis is marked, and the two owners agree."""
    has = torch.zeros_like(marked)
    for axis in (1, 2):
        places = torch.arange(owner.shape[axis], device=owner.device)
        shape = [-1 if n == axis else 1 for n in range(3)]
        for step, edge in ((1, 0), (-1, owner.shape[axis] - 1)):  # without those from the other edge
            touching = marked.roll(step, axis) & (places != edge).reshape(shape)
            has = has | (touching & (owner > 0) & agree(owner, owner.roll(step, axis)))
    return has


MASK_RCNN = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    axes=(2,),
    otherwise="It segments objects in pictures only; unet does so in volumes",
    answers=frozenset({"objects"}),
    takes_context=("film",),
    sees_targets=True,
    has_loss=True,
    size_of=settings_for_unit,
    published=PublishedWeights(published, PUBLISHED_AT),
    features="backbone.body",
    blocks=("BasicBlock",),
)
