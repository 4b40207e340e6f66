"""YOLOX: boxes from several grids, defined by its loss (Ge et al., arXiv:2107.08430).

Which answers account for which box is found anew at every step, by those that come closest to it. This file needs
torch, and `pyramid`, so that copies travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, one_hot

from isocenter.networks.family import Family
from isocenter.networks.pyramid import ADDED, CONVOLUTION, LINEAR, Features, Unit, along_axes, classes_of, size_for

# YOLOX, section 2.1 and its code: answers within so many of their own voxels of a box's centre may speak of it, as many
# as the best so many overlap it together; how much the overlap says about which; and what it weighs in the loss.
REACH, MOST_ANSWERS, OVERLAP_COST, OVERLAP_WEIGHT = 2.5, 10, 3.0, 5.0
# A fresh network calls one voxel in a hundred: arXiv:1708.02002, section 3.3.
RARE = -math.log(99.0)
# What an answer costs that lies inside of a box but far from its centre, or the other way round: taken where there is
# no other.
FAR = 1e5
# Longer than e to this nothing is taken for, so that a fresh network gives numbers.
LONGEST = 6.0
SMALL = 1e-6


class Answers(NamedTuple):
    """What is said at n places of a batch's images.

    logits:  (batch, n, 1 + classes) that there is anything, and of which class
    centres: (batch, n, axes) of the box that is spoken of, in voxels of the image
    lengths: (batch, n, axes)
    places:  (n, axes) middle of the voxel that speaks
    steps:   (n, axes) how long that is
    """

    logits: Tensor
    centres: Tensor
    lengths: Tensor
    places: Tensor
    steps: Tensor

    @classmethod
    def of(cls, outputs: Sequence[Tensor], steps: Sequence[Sequence[int]], unit: float) -> Answers:
        """outputs: of each level, see `Yolox`; unit: voxels that a length or offset of 1 is long"""
        levels = [cls._of_level(one, one.new_tensor(step), unit) for one, step in zip(outputs, steps, strict=True)]
        return cls(*(torch.cat(part, dim=-2) for part in zip(*levels, strict=True)))

    @classmethod
    def _of_level(cls, output: Tensor, step: Tensor, unit: float) -> Answers:
        ndim, flat = output.ndim - 2, output.flatten(2).movedim(1, 2)
        axes = [torch.arange(n, device=output.device, dtype=output.dtype) + 0.5 for n in output.shape[2:]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2) * step
        logits, lengths, offsets = flat.split([flat.shape[-1] - 2 * ndim, ndim, ndim], dim=-1)
        return cls(logits, places + offsets * unit, lengths * unit, places, step.expand_as(places))

    def of_image(self, number: int) -> Answers:
        """Those of one image, without the batch."""
        return self._replace(logits=self.logits[number], centres=self.centres[number], lengths=self.lengths[number])


class Yolox(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}; it owns its loss.

    Of several levels each says whether there is anything, of which class, and the box: in training as `head/level`,
    (batch, 1 + classes + 2 * axes, *coarse), logits, lengths, offsets. Afterwards they become one map on the image's
    grid: at each voxel the answer of the level that is surest there. Of the paper's network the second way through the
    pyramid is left out, and the stages are residual ones.

    head:   convolutions of each branch of the head
    levels: how many, each half as fine as the one before
    size:   the other settings, those of `Features`
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        head: int = 2,
        levels: int = 3,
        **size: Any,
    ) -> None:
        super().__init__()
        ndim, classes = spatial_dims, classes_of(dense, spatial_dims)
        if len(classes) != 1:
            raise ValueError(f"one head of boxes is answered, not {len(classes)}")
        self.body = Features(channels, ndim, levels=levels, **size)
        inside = self.body.inside
        [(self.name, self.classes)], self.ndim = classes.items(), ndim
        last, count = CONVOLUTION[ndim], len(self.body.steps)
        branches = [
            nn.ModuleList(nn.Sequential(*(Unit(ndim, inside, inside) for _ in range(head))) for _ in range(count))
            for _ in range(2)
        ]
        self.kinds, self.places = branches
        self.of_kinds = nn.ModuleList(last(inside, self.classes, 1) for _ in range(count))
        # Whether there is anything is told by the branch that knows where, as in the paper.
        self.of_places = nn.ModuleList(last(inside, 1 + 2 * ndim, 1) for _ in range(count))
        for layer in (*self.of_kinds, *self.of_places):
            nn.init.zeros_(layer.bias)
            layer.bias.data[: self.classes if layer.out_channels == self.classes else 1] = RARE
        middle = self.body.steps[count // 2]
        # A level is for boxes as long as its voxels are beside those of the middle one.
        self.scales = [[own / other for own, other in zip(one, middle, strict=True)] for one in self.body.steps]

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        raw = [self._level(number, features) for number, features in enumerate(self.body(images))]
        if self.training:
            return {f"{self.name}/{number}": one for number, one in enumerate(raw)}
        return {self.name: self._one_map(raw, images.shape[2:])}

    def loss(self, outputs: Mapping[str, Tensor], boxes: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """A number to lower, for each answer that is to speak of a box: overlap, class, and whether there is anything.

        outputs: of `forward` in training
        boxes:   (batch, n, 1 + 2 * axes) class, low and high edges in voxels; of class -1 none
        heads:   what the network was asked for; `unit` says how many voxels a length of 1 is long
        """
        raw = [outputs[f"{self.name}/{level}"] for level in range(len(self.body.steps))]
        said = Answers.of(raw, self.body.steps, heads[self.name].unit)
        losses, count = [], 0
        for number, truth in enumerate(boxes):
            own = truth[(truth[:, 0] >= 0) & (truth[:, 1 + self.ndim :] > truth[:, 1 : 1 + self.ndim]).all(dim=1)]
            mine = said.of_image(number)
            chosen, which = assigned(mine, own)
            losses.append(_of_image(mine, own, chosen, which))
            count += len(chosen)
        return torch.stack(losses).sum() / max(1, count)

    def _level(self, number: int, features: Tensor) -> Tensor:
        """(batch, 1 + classes + 2 * axes, *coarse), in float32: in fewer bits a sure answer has no logit."""
        kind = self.of_kinds[number](self.kinds[number](features)).float()
        found = self.of_places[number](self.places[number](features)).float()
        anything, lengths, offsets = found.split([1, self.ndim, self.ndim], dim=1)
        scale = along_axes(found.new_tensor(self.scales[number]), found)
        return torch.cat([anything, kind, lengths.clamp(max=LONGEST).exp() * scale, offsets * scale], dim=1)

    def _one_map(self, raw: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """(batch, classes + 2 * axes, *size)"""
        best = self._on_grid(raw[0], size)
        for one in raw[1:]:
            here = self._on_grid(one, size)
            own, other = (each[:, : self.classes].amax(dim=1, keepdim=True) for each in (here, best))
            best = torch.where(own > other, here, best)
        return best

    def _on_grid(self, raw: Tensor, size: Sequence[int]) -> Tensor:
        anything, kinds, places = raw.split([1, self.classes, 2 * self.ndim], dim=1)
        sure = torch.logit(anything.sigmoid() * kinds.sigmoid(), eps=SMALL) - ADDED
        whole = torch.cat([sure, places], dim=1)
        return interpolate(whole, size=size, mode=LINEAR[self.ndim], align_corners=False)


@torch.no_grad()
def assigned(said: Answers, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Which answers of one image are to speak of a box, and of which: (k,) numbers of places, (k,) of boxes.

    SimOTA: of the answers near a box those that cost the least, in class and overlap; so many as overlap it well.
    said: of one image, without the batch; boxes: (m, 1 + 2 * axes)
    Ge et al., arXiv:2107.08430, section 2.1
    """
    nothing = torch.zeros(0, dtype=torch.long, device=boxes.device)
    if not len(boxes):
        return nothing, nothing
    low, high = boxes[:, None, 1:].chunk(2, dim=-1)
    inside = ((said.places > low) & (said.places < high)).all(dim=-1)
    near = ((said.places - (low + high) / 2).abs() < REACH * said.steps).all(dim=-1)
    open_to = torch.nonzero((inside | near).any(dim=0))[:, 0]
    if not len(open_to):
        return nothing, nothing
    overlap = _overlaps(_edges(said.centres[open_to], said.lengths[open_to]), boxes[:, 1:])
    chance = (said.logits[open_to, 1:].sigmoid() * said.logits[open_to, :1].sigmoid()).sqrt()
    right = chance[:, boxes[:, 0].long()].T.clamp(min=SMALL)
    # Cross-entropy of all classes: the right one is not called, and the others are.
    others = torch.log1p(-chance.clamp(max=1 - SMALL)).sum(dim=1)
    kind = -right.log() - others + torch.log1p(-right.clamp(max=1 - SMALL))
    cost = kind - OVERLAP_COST * (overlap + SMALL).log() + FAR * ~(inside & near)[:, open_to]
    best = overlap.topk(min(MOST_ANSWERS, len(open_to)), dim=1).values
    wanted = best.sum(dim=1).long().clamp(min=1)
    rank = cost.argsort(dim=1).argsort(dim=1)
    taken = (rank < wanted[:, None]) & (inside | near)[:, open_to]
    # An answer that several boxes want speaks of the one to which it costs least.
    least = torch.where(taken, cost, math.inf).argmin(dim=0)
    several = taken.sum(dim=0) > 1
    taken = torch.where(several, torch.arange(len(boxes), device=boxes.device)[:, None] == least, taken)
    which, places = torch.nonzero(taken, as_tuple=True)
    return open_to[places], which


def _of_image(said: Answers, boxes: Tensor, chosen: Tensor, which: Tensor) -> Tensor:
    """The loss of one image, of all its answers together."""
    anything = torch.zeros_like(said.logits[:, 0])
    anything[chosen] = 1.0
    loss = binary_cross_entropy_with_logits(said.logits[:, 0], anything, reduction="sum")
    if not len(chosen):
        return loss
    true, classes = boxes[which], said.logits.shape[1] - 1
    overlap = _overlap(_edges(said.centres[chosen], said.lengths[chosen]), true[:, 1:])
    # How sure a class is told is to be how well its box lies.
    kinds = one_hot(true[:, 0].long(), classes) * overlap.detach()[:, None]
    loss = loss + binary_cross_entropy_with_logits(said.logits[chosen, 1:], kinds, reduction="sum")
    return loss + OVERLAP_WEIGHT * (1 - overlap**2).sum()


def _edges(centres: Tensor, lengths: Tensor) -> Tensor:
    """(..., 2 * axes) where boxes begin on every axis, and where they end."""
    return torch.cat([centres - lengths / 2, centres + lengths / 2], dim=-1)


def _overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """(others, boxes) intersection over union of each with each; (n, 2 * axes) edges."""
    return _overlap(boxes[None], others[:, None])


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    (low, high), (other_low, other_high) = boxes.chunk(2, dim=-1), others.chunk(2, dim=-1)
    both = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(dim=-1)
    either = (high - low).prod(dim=-1) + (other_high - other_low).prod(dim=-1) - both
    return both / either.clamp(min=SMALL)


def size_for_yolox(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a pyramid; its three levels are a fourth, an eighth and a sixteenth as fine as the image."""
    size, because, _ = size_for(patch, strides, device)
    return size, because.replace("answers a fourth as fine", "answers from a fourth as fine on"), YOLOX.paper


YOLOX = Family(
    Yolox,
    size_for_yolox,
    "arXiv:2107.08430",
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    answers=frozenset({"boxes"}),
    has_loss=True,
)
