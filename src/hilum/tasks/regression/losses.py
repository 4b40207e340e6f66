"""Losses of measured values, of (batch, targets) standardised predictions and references, one cost a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Residuals (in deviations) up to here count by their square, larger ones by their size.
HUBER = 1.0
# The logarithm of a variance stays within these bounds: error bars of 1/150 to 150 deviations of the training cases.
LEAST_LOG, MOST_LOG = -10.0, 10.0
# By which power of its own variance a case's likelihood is weighed, as in the paper's trials: arXiv:2203.09168.
BETA = 0.5
# {what a network says of its error: how many numbers for each value}
NOISES: Mapping[str, int] = {"none": 0, "gaussian": 1, "quantiles": 2}


def huber(values: Tensor, truth: Tensor) -> Tensor:
    """Squared for small residuals and linear for large ones: Huber, Ann Math Stat 1964, doi:10.1214/aoms/1177703732"""
    return torch.nn.functional.huber_loss(values, truth, reduction="none", delta=HUBER)


def squared_residual(values: Tensor, truth: Tensor) -> Tensor:
    """The squared residual."""
    return (values - truth) ** 2


def absolute_residual(values: Tensor, truth: Tensor) -> Tensor:
    """The absolute residual."""
    return (values - truth).abs()


def pinball(values: Tensor, logs: Tensor, truth: Tensor, coverage: float) -> Tensor:
    """The cost of a median and of the quantiles that hold this share between them, which never cross.

    logs: (batch, 2 targets) squared distances from the median to the lower quantile and to the upper one, as logarithms
    Koenker and Bassett, Econometrica 1978, doi:10.2307/1913643
    """
    below, above = torch.exp(0.5 * logs.clamp(LEAST_LOG, MOST_LOG)).chunk(2, dim=1)
    ends = ((values - below, (1 - coverage) / 2), (values, 0.5), (values + above, (1 + coverage) / 2))
    return torch.stack([torch.maximum(q * (truth - one), (q - 1) * (truth - one)) for one, q in ends]).sum(dim=0)


def weighted_likelihood(values: Tensor, logs: Tensor, truth: Tensor) -> Tensor:
    """Negative logarithm of the normal density, weighed so that cases with a large error bar still teach.

    logs: logarithms of the predicted variances
    Nix and Weigend, ICNN 1994, doi:10.1109/ICNN.1994.374138; Kendall and Gal, arXiv:1703.04977; the weight:
    Seitzer et al., arXiv:2203.09168
    """
    logs = logs.clamp(LEAST_LOG, MOST_LOG)
    cost = 0.5 * (logs + (values - truth) ** 2 / logs.exp())
    return cost * logs.detach().exp() ** BETA


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "huber": huber,
    "mse": squared_residual,
    "mae": absolute_residual,
}
