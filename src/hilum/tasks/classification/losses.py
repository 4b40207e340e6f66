"""Losses of classes that exclude each other, of (batch, classes) logits and (batch,) indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.values import Floats

if TYPE_CHECKING:
    from torch import Tensor

# Of the focal loss, as published (Lin et al., arXiv:1708.02002).
GAMMA = 2.0
# How much of what further cases show is new: of n cases of a kind (1 - BETA^n) / (1 - BETA) count.
BETA = 0.999


def _entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy."""
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in which what is nearly right counts little (Lin et al., arXiv:1708.02002)."""
    cost = _entropy(logits, target)
    return (1 - (-cost).exp()) ** GAMMA * cost


@dataclass(frozen=True)
class ClassLoss:
    """A loss of classes.

    cost:    of (batch, classes) logits and (batch,) indices, without a mean
    because: its effect, in words
    plain:   it is cross-entropy itself, which alone takes smoothed targets and grades
    hardest: share of a batch, the hardest of it, that counts
    weighs:  classes count by their effective numbers of cases
    adjusts: the logarithm of its share is added to each class's logit
    """

    cost: Callable[[Tensor, Tensor], Tensor]
    because: str
    source: str
    plain: bool = False
    hardest: float = 1.0
    weighs: bool = False
    adjusts: bool = False

    @property
    def balances(self) -> bool:
        """Whether it makes rare classes as important as common ones by itself, which nothing else may do again."""
        return self.weighs or self.adjusts


LOSSES: Mapping[str, ClassLoss] = {
    "ce": ClassLoss(
        _entropy,
        "cross-entropy is a proper scoring rule, so its probabilities can be trusted",
        "doi:10.1198/016214506000001437",
        plain=True,
    ),
    "focal": ClassLoss(
        _focal, "nearly right answers count little; probabilities come out too close to one another", "arXiv:1708.02002"
    ),
    "hardest": ClassLoss(
        _entropy,
        "only the hardest half of each batch counts; probabilities come out unsure",
        "arXiv:1604.03540",
        hardest=0.5,
    ),
    "class_balanced": ClassLoss(
        _entropy,
        "cross-entropy in which classes of few cases count more, and probabilities are corrected afterwards",
        "arXiv:1901.05555",
        weighs=True,
    ),
    "logit_adjusted": ClassLoss(
        _entropy,
        "cross-entropy that adds the logarithm of its share to each class's output, so that rare classes keep room",
        "arXiv:2007.07314",
        adjusts=True,
    ),
}


def class_loss(
    name: str, logits: Tensor, target: Tensor, counts: Floats | None = None, weights: Tensor | None = None
) -> Tensor:
    """The mean over a batch.

    counts:  (classes,) training cases, for a loss that balances
    weights: (classes,) how much a case of each counts
    """
    loss = LOSSES[name]
    if loss.balances:
        assert counts is not None  # noqa: S101 - as `check_class_loss` has seen to
        logits = logits + logits.new_tensor(np.log(training_shares(counts))) if loss.adjusts else logits
        weights = logits.new_tensor(effective_weights(counts)) if loss.weighs else weights
    costs = loss.cost(logits, target)
    counted = torch.ones_like(costs) if weights is None else weights[target]
    if loss.hardest < 1:
        costs, chosen = costs.topk(max(1, round(loss.hardest * len(costs))))
        counted = counted[chosen]
    return (costs * counted).sum() / counted.sum()


def logits_at_training_shares(
    name: str,
    classes: Sequence[str],
    shifts: Mapping[str, float],
    weights: Mapping[str, float],
    outputs: Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    """Logits of cases in the shares of the training cases, where these were sampled in others: what `name` then judges.

    shifts: {class: log of its share of the cases less log of that which it had in training}, by sampling and `weights`,
            which the loss takes too
    """
    if not shifts or LOSSES[name].balances:  # the loss itself has made the shares others
        return outputs
    sampled = [shifts.get(one, 0.0) + float(np.log(weights.get(one, 1.0))) for one in classes]
    return {**outputs, "class": outputs["class"] + outputs["class"].new_tensor(sampled)}


def training_shares(counts: Floats) -> Floats:
    """(classes,) of all cases; 0 cases count as half a case: a class never seen is improbable, not impossible."""
    return np.maximum(counts, 0.5) / max(1.0, float(np.sum(counts)))


def effective_weights(counts: Floats) -> Floats:
    """(..., classes) weights by the effective numbers of cases, 1 on average of the classes.

    Cui et al., arXiv:1901.05555
    """
    weights = (1 - BETA) / (1 - BETA ** np.maximum(counts, 1.0))
    return np.asarray(weights.shape[-1] * weights / weights.sum(axis=-1, keepdims=True))


def check_class_loss(name: str, *, smoothing: float, weighted: bool, counted: bool, between: bool) -> None:
    """PlanError for a loss that there is not, or that does not go with the other settings.

    between: the network has an output between each two grades, which have a loss of their own
    """
    if name not in LOSSES:
        raise PlanError(f"there is no loss {name!r}", "task.loss", f"Choose one of {', '.join(LOSSES)}")
    loss = LOSSES[name]
    if between and not loss.plain:
        problem = f"questions between grades cost what yes and no cost, and {name} is of classes"
        raise PlanError(problem, "task.loss", "Give ce, or --set task.order=softmax")
    if smoothing and not loss.plain:
        raise PlanError(f"{name} takes no smoothed targets", "task.smoothing", "Give 0, or --set task.loss=ce")
    if loss.balances and weighted:
        problem = f"{name} balances the classes by itself, and weights would do it twice"
        raise PlanError(problem, "task.weights", "Give null, or --set task.loss=ce")
    if loss.balances and not counted:
        raise PlanError(f"{name} needs the cases of each class", "task.counts", "Give them, or --set task.loss=ce")


def check_sampling(name: str, sampling: str) -> None:
    """PlanError where the sampling would balance the classes once more, or in shares that nobody knows."""
    if sampling == "by_loss":
        problem = "the class shares in training would not be known, so probabilities could not be corrected"
        raise PlanError(problem, "training.sampling", "Give natural, and --set task.loss=hardest")
    if LOSSES[name].balances and sampling != "natural":
        problem = f"{name} balances the classes by itself, and {sampling} sampling would do it twice"
        raise PlanError(problem, "training.sampling", "Give natural, or --set task.loss=ce")
