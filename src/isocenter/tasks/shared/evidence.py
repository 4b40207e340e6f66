"""Losses that teach a network its own evidence: a distribution of the probabilities of classes, not these alone.

The exponentials of logits are the concentrations of a Dirichlet distribution, whose mean is their softmax: Malinin and
Gales, NeurIPS 2018, arXiv:1802.10501. The loss is that of Sensoy et al., NeurIPS 2018, arXiv:1806.01768.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# How much evidence for a wrong class costs; the paper lets it rise to 1 over ten epochs, and no step here knows those.
MISLEADING = 0.1
# Logits beyond are 3 million cases of evidence.
MOST_LOG = 15.0


def evidential(logits: Tensor, target: Tensor) -> Tensor:
    """(batch, ...) expected squared error of the probabilities, and how far evidence for wrong classes is from none.

    logits: (batch, classes, ...); target: (batch, ...) indices
    """
    concentrations = logits.float().clamp(-MOST_LOG, MOST_LOG).exp()
    truth = torch.zeros_like(concentrations).scatter_(1, target[:, None], 1.0)
    strength = concentrations.sum(dim=1, keepdim=True)
    likely = concentrations / strength
    squared = ((truth - likely) ** 2 + likely * (1 - likely) / (strength + 1)).sum(dim=1)
    return squared + MISLEADING * _from_uniform(truth + (1 - truth) * concentrations)


def mean_evidential(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over voxels; weights: (classes,) how much a voxel of each counts"""
    cost = evidential(logits, target)
    counts = torch.ones_like(cost) if weights is None else weights[target]
    return (cost * counts).sum() / counts.sum()


def _from_uniform(concentrations: Tensor) -> Tensor:
    """(batch, ...) Kullback-Leibler divergence from the Dirichlet distribution that knows nothing."""
    strength, classes = concentrations.sum(dim=1), concentrations.shape[1]
    norm = strength.lgamma() - torch.lgamma(strength.new_tensor(float(classes))) - concentrations.lgamma().sum(dim=1)
    apart = concentrations.digamma() - strength.digamma()[:, None]
    return norm + ((concentrations - 1) * apart).sum(dim=1)
