"""Losses of label maps: terms that are summed, over (batch, channels, *spatial) logits of any number of axes.

Terms of overlap, of shape and of calibration take the mean over labels; a label without a voxel in the batch is left
out: only terms that count voxels count it. Terms of shape count a voxel far from the structure little, or not at all,
so that each needs a second term that counts all. Surfaces and skeletons follow the voxels; distances are in mm, by the
sides of a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hilum.errors import PlanError
from hilum.lazy import ndimage, torch

if TYPE_CHECKING:
    from torch import Tensor

# Of the focal loss, as published.
GAMMA = 2.0
# Share of the voxels, the hardest of a batch, that count in nnU-Net's top-k entropy.
HARDEST = 0.1
WHERE = "task.loss"
# Added to both sides of a ratio, so that it never divides by 0.
SMOOTH = 1e-5
# Bins of equal width between 0 and 1, as published for `ace`.
BINS = 20
# The weights of false positive and of false negative voxels, as published.
FALSE_POSITIVE, FALSE_NEGATIVE = 0.3, 0.7
# The exponent of the focal Tversky loss, as published: labels that are found well count less.
POWER = 0.75
# Voxels that a soft surface may lie off the true one and still count: the width of the step between two labels.
TOLERANCE = 1
# Erosions until a soft skeleton is whole; a structure wider than twice as many voxels keeps no skeleton in its middle.
EROSIONS = 8


def mean_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, the mean over voxels."""
    if not _differs_between_runs(logits):
        return torch.nn.functional.cross_entropy(logits, target, weight=weights)
    counts = torch.ones_like(logits[:, 0]) if weights is None else weights[target]
    return (counts * _voxel_entropy(logits, target)).sum() / counts.sum()


def focal(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in which voxels that are nearly right count little (Lin et al., arXiv:1708.02002)."""
    likelihood = -_voxel_entropy(logits, target)
    cost = -((1 - likelihood.exp()) ** GAMMA) * likelihood
    counts = torch.ones_like(cost) if weights is None else weights[target]
    return (cost * counts).sum() / counts.sum()


def hardest_tenth(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of the tenth of the voxels that costs most: hard-negative mining within a batch.

    Wu et al., arXiv:1605.06885; as nnU-Net's top-k loss, doi:10.1038/s41592-020-01008-z
    """
    if _differs_between_runs(logits):
        cost = _voxel_entropy(logits, target) * (1.0 if weights is None else weights[target])
    else:
        cost = torch.nn.functional.cross_entropy(logits, target, weight=weights, reduction="none")
    return cost.flatten().topk(max(1, int(HARDEST * cost.numel())), sorted=False).values.mean()


def _differs_between_runs(logits: Tensor) -> bool:
    """Whether torch refuses its own cross-entropy of every voxel: on a GPU it adds up in another order each time."""
    return logits.is_cuda and torch.are_deterministic_algorithms_enabled()


def _voxel_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(batch, *spatial) cross-entropy of each voxel, by operations that have a way alike in every run."""
    return -logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]


def soft_dice_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice of each label over the whole batch, the mean over the labels that the batch has.

    Milletari et al., arXiv:1606.04797
    """
    probabilities, truth = split_by_label(logits, target)
    size = label_sums(probabilities) + label_sums(truth)
    return mean_present_labels(1 - (2 * label_sums(probabilities * truth) + SMOOTH) / (size + SMOOTH), truth)


def generalised_dice(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - one Dice of all labels and the background, each weighted by the inverse square of its volume.

    Sudre et al., arXiv:1707.03237
    """
    probabilities, truth = split_by_label(logits, target, range(logits.shape[1]))
    volume = label_sums(truth)
    share = torch.where(volume > 0, 1 / volume.clamp(min=1) ** 2, torch.zeros_like(volume))
    both = (share * label_sums(probabilities * truth)).sum()
    size = (share * (label_sums(probabilities) + volume)).sum()
    return 1 - 2 * both / size  # the batch has voxels, so that some label has


def tversky(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Dice in which a missed voxel costs more than one that is too much: for structures that are easily missed.

    Salehi et al., arXiv:1706.05721
    """
    probabilities, truth = split_by_label(logits, target)
    return mean_present_labels(1 - _tversky(probabilities, truth), truth)


def focal_tversky(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Tversky in which a label that is found badly counts more than one that is found well.

    Abraham and Khan, arXiv:1810.07842
    """
    probabilities, truth = split_by_label(logits, target)
    # The slope of a power below 1 is infinite at 0.
    return mean_present_labels((1 - _tversky(probabilities, truth)).clamp(min=SMOOTH) ** POWER, truth)


def _tversky(probabilities: Tensor, truth: Tensor) -> Tensor:
    both = label_sums(probabilities * truth)
    wrong = FALSE_POSITIVE * label_sums(probabilities * (1 - truth)) + FALSE_NEGATIVE * label_sums(
        (1 - probabilities) * truth
    )
    return (both + SMOOTH) / (both + wrong + SMOOTH)


def boundary(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - F1 of the labels' soft surfaces, within a tolerance of a voxel; for thin and tiny structures.

    A surface is what a minimum over the neighbours takes away, so that each piece counts by its surface and not by its
    volume, and a thin one is all surface. Max-pooling makes it: no distance map, and any number of axes.
    Bokhovkin and Burnaev, arXiv:1905.07852
    """
    probabilities, truth = split_by_label(logits, target)
    predicted = _surface(probabilities)
    true = _surface(truth)
    precision = (label_sums(predicted * _dilate(true)) + SMOOTH) / (label_sums(predicted) + SMOOTH)
    recall = (label_sums(true * _dilate(predicted)) + SMOOTH) / (label_sums(true) + SMOOTH)
    return mean_present_labels(1 - 2 * precision * recall / (precision + recall + SMOOTH), truth)


def surface_distance_loss(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, spacing: Sequence[float] | None = None
) -> Tensor:
    """Voxels that are wrong, each by its mm to the true surface, as a share of what the opposite would cost.

    spacing: mm per axis of the grid; all axes alike without
    As published it is a sum of signed distances, with a least value of its own for each batch; here that is taken off,
    and the unit is divided away, so that it adds to terms between 0 and 1 on any grid.
    Kervadec et al., arXiv:1812.07032
    """
    probabilities, truth = split_by_label(logits, target)
    away = _distances(truth, spacing)
    return mean_present_labels(
        label_sums((probabilities - truth).abs() * away) / label_sums(away).clamp(min=SMOOTH), truth
    )


def hausdorff(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, spacing: Sequence[float] | None = None
) -> Tensor:
    """Squared errors, each by its squared mm to the true and to the predicted surface, as their weighted mean.

    spacing: mm per axis of the grid; all axes alike without
    The predicted surface is where a label reaches half; no gradient goes through the distances. As published the sum is
    not divided by the distances' own, and weighed against Dice by hand.
    Karimi and Salcudean, arXiv:1904.10030
    """
    probabilities, truth = split_by_label(logits, target)
    marked = (probabilities.detach() > 0.5).to(truth.dtype)
    far = _distances(truth, spacing) ** 2 + _distances(marked, spacing) ** 2
    return mean_present_labels(
        label_sums((probabilities - truth) ** 2 * far) / label_sums(far).clamp(min=SMOOTH), truth
    )


def soft_centreline_dice(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, labels: Sequence[int] | None = None
) -> Tensor:
    """1 - centreline Dice (clDice): how much of each skeleton lies inside the other label map.

    labels: channels of structures that have a centreline; without them all but the background
    Shit et al., arXiv:2003.07311
    """
    probabilities, truth = split_by_label(logits, target, labels)
    with torch.no_grad():
        true = soft_skeleton(truth)
    predicted = soft_skeleton(probabilities)
    precision = (label_sums(predicted * truth) + SMOOTH) / (label_sums(predicted) + SMOOTH)
    recall = (label_sums(true * probabilities) + SMOOTH) / (label_sums(true) + SMOOTH)
    return mean_present_labels(1 - 2 * precision * recall / (precision + recall + SMOOTH), truth)


def soft_skeleton(inside: Tensor, erosions: int = EROSIONS) -> Tensor:
    """(batch, labels, *spatial) in 0..1: what an opening takes away, at every depth of a structure.

    Shit et al., arXiv:2003.07311
    """
    skeleton = torch.zeros_like(inside)
    for _ in range(erosions + 1):
        if inside.requires_grad:  # computed twice, because its many steps would all be kept for the backward pass
            inside, lost = torch.utils.checkpoint.checkpoint(_open, inside, use_reentrant=False)
        else:
            inside, lost = _open(inside)
        skeleton = skeleton + (lost - skeleton * lost).relu()
    return skeleton


def _open(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The eroded structure, and the voxels that widening does not bring back."""
    eroded = _erode(inside)
    return eroded, (inside - _dilate(eroded)).relu()


def _surface(inside: Tensor) -> Tensor:
    outside = 1 - inside
    return _dilate(outside) - outside


def _dilate(values: Tensor) -> Tensor:
    """The largest value among each voxel and its neighbours, corners included."""
    for axis in range(2, values.ndim):
        values = _largest_along(values, axis)
    return values


def _erode(values: Tensor) -> Tensor:
    """The least value among each voxel and its neighbours along the axes."""
    least = [-_largest_along(-values, axis) for axis in range(2, values.ndim)]
    return torch.stack(least).amin(dim=0) if len(least) > 2 else torch.minimum(least[0], least[-1])


def _largest_along(values: Tensor, axis: int) -> Tensor:
    """The largest of each voxel and its neighbours along one axis."""
    for _ in range(TOLERANCE if values.shape[axis] > 1 else 0):
        pairs = _larger_of_neighbours(values, axis)
        ends = pairs.narrow(axis, 0, 1), pairs.narrow(axis, pairs.shape[axis] - 1, 1)
        values = torch.cat([ends[0], _larger_of_neighbours(pairs, axis), ends[1]], dim=axis)
    return values


def _larger_of_neighbours(values: Tensor, axis: int) -> Tensor:
    """One fewer along the axis than there are values."""
    fewer = values.shape[axis] - 1
    return torch.maximum(values.narrow(axis, 0, fewer), values.narrow(axis, 1, fewer))


def _distances(inside: Tensor, spacing: Sequence[float] | None) -> Tensor:
    """(batch, labels, *spatial) mm from each voxel to the nearest beyond the surface; 0 without a surface.

    Made by SciPy on the processor.
    """
    masks = inside.detach().cpu().numpy() > 0.5
    distances = np.zeros(masks.shape, dtype=np.float32)
    for index in np.ndindex(*masks.shape[:2]):
        mask = masks[index]
        if mask.any() and not mask.all():
            distances[index] = sum(ndimage.distance_transform_edt(side, spacing) for side in (mask, ~mask))
    return torch.from_numpy(distances).to(inside)


def ace(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average calibration error (mL1-ACE, hard bins): of each image and label, the mean over the bins that have voxels.

    A bin's error is the distance between the mean probability in it and the share of its voxels that have the label.
    Barfoot et al., arXiv:2506.03942
    """
    probabilities, truth = (values.flatten(2) for values in split_by_label(logits, target))
    places = (probabilities.detach() * BINS).long().clamp(max=BINS - 1)
    empty = probabilities.new_zeros(*probabilities.shape[:2], BINS)
    counts = empty.scatter_add(2, places, torch.ones_like(truth))
    apart = empty.scatter_add(2, places, probabilities - truth).abs() / counts.clamp(min=1)
    return mean_present_labels((apart.sum(dim=2) / (counts > 0).sum(dim=2)).mean(dim=0), truth)


def split_by_label(logits: Tensor, target: Tensor, labels: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """(batch, labels, *spatial) probability and truth of each label, without the background.

    labels: the channels; without them all but the background
    """
    channels = list(range(1, logits.shape[1]) if labels is None else labels)
    truth = torch.stack([target == channel for channel in channels], dim=1).to(logits.dtype)
    return logits.softmax(dim=1)[:, channels], truth


def label_sums(values: Tensor) -> Tensor:
    """(labels,) of (batch, labels, *spatial), over the whole batch."""
    return values.sum(dim=(0, *range(2, values.ndim)))


def mean_present_labels(costs: Tensor, truth: Tensor) -> Tensor:
    """Mean of (labels,) costs over the labels that are there; 0 where none is."""
    present = (truth.flatten(2).amax(dim=(0, 2)) > 0).to(costs.dtype)
    return (costs * present).sum() / present.sum().clamp(min=1)


@dataclass(frozen=True)
class Term:
    """A term of a loss, and what goes with it.

    counts:  what it looks at: every voxel, the overlap of labels, their shape, or how far probabilities are true
    because: when it is of use, in words
    whole:   it takes distances that a patch's border would cut
    lines:   it looks at structures alone that have a centreline
    """

    cost: Callable[..., Tensor]
    counts: Literal["voxels", "overlap", "shape", "calibration"]
    because: str
    source: str
    whole: bool = False
    lines: bool = False


TERMS: Mapping[str, Term] = {
    "ce": Term(
        mean_cross_entropy,
        "voxels",
        "it is a proper scoring rule, so its probabilities can be trusted",
        "doi:10.1198/016214506000001437",
    ),
    "focal": Term(focal, "voxels", "easy background counts little", "arXiv:1708.02002"),
    "topk": Term(hardest_tenth, "voxels", "only the hardest tenth of the voxels counts", "arXiv:1605.06885"),
    "dice": Term(soft_dice_loss, "overlap", "labels count alike, whatever their size", "arXiv:1606.04797"),
    "generalised_dice": Term(
        generalised_dice, "overlap", "labels count by the inverse square of their volume", "arXiv:1707.03237"
    ),
    "tversky": Term(tversky, "overlap", "what is missed costs more than what is too much", "arXiv:1706.05721"),
    "focal_tversky": Term(focal_tversky, "overlap", "and labels that are found badly count more", "arXiv:1810.07842"),
    "boundary": Term(boundary, "shape", "thin and tiny structures are nearly all surface", "arXiv:1905.07852"),
    "distance": Term(
        surface_distance_loss, "shape", "errors far from the surface cost more", "arXiv:1812.07032", whole=True
    ),
    "hausdorff": Term(
        hausdorff, "shape", "the largest distance between surfaces counts most", "arXiv:1904.10030", whole=True
    ),
    "ace": Term(ace, "calibration", "voxels of a probability are right as often as it says", "arXiv:2506.03942"),
    "cldice": Term(
        soft_centreline_dice, "shape", "a broken vessel costs its centreline", "arXiv:2003.07311", lines=True
    ),
}


def label_loss(
    name: str,
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    lines: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """The sum of the terms that `name` joins with "+".

    logits:  (batch, channels, *spatial), background first; target: (batch, *spatial) channel numbers
    weights: (channels,) how much a voxel of each counts where voxels are counted; all alike without
    lines:   channels of structures with a centreline; all without
    spacing: mm per axis of the grid; all axes alike without
    """
    logits = logits.float()  # sums over a volume would lose what is small in half precision
    costs = []
    for term in (TERMS[one] for one in name.split("+")):
        options = ({"labels": lines} if term.lines else {}) | ({"spacing": spacing} if term.whole else {})
        costs.append(term.cost(logits, target, weights, **options))
    return torch.stack(costs).sum()


def check_label_loss(name: str, weighted: bool, lines: Collection[str]) -> None:
    """PlanError for a sum of terms that does not exist, or that could not teach what its names promise.

    weighted: whether voxels are given weights; lines: the labels that have a centreline
    """
    names = name.split("+")
    for term in names:
        if term not in TERMS:
            raise PlanError(f"there is no loss {term!r}", WHERE, f'Join with "+" any of {", ".join(TERMS)}')
    terms = [TERMS[term] for term in names]
    if len(set(names)) < len(names):
        raise PlanError(f"{name} names a term twice", WHERE, "Name each once")
    if all(term.counts in ("shape", "calibration") for term in terms):
        remedy = f"Give dice+ce+{name}"
        raise PlanError(f"{name} alone does not teach which label every voxel has", WHERE, remedy)
    if any(term.lines for term in terms) and not lines:
        problem = "cldice follows centrelines, and no label is long and thin: a compact one has none to follow"
        remedy = "Choose another loss, or name in task.centrelines the labels that are vessels, nerves or the like"
        raise PlanError(problem, WHERE, remedy)
    if weighted and all(term.counts != "voxels" for term in terms):
        problem = f"no term of {name} counts voxels, so that weights would do nothing"
        raise PlanError(problem, "task.weights", "Give null, or add ce, focal or topk to the loss")


def why_loss_uncut(name: str) -> str:
    """The reason why patches must not cut structures under this loss; empty where they may."""
    uncut_terms = [term for term in name.split("+") if TERMS[term].whole]
    if not uncut_terms:
        return ""
    return f"the loss {' and '.join(uncut_terms)} takes distances to surfaces, and a patch's border would cut them off"
