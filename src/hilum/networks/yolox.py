"""YOLOX: anchor-free boxes on several grids, with its own loss. Ge et al., arXiv:2107.08430.

At every step SimOTA assigns predictions to boxes by their cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, one_hot

from hilum.networks import common_layers, context_fusion, pyramid
from hilum.networks.common_layers import CONVOLUTION, LINEAR
from hilum.networks.network_family import Family, Sized, Strides
from hilum.networks.pyramid import ADDED, PyramidFeatures

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

# YOLOX, section 2.1 and its code: radius about a box's centre, in voxels of a level, of its candidates; how many of
# their overlaps are summed to the number of assigned predictions; weights of the overlap in the cost and in the loss.
REACH = 2.5
CANDIDATES = 10
OVERLAP_COST = 3.0
OVERLAP_WEIGHT = 5.0
# An untrained network calls one voxel in a hundred: arXiv:1708.02002, section 3.3.
RARE = -math.log(99.0)
# Cost of a prediction that is in a box but far from its centre, or near its centre but outside: only used where there
# is no other.
FAR = 1e5
# Largest logarithm of a length, so that an untrained network gives finite numbers.
LONGEST = 6.0
SMALL = 1e-6


class Predictions(NamedTuple):
    """Predicted boxes at n cells of a batch's images.

    logits:  (batch, n, 1 + classes) of any object, and of each class
    centres: (batch, n, axes) of the box, in voxels of the image
    lengths: (batch, n, axes) of the box
    places:  (n, axes) centre of the cell
    steps:   (n, axes) lengths of the cell
    """

    logits: Tensor
    centres: Tensor
    lengths: Tensor
    places: Tensor
    steps: Tensor

    @classmethod
    def from_levels(cls, outputs: Sequence[Tensor], steps: Sequence[Sequence[int]], unit: float) -> Predictions:
        """The outputs of each level, as `Yolox` has them; unit: voxels of a length or offset of 1."""
        levels = [cls._of_level(maps, maps.new_tensor(step), unit) for maps, step in zip(outputs, steps, strict=True)]
        return cls(*(torch.cat(part, dim=-2) for part in zip(*levels, strict=True)))

    @classmethod
    def _of_level(cls, output: Tensor, step: Tensor, unit: float) -> Predictions:
        ndim = output.ndim - 2
        flat = output.flatten(2).movedim(1, 2)
        axes = [torch.arange(n, device=output.device, dtype=output.dtype) + 0.5 for n in output.shape[2:]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2) * step
        logits, lengths, offsets = flat.split([flat.shape[-1] - 2 * ndim, ndim, ndim], dim=-1)
        return cls(logits, places + offsets * unit, lengths * unit, places, step.expand_as(places))

    def of_image(self, number: int) -> Predictions:
        """The predictions of one image, without the batch."""
        return self._replace(logits=self.logits[number], centres=self.centres[number], lengths=self.lengths[number])


class Yolox(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}, with its own loss.

    Each level predicts an object, its class and its box: in training as `head/level`, (batch, 1 + classes + 2 * axes,
    *coarse), logits, lengths, offsets. In prediction they become one map on the image's grid: at each voxel the level
    with the largest logit. Different from the paper: no bottom-up pathway of the pyramid, and residual stages.

    head:    convolutions of each branch of the head
    levels:  their number, each at half the resolution of the one before
    context: number of covariates, which scale and shift the maps of each level; fusion: settings of `ContextFusion`
    size:    the other settings, those of `PyramidFeatures`
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        head: int = 2,
        levels: int = 3,
        context: int = 0,
        fusion: FusionSettings | None = None,
        **size: Any,
    ) -> None:
        super().__init__()
        self.ndim = ndim = spatial_dims
        self.name, self.classes = pyramid.single_box_head(dense, ndim)
        self.body = PyramidFeatures(channels, ndim, levels=levels, **size)
        inside = self.body.inside
        steps = self.body.steps
        last = CONVOLUTION[ndim]
        branches = [
            nn.ModuleList(
                nn.Sequential(*(common_layers.normed_convolution(ndim, inside, inside, 3) for _ in range(head)))
                for _ in steps
            )
            for _ in range(2)
        ]
        self.kinds, self.places = branches
        self.of_kinds = nn.ModuleList(last(inside, self.classes, 1) for _ in steps)
        # The branch for the box also predicts whether there is an object, as in the paper.
        self.of_places = nn.ModuleList(last(inside, 1 + 2 * ndim, 1) for _ in steps)
        for layer in (*self.of_kinds, *self.of_places):
            nn.init.zeros_(layer.bias)
            layer.bias.data[: self.classes if layer.out_channels == self.classes else 1] = RARE
        self.telling = context_fusion.pyramid_fusion(len(steps), inside, context, fusion)
        middle = steps[len(steps) // 2]
        # Lengths of a level are in multiples of its voxels, relative to those of the middle level.
        self.scales = [[own / other for own, other in zip(step, middle, strict=True)] for step in steps]

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; context: (batch, covariates)."""
        features = self.telling.modulate_levels(self.body(images), self.telling(context))
        raw = [self._level(number, maps) for number, maps in enumerate(features)]
        if self.training:
            levels = {f"{self.name}/{number}": maps for number, maps in enumerate(raw)}
            return {**levels, **self.telling.penalties(images)}
        on_grid = (self._on_grid(maps, images.shape[2:]) for maps in raw)
        return {self.name: pyramid.most_confident_map(on_grid, self.classes)}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """The loss of overlap, class and object, for each assigned prediction.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 2 * axes) class, low and high edges in voxels; class -1 is padding, -2 to be ignored
        heads:   of the network, by name; `unit` is the voxels of a length of 1
        """
        raw = [outputs[f"{self.name}/{level}"] for level in range(len(self.body.steps))]
        predictions = Predictions.from_levels(raw, self.body.steps, heads[self.name].unit)
        losses = []
        count = 0
        for number, truth in enumerate(boxes):
            boxes_of_image = truth[
                (truth[:, 0] >= 0) & (truth[:, 1 + self.ndim :] > truth[:, 1 : 1 + self.ndim]).all(dim=1)
            ]
            of_image = predictions.of_image(number)
            chosen, which = assign_boxes(of_image, boxes_of_image)
            unknown = pyramid.in_ignored_regions(of_image.places, truth)
            losses.append(_image_loss(of_image, boxes_of_image, chosen, which, unknown))
            count += len(chosen)
        return torch.stack(losses).sum() / max(1, count)

    def _level(self, number: int, features: Tensor) -> Tensor:
        """(batch, 1 + classes + 2 * axes, *coarse), in float32, as half precision has no extreme logits."""
        kind = self.of_kinds[number](self.kinds[number](features)).float()
        extent = self.of_places[number](self.places[number](features)).float()
        anything, lengths, offsets = extent.split([1, self.ndim, self.ndim], dim=1)
        scale = pyramid.broadcast_to_channels(extent.new_tensor(self.scales[number]), extent)
        return torch.cat([anything, kind, lengths.clamp(max=LONGEST).exp() * scale, offsets * scale], dim=1)

    def _on_grid(self, raw: Tensor, size: Sequence[int]) -> Tensor:
        anything, kinds, places = raw.split([1, self.classes, 2 * self.ndim], dim=1)
        sure = torch.logit(anything.sigmoid() * kinds.sigmoid(), eps=SMALL) - ADDED
        outputs = torch.cat([sure, places], dim=1)
        return interpolate(outputs, size=size, mode=LINEAR[self.ndim], align_corners=False)


@torch.no_grad()
def assign_boxes(predictions: Predictions, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """SimOTA: the predictions of one image that are assigned to a box, (k,) indices, and their boxes, (k,) indices.

    Of the predictions near a box those of least cost, in class and overlap; as many as the sum of the best overlaps.
    predictions: of one image, without the batch; boxes: (m, 1 + 2 * axes)
    Ge et al., arXiv:2107.08430, section 2.1
    """
    nothing = torch.zeros(0, dtype=torch.long, device=boxes.device)
    if not len(boxes):
        return nothing, nothing
    low, high = boxes[:, None, 1:].chunk(2, dim=-1)
    inside = ((predictions.places > low) & (predictions.places < high)).all(dim=-1)
    near = ((predictions.places - (low + high) / 2).abs() < REACH * predictions.steps).all(dim=-1)
    open_to = torch.nonzero((inside | near).any(dim=0))[:, 0]
    if not len(open_to):
        return nothing, nothing
    predicted = _edges(predictions.centres[open_to], predictions.lengths[open_to])
    overlap = _overlap(predicted[None], boxes[:, None, 1:])  # (boxes, predictions)
    logits = predictions.logits[open_to]
    chance = (logits[:, 1:].sigmoid() * logits[:, :1].sigmoid()).sqrt()
    right = chance[:, boxes[:, 0].long()].T.clamp(min=SMALL)
    # Cross-entropy of all classes.
    others = torch.log1p(-chance.clamp(max=1 - SMALL)).sum(dim=1)
    kind = -right.log() - others + torch.log1p(-right.clamp(max=1 - SMALL))
    cost = kind - OVERLAP_COST * (overlap + SMALL).log() + FAR * ~(inside & near)[:, open_to]
    best = overlap.topk(min(CANDIDATES, len(open_to)), dim=1).values
    counts = best.sum(dim=1).long().clamp(min=1)
    rank = cost.argsort(dim=1).argsort(dim=1)
    taken = (rank < counts[:, None]) & (inside | near)[:, open_to]
    # A prediction that several boxes could have goes to the one of the least cost.
    least = torch.where(taken, cost, math.inf).argmin(dim=0)
    several = taken.sum(dim=0) > 1
    taken = torch.where(several, torch.arange(len(boxes), device=boxes.device)[:, None] == least, taken)
    which, places = torch.nonzero(taken, as_tuple=True)
    return open_to[places], which


def _image_loss(predictions: Predictions, boxes: Tensor, chosen: Tensor, which: Tensor, unknown: Tensor) -> Tensor:
    """The loss of one image, summed over its predictions.

    unknown: (predictions,) whether each, where no box is assigned to it, is neither right nor wrong
    """
    logits = predictions.logits
    anything = torch.zeros_like(logits[:, 0])
    anything[chosen] = 1.0
    counts = (~unknown).to(logits.dtype)
    counts[chosen] = 1.0
    loss = binary_cross_entropy_with_logits(logits[:, 0], anything, counts, reduction="sum")
    if not len(chosen):
        return loss
    true = boxes[which]
    classes = logits.shape[1] - 1
    overlap = _overlap(_edges(predictions.centres[chosen], predictions.lengths[chosen]), true[:, 1:])
    # The target of a class's probability is the overlap of its box.
    kinds = one_hot(true[:, 0].long(), classes) * overlap.detach()[:, None]
    loss = loss + binary_cross_entropy_with_logits(logits[chosen, 1:], kinds, reduction="sum")
    return loss + OVERLAP_WEIGHT * (1 - overlap**2).sum()


def _edges(centres: Tensor, lengths: Tensor) -> Tensor:
    """(..., 2 * axes) low edges of boxes on every axis, then high edges."""
    return torch.cat([centres - lengths / 2, centres + lengths / 2], dim=-1)


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    low, high = boxes.chunk(2, dim=-1)
    other_low, other_high = others.chunk(2, dim=-1)
    both = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(dim=-1)
    either = (high - low).prod(dim=-1) + (other_high - other_low).prod(dim=-1) - both
    return both / either.clamp(min=SMALL)


def size_for_yolox(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a pyramid with three levels from a quarter of the image's resolution on."""
    size, because, _ = pyramid.size_for(patch, strides, device)
    return size, because.replace("outputs at a quarter", "outputs from a quarter"), YOLOX.paper


YOLOX = Family(
    Yolox,
    size_for_yolox,
    "arXiv:2107.08430",
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    answers=frozenset({"boxes"}),
    takes_context=("film",),
    has_loss=True,
    features="body",
    blocks=("PyramidBlock",),
)
