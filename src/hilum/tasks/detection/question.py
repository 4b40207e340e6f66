"""Detection: boxes around objects, each of a class.

A map of centres for each class, and for each voxel the length of the box whose centre lies nearby: CenterNet, Zhou et
al., arXiv:1904.07850, in two and three axes alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from hilum import errors
from hilum.belief import Certainty, certainties, covering_results
from hilum.belief.box_belief import CALLED_FROM, MAIER_HEIN
from hilum.belief.certainties import CERTAINTY, COVERING, METHODS_OF_MANY
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics, positive_percent
from hilum.evaluation.positive_percent import PositiveScore
from hilum.lazy import torch
from hilum.tasks import properties
from hilum.tasks.detection import scoring
from hilum.tasks.detection.answering import HEAD, PRIOR, RANKED
from hilum.tasks.detection.scoring import METRICS, SELECTED, BoxScoring
from hilum.tasks.shared import grid_and_length, left_right, saliency
from hilum.tasks.task import Outputs, Uncertain
from hilum.values import (
    BoundingBoxes,
    Case,
    Dataset,
    Decision,
    Dense,
    Fingerprint,
    Head,
    Label,
    Merge,
    Setting,
    SettingsGroup,
    Target,
)
from hilum.values.prediction import Boxes

if TYPE_CHECKING:
    from torch import Tensor


ZHOU = "arXiv:1904.07850"
# As nnDetection for volumes: an overlap of 0.1 is a find there, because small boxes overlap little in three axes.
NNDETECTION = "arXiv:2106.00817"
SUPPRESSION = {2: 0.5, 3: 0.2}
# Voxels that the smallest kind of box is still across on the network's grid, four to each answer of a pyramid. Chosen
# by reasoning and never varied; what it leads to is in bench/findings/kinds.md.
FINE_ENOUGH = 16
# Voxels across from which a pyramid finds more in volumes than maps of centres do: of simulated nodules, half of them
# less than 7.9 across, in 15 minutes on one core CPM .959 beside .769 (bench/findings/kinds.md). Of smaller ones
# nothing is known.
PYRAMID_IN_VOLUMES = 6.0


@dataclass(frozen=True)
class Detection(BoxScoring):
    """Boxes of one or several classes.

    classes:     names
    axes:        of the network's grid
    typical:     voxels of it that an output of 1 is long: what is learnt is then of the order of 1
    suppression: overlap from which the weaker of two boxes of a class is no other find
    threshold:   score from which on a box is called; None until validation cases have decided
    certainty:   how far scores can be believed, those from which on boxes miss little, and what makes them so
    in_voxels:   whether sizes of boxes count voxels wherever their size is known, as where it was not in training
    positive_percent: {positive: classes, among: classes} of which the percent of positive cells is stated
    """

    classes: Annotated[tuple[str, ...], Setting(target=True)]
    axes: Annotated[int, Setting(target=True)]
    typical: float
    suppression: float = SUPPRESSION[2]
    threshold: Annotated[float | None, Setting(tuned=True)] = None
    certainty: Annotated[
        Certainty, SettingsGroup((*CERTAINTY, *COVERING), {"calibration_method": {"choices": METHODS_OF_MANY}})
    ] = field(default_factory=Certainty)
    in_voxels: bool = False
    positive_percent: Annotated[PositiveScore | None, Setting(read=positive_percent.read_score)] = None
    name: ClassVar[str] = "detection"
    needs: ClassVar[frozenset[str]] = frozenset({"boxes"})
    merge: ClassVar[Merge] = "gaussian"
    selects_by: ClassVar[str] = SELECTED
    uncertainty: ClassVar[Uncertain] = "boxes"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Classes, axes and typical length for these training cases; DatasetError where none has a box."""
        training_boxes = _training_boxes(fingerprint)
        counts = Counter(name for boxes in training_boxes for name in boxes.names)
        if not counts:
            raise DatasetError(
                "the training cases have no boxes",
                str(dataset.root or dataset.name),
                "Give cases with something to find",
            )
        declared = [label.name for label in dataset.classes.get("boxes", ())] or sorted(counts)
        shares = ", ".join(f"{counts[name]} {name}" for name in declared)
        axes = grid_and_length.network_axes(fingerprint)
        physical = all(case.physical for case in fingerprint.cases)
        lengths = (
            np.concatenate([_lengths(boxes, axes) for boxes in training_boxes]) / decide_reduction(fingerprint).value
        )
        return {
            "classes": Decision(
                declared,
                f"{shares} on {errors.count_phrase(len(training_boxes), 'training image')}{_box_origin(dataset)}",
            ),
            "axes": Decision(axes, f"the images have {axes}"),
            "typical": Decision(
                round(float(np.median(lengths)), 3),
                "voxels that the network sees: the median of the sides of "
                f"{errors.count_phrase(len(lengths) // axes, 'box', 'boxes')}",
                ZHOU,
            ),
            "suppression": Decision(
                SUPPRESSION[axes], "two boxes of one class that overlap so much are one find", NNDETECTION
            ),
            "threshold": Decision(
                None, f"found on the validation cases after training; {CALLED_FROM} where their boxes are too few", ZHOU
            ),
            "in_voxels": Decision(
                not physical, f"the size of a voxel is {'' if physical else 'not '}known in training"
            ),
            "positive_percent": Decision(None, "nobody says which cells are positive, and among which they count"),
            **certainties.certainty_decisions(),
            **covering_results.risk_decisions("covering boxes may miss a tenth of those of a case on average"),
        }

    def check_and_fill(self) -> Detection:
        """The same detection; PlanError names the setting that cannot be."""
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise PlanError("at least one class is needed, each once", "task.classes", "Name each class once")
        if self.axes not in (2, 3):
            raise PlanError(f"{self.axes} axes", "task.axes", "Give 2 or 3")
        if not 0 < self.typical < float("inf"):
            raise PlanError(f"a side of {self.typical} voxels", "task.typical", "Give a length above 0")
        if self.positive_percent is not None:
            named = (*self.positive_percent.positive, *self.positive_percent.among)
            if unknown := [name for name in named if name not in self.classes]:
                remedy = f"Choose from {', '.join(self.classes)}"
                raise PlanError(f"there is no class {unknown[0]!r}", "task.positive_percent", remedy)
        for name, share in (("suppression", self.suppression), ("threshold", self.threshold)):
            if share is not None and not 0 < share <= 1:
                raise PlanError(f"{share} is not in (0, 1]", f"task.{name}", "Give a share")
        return self

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head: a map of centres for each class, then lengths and offsets along each axis."""
        count = len(self.classes) + 2 * self.axes
        return {HEAD: Dense(count, lengths=self.axes, offsets=self.axes, unit=self.typical)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, numbered from 1."""
        return tuple(Label(value, name) for value, name in enumerate(self.classes, start=1))

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """The class that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order = left_right.counterpart_places(self.classes)
        channels = len(self.classes) + 2 * self.axes
        return None if order is None else (*order, *range(len(order), channels))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The network for boxes of this size, the reduction of images, and average precision to select and judge."""
        selection = "average precision of the validation cases, the mean of that at IoU 0.1 and at 0.5"
        because = "every score enters, without a threshold; a box that overlaps this much is found"
        return {
            **decide_box_network(fingerprint),
            "preprocessing.reduction": decide_reduction(fingerprint),
            "training.selection": Decision(SELECTED, selection),
            "evaluation.primary": Decision(self.primary, because, MAIER_HEIN),
        }

    def target(self, case: Case) -> Target:
        """The boxes with numbers for classes; of class -2, once for each place, what is to be ignored.

        Raises DatasetError for a class that was not trained, and for boxes on other axes than the image's.
        """
        boxes = self._reference(case)
        image = properties.first_image(case)
        if boxes.axes != image.geometry.ndim:
            problem = f"boxes of {boxes.axes} axes on an image of {image.geometry.ndim}"
            raise DatasetError(problem, case.id, "Give boxes on every axis of the image")
        counted = boxes.at(~boxes.ignored)
        unknown_places = np.unique(boxes.corners[boxes.ignored], axis=0)
        kinds = [self.classes.index(name) for name in counted.names] + [-2] * len(unknown_places)
        corners = np.concatenate([counted.corners, unknown_places])
        data = np.concatenate([np.array(kinds, float).reshape(-1, 1), corners], axis=1)
        return Target(Boxes(len(self.classes)), data)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The focal loss of the centres, and the overlap of the boxes; target: (batch, n, 1 + 2 * axes)."""
        return centre_loss(outputs[HEAD].float(), target, len(self.classes), self.typical)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, overlaps, classes, BINS) true and false boxes by score, and (batch, classes) references."""
        counts = [
            scoring.counts_by_score(self.decoder, one.cpu().numpy(), boxes.cpu().numpy())
            for one, boxes in zip(outputs[HEAD].float(), target, strict=True)
        ]
        right, wrong, total = (torch.from_numpy(np.stack(one)) for one in zip(*counts, strict=True))
        return {"right": right, "wrong": wrong, "total": total}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Average precision without interpolation, mean of the overlaps and of the classes that are there."""
        return scoring.box_selection_score({name: one.cpu().numpy() for name, one in collected.items()})

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the logit of a centre: of the box of a rank, the surest of a class, or the surest of all."""
        logits = outputs[HEAD][:, : len(self.classes)]
        if target in self.classes:
            return logits[:, self.classes.index(target)].flatten(1).amax(dim=1)
        return saliency.peak_logit(logits, 1 if target is None else saliency.place_of_target(target, RANKED) + 1)


def decide_reduction(fingerprint: Fingerprint) -> Decision:
    """The factor by which images are finer than the smallest kind of box needs."""
    kind = smallest_kind(fingerprint)
    if kind is None:
        return Decision(1.0, "the training cases have no boxes")
    smallest, across = kind
    words = f"half of the boxes of {smallest} are less than {across:.3g} voxels across"
    return replace(grid_and_length.decide_coarser_grid(fingerprint, across, FINE_ENOUGH, words), source=ZHOU)


def smallest_kind(fingerprint: Fingerprint) -> tuple[str, float] | None:
    """The class whose boxes are shortest, and the median of their shortest sides in voxels; None without a box."""
    lengths = _training_boxes(fingerprint)
    axes = grid_and_length.network_axes(fingerprint)
    kinds = {name for boxes in lengths for name in boxes.names}
    least = {name: _across([boxes.of_class(name) for boxes in lengths], axes) for name in sorted(kinds)}
    return min(least.items(), key=lambda item: item[1], default=None)


def decide_box_network(fingerprint: Fingerprint) -> dict[str, Decision]:
    """A pyramid where its coarser answers are fine enough, in pictures at the rate at which it was tried."""
    smallest = smallest_kind(fingerprint)
    if (
        grid_and_length.network_axes(fingerprint) == 2
        and smallest is not None
        and decide_reduction(fingerprint).value > 1
    ):
        because = (
            f"half of the boxes of {smallest[0]} are {smallest[1]:.3g} voxels across or more: a network that answers "
            "for every fourth voxel tells them apart, in a fraction of the time"
        )
        return {
            "network.name": Decision("pyramid", because, "arXiv:1612.03144"),
            "training.learning_rate": Decision(2e-3, "the rate of a trial on blood smears; no other was tried"),
        }
    if grid_and_length.network_axes(fingerprint) == 3 and smallest is not None and smallest[1] >= PYRAMID_IN_VOLUMES:
        because = (
            f"half of the boxes of {smallest[0]} are {smallest[1]:.3g} voxels across or more: of simulated nodules of "
            "such a size it finds more than maps of centres do, in as many minutes"
        )
        return {"network.name": Decision("pyramid", because, "bench/findings/kinds.md")}
    return {"network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597")}


def _box_origin(dataset: Dataset) -> str:
    """The origin of the boxes in words, where no file has them."""
    return f"; {dataset.derived['boxes']}" if "boxes" in dataset.derived else ""


def _training_boxes(fingerprint: Fingerprint) -> list[BoundingBoxes]:
    """The boxes of each training case that has a reference, without those to be ignored."""
    references = [case.references["boxes"] for case in fingerprint.cases if "boxes" in case.references]
    return [boxes.at(~boxes.ignored) for boxes in references]


def _across(boxes: Sequence[BoundingBoxes], axes: int) -> float:
    """The median of the shortest sides, in voxels."""
    return float(np.median(np.concatenate([_lengths(one, axes).reshape(-1, axes).min(axis=1) for one in boxes])))


def _lengths(boxes: BoundingBoxes, axes: int) -> np.ndarray:
    """(n * axes,) sides, without those along an axis of a single slice."""
    lengths = boxes.lengths
    if boxes.axes > axes:
        lengths = np.sort(lengths, axis=1)[:, boxes.axes - axes :]
    return np.ravel(lengths)


# Targets and loss of detection: a map of centres for each class, and at each centre the lengths of the box.
#
# Zhou et al., arXiv:1904.07850. Maps are of Gaussians as wide as the box is long on each axis, and lengths are learnt
# all over them: Liu et al., AAAI 2020, arXiv:1909.00700, which takes a tenth of the steps. How far a box is off is
# measured by how little it shares with the true one, and every box counts alike: a loss in voxels would hardly notice
# that small boxes are badly placed.

# TTFNet's share of a box that its Gaussian covers, at three standard deviations on either side.
COVERED = 0.54
DEVIATIONS = 6
# With a smaller one a voxel next to a centre would weigh as little as all others.
NARROWEST = 1 / 3
# CornerNet's focal loss, arXiv:1808.01244: how fast what is easy, and what lies near a centre, counts less.
FOCUS = 2
NEARNESS = 4
# A voxel from which on lengths are learnt, as a share of the centre's weight.
LEAST_WEIGHT = 0.05
# The weights of boxes in the loss: what they do not share, and sides, whose gradient helps where nothing is shared.
# TTFNet has 5 for the first; gradients are clipped as a whole here, and then the classes are learnt too late.
OVERLAP_WEIGHT = 1.0
SIDES_WEIGHT = 0.2
# From here on, as a share of the true side, the loss of a side grows linearly.
BEND = 0.1
# Voxels of the shortest side that a box is taken for while it is learnt.
SHORTEST = 1e-2
# Voxels times boxes that are rendered at once.
AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class BoxTarget:
    """The target of one image.

    heat:    (classes, *spatial) 1 in the voxel of a centre, falling to 0
    weight:  (*spatial) of the Gaussian that is highest there, of whatever class
    share:   (*spatial) of it where lengths are learnt, 1 for each box taken together
    lengths: (axes, *spatial) of the box whose Gaussian that is, in voxels
    offsets: (axes, *spatial) from the middle of the voxel to the box's centre, in voxels
    """

    heat: Tensor
    weight: Tensor
    share: Tensor
    lengths: Tensor
    offsets: Tensor


def box_target(boxes: Tensor, classes: int, spatial: tuple[int, ...]) -> BoxTarget:
    """(n, 1 + 2 * axes) class, low and high edges in voxels; of class -1, or with its centre outside, none."""
    axes = len(spatial)
    low, high = boxes[:, 1 : 1 + axes], boxes[:, 1 + axes :]
    centre = (low + high) / 2
    length = high - low
    size = low.new_tensor(spatial)
    inside = (boxes[:, 0] >= 0) & ((centre >= 0) & (centre < size)).all(dim=1) & (length > 0).all(dim=1)
    kinds = boxes[inside, 0].long()
    centre = centre[inside]
    length = length[inside]
    heat = low.new_zeros((classes, *spatial))
    weight = low.new_zeros(spatial)
    owner = torch.zeros(spatial, dtype=torch.long, device=boxes.device)
    middle = centre.floor() + 0.5
    spread = (COVERED * length / DEVIATIONS).clamp(min=NARROWEST)
    for first in range(0, len(kinds), step := max(1, AT_ONCE // weight.numel())):
        part = slice(first, first + step)
        hills = _gaussians(middle[part], spread[part], spatial)
        for kind in kinds[part].unique().tolist():
            heat[kind] = torch.maximum(heat[kind], hills[kinds[part] == kind].amax(dim=0))
        most, which = hills.max(dim=0)
        owner = torch.where(most > weight, which + first, owner)
        weight = torch.maximum(weight, most)
    if not len(kinds):
        return BoxTarget(heat, weight, weight, weight.expand(axes, *spatial), weight.expand(axes, *spatial))
    share = torch.where(weight >= LEAST_WEIGHT, weight, 0.0)
    totals = share.new_zeros(len(kinds)).index_add_(0, owner.flatten(), share.flatten())
    lengths = length[owner].movedim(-1, 0)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n, device=boxes.device) for n in spatial), indexing="ij"))
    share = share / totals.clamp(min=LEAST_WEIGHT)[owner]
    return BoxTarget(heat, weight, share, lengths, centre[owner].movedim(-1, 0) - (voxels + 0.5))


def centre_loss(outputs: Tensor, boxes: Tensor, classes: int, typical: float) -> Tensor:
    """A number to lower: the focal loss of the centres, and how little the boxes share with the true ones.

    outputs: (batch, classes + 2 * axes, *spatial)
    boxes:   (batch, n, 1 + 2 * axes), see `box_target`; of class -2, what is to be ignored
    typical: voxels that an output of 1 is long
    """
    spatial = tuple(outputs.shape[2:])
    truth = [box_target(one, classes, spatial) for one in boxes]
    heat, share = (torch.stack([getattr(one, name) for one in truth]) for name in ("heat", "share"))
    logits = outputs[:, :classes] + PRIOR
    learnt = share > 0
    predicted, true = (
        one.movedim(1, -1)[learnt]
        for one in (outputs[:, classes:] * typical, torch.stack([torch.cat([m.lengths, m.offsets]) for m in truth]))
    )
    apart = OVERLAP_WEIGHT * giou_loss(predicted, true) + SIDES_WEIGHT * relative_box_errors(predicted, true)
    unknown = torch.stack([ignored_voxels(one, spatial) for one in boxes])[:, None]
    return centre_focal_loss(logits, heat, unknown) + (apart * share[learnt]).sum() / share.sum().clamp(min=1.0)


def ignored_voxels(boxes: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """(*spatial) whether a voxel lies in a region to be ignored, of class -2, and in no box."""
    axes = len(spatial)
    unknown = torch.zeros(spatial, dtype=torch.bool, device=boxes.device)
    if not bool((boxes[:, 0] == -2).any()):
        return unknown
    regions = [row for row in boxes.tolist() if row[0] == -2]
    known = [row for row in boxes.tolist() if row[0] >= 0]
    for kind, *edges in (*regions, *known):
        first, last = ([max(0, math.ceil(edge - 0.5)) for edge in ends] for ends in (edges[:axes], edges[axes:]))
        unknown[tuple(map(slice, first, last))] = kind == -2
    return unknown


def giou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """(n,) 1 less the generalised intersection over union of boxes about one place: 0 to 2.

    boxes, others: (n, 2 * axes) lengths, then offsets of the centres from that place
    Rezatofighi et al., CVPR 2019, arXiv:1902.09630
    """
    (low, high), (other_low, other_high) = (_edges(one) for one in (boxes, others))
    both = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(dim=1)
    around = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).prod(dim=1)
    either = (high - low).prod(dim=1) + (other_high - other_low).prod(dim=1) - both
    return 1 - both / either + (around - either) / around


def relative_box_errors(boxes: Tensor, others: Tensor) -> Tensor:
    """(n,) how far lengths and offsets are off, as shares of the true lengths; boxes, others: see `giou_loss`."""
    axes = boxes.shape[1] // 2
    sides = others[:, :axes].repeat(1, 2)
    apart = torch.nn.functional.smooth_l1_loss(boxes / sides, others / sides, reduction="none", beta=BEND)
    return apart.sum(dim=1)


def _edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
    lengths, offsets = boxes.chunk(2, dim=1)
    half = lengths.clamp(min=SHORTEST) / 2
    return offsets - half, offsets + half


def centre_focal_loss(logits: Tensor, heat: Tensor, unknown: Tensor) -> Tensor:
    """CornerNet's focal loss, arXiv:1808.01244, for each centre: voxels near one count less where they are called.

    unknown: (batch, 1, *spatial) where a voxel without a centre is neither right nor wrong
    """
    chance = logits.sigmoid()
    centres = heat == 1
    yes = (1 - chance) ** FOCUS * torch.nn.functional.logsigmoid(logits)
    no = (1 - heat) ** NEARNESS * chance**FOCUS * torch.nn.functional.logsigmoid(-logits)
    no = no.masked_fill(unknown, 0.0)
    return -torch.where(centres, yes, no).sum() / centres.sum().clamp(min=1)


def _gaussians(centre: Tensor, spread: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """(n, *spatial) of (n, axes) centres and standard deviations in voxels: 1 at the centre."""
    hills = centre.new_ones((len(centre), *[1] * len(spatial)))
    for axis, size in enumerate(spatial):
        places = torch.arange(size, device=centre.device) + 0.5
        along = torch.exp(-(((places - centre[:, axis, None]) / spread[:, axis, None]) ** 2) / 2)
        hills = hills * along.reshape(len(centre), *[size if one == axis else 1 for one in range(len(spatial))])
    return hills
