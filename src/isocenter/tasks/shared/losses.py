"""Losses of label maps: terms that are summed, over (batch, channels, *spatial) logits of any number of axes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.tasks.shared.loss_terms import ace
from isocenter.tasks.shared.overlap_losses import dice, focal_tversky, generalised_dice, tversky
from isocenter.tasks.shared.shape_losses import boundary, centreline, distance, hausdorff

if TYPE_CHECKING:
    from torch import Tensor

# Of the focal loss, as published.
GAMMA = 2.0
# Share of the voxels, the hardest of a batch, that count in nnU-Net's top-k entropy.
HARDEST = 0.1
WHERE = "task.loss"


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


def entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, the mean over voxels."""
    if not _differs_between_runs(logits):
        return torch.nn.functional.cross_entropy(logits, target, weight=weights)
    counts = torch.ones_like(logits[:, 0]) if weights is None else weights[target]
    return (counts * _gathered(logits, target)).sum() / counts.sum()


def focal(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in which voxels that are nearly right count little (Lin et al., arXiv:1708.02002)."""
    likelihood = -_gathered(logits, target)
    cost = -((1 - likelihood.exp()) ** GAMMA) * likelihood
    counts = torch.ones_like(cost) if weights is None else weights[target]
    return (cost * counts).sum() / counts.sum()


def hardest(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of the tenth of the voxels that costs most: hard-negative mining within a batch.

    Wu et al., arXiv:1605.06885; as nnU-Net's top-k loss, doi:10.1038/s41592-020-01008-z
    """
    if _differs_between_runs(logits):
        cost = _gathered(logits, target) * (1.0 if weights is None else weights[target])
    else:
        cost = torch.nn.functional.cross_entropy(logits, target, weight=weights, reduction="none")
    return cost.flatten().topk(max(1, int(HARDEST * cost.numel())), sorted=False).values.mean()


def _differs_between_runs(logits: Tensor) -> bool:
    """Whether torch refuses its own cross-entropy of every voxel: on a GPU it adds up in another order each time."""
    return logits.is_cuda and torch.are_deterministic_algorithms_enabled()


def _gathered(logits: Tensor, target: Tensor) -> Tensor:
    """(batch, *spatial) cross-entropy of each voxel, by operations that have a way alike in every run."""
    return -logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]


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
        entropy,
        "voxels",
        "it is a proper scoring rule, so its probabilities can be trusted",
        "doi:10.1198/016214506000001437",
    ),
    "focal": Term(focal, "voxels", "easy background counts little", "arXiv:1708.02002"),
    "topk": Term(hardest, "voxels", "only the hardest tenth of the voxels counts", "arXiv:1605.06885"),
    "dice": Term(dice, "overlap", "labels count alike, whatever their size", "arXiv:1606.04797"),
    "generalised_dice": Term(
        generalised_dice, "overlap", "labels count by the inverse square of their volume", "arXiv:1707.03237"
    ),
    "tversky": Term(tversky, "overlap", "what is missed costs more than what is too much", "arXiv:1706.05721"),
    "focal_tversky": Term(focal_tversky, "overlap", "and labels that are found badly count more", "arXiv:1810.07842"),
    "boundary": Term(boundary, "shape", "thin and tiny structures are nearly all surface", "arXiv:1905.07852"),
    "distance": Term(distance, "shape", "errors far from the surface cost more", "arXiv:1812.07032", whole=True),
    "hausdorff": Term(
        hausdorff, "shape", "the largest distance between surfaces counts most", "arXiv:1904.10030", whole=True
    ),
    "ace": Term(ace, "calibration", "voxels of a probability are right as often as it says", "arXiv:2506.03942"),
    "cldice": Term(centreline, "shape", "a broken vessel costs its centreline", "arXiv:2003.07311", lines=True),
}


def check_loss(name: str, weighted: bool, lines: Collection[str]) -> None:
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


def uncut(name: str) -> str:
    """The reason why patches must not cut structures under this loss; empty where they may."""
    uncut_terms = [term for term in name.split("+") if TERMS[term].whole]
    if not uncut_terms:
        return ""
    return f"the loss {' and '.join(uncut_terms)} takes distances to surfaces, and a patch's border would cut them off"
