"""Losses of findings that do not exclude each other: present or absent for each, where it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hilum.lazy import torch
from hilum.tasks.classification import losses
from hilum.values import Floats

if TYPE_CHECKING:
    from torch import Tensor

# Of the focal loss, as published (Lin et al., arXiv:1708.02002).
GAMMA = 2.0
# Of the asymmetric loss for what is absent, as published; what is present counts in full (its gamma is 0).
ABSENT_GAMMA = 4.0
MARGIN = 0.05
# A probability of 0 for what is there would cost infinitely much.
SMALLEST = 1e-8
# Losses that weigh presence and absence by how many cases show them.
BALANCED = frozenset({"class_balanced"})


def _binary(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def _focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy in which what is nearly right counts little (Lin et al., arXiv:1708.02002)."""
    cost = _binary(logits, truth)
    return (1 - (-cost).exp()) ** GAMMA * cost


def _asymmetric(logits: Tensor, truth: Tensor) -> Tensor:
    """Absence that is easily seen counts little, and below a margin nothing (Ridnik et al., arXiv:2009.14119)."""
    present = logits.sigmoid()
    shifted = (present - MARGIN).clamp(min=0)
    cost_of_present = -present.clamp(min=SMALLEST).log()
    absent = -(shifted**ABSENT_GAMMA) * (1 - shifted).clamp(min=SMALLEST).log()
    return truth * cost_of_present + (1 - truth) * absent


@dataclass(frozen=True)
class FindingLoss:
    """A loss of findings.

    cost:    of (batch, findings) logits and truths, without a mean
    because: what it does, in words
    """

    cost: Callable[[Tensor, Tensor], Tensor]
    because: str
    source: str


LOSSES: Mapping[str, FindingLoss] = {
    "bce": FindingLoss(
        _binary,
        "binary cross-entropy is a proper scoring rule, so its probabilities can be trusted",
        "doi:10.1198/016214506000001437",
    ),
    "class_balanced": FindingLoss(
        _binary,
        "binary cross-entropy in which rare findings count more, and probabilities are corrected afterwards",
        "arXiv:1901.05555",
    ),
    "focal": FindingLoss(
        _focal, "nearly right answers count little; probabilities come out too close to 0.5", "arXiv:1708.02002"
    ),
    "asymmetric": FindingLoss(
        _asymmetric,
        "easily absent findings count little; probabilities come out too high",
        "arXiv:2009.14119",
    ),
}


def finding_loss(name: str, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over what is known of a batch; 0 where nothing is.

    logits, target: (batch, findings), of the target 1 present, 0 absent, NaN not known
    weights:        (findings, 2) how much absence and presence count
    """
    stated_references = ~target.isnan()
    truth = torch.where(stated_references, target, torch.zeros_like(target)).to(logits.dtype)
    costs = LOSSES[name].cost(logits, truth) * stated_references
    if weights is not None:
        costs = costs * torch.where(truth > 0, weights[:, 1], weights[:, 0])
    return costs.sum() / stated_references.sum().clamp(min=1)


def balance_weights(absent: Floats, present: Floats) -> Floats:
    """(findings, 2) weights of absence and presence by the effective numbers of their cases, 1 on average of the two.

    Cui et al., arXiv:1901.05555
    """
    return losses.effective_weights(np.stack([absent, present], axis=-1))
