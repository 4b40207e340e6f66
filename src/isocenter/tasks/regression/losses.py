"""Losses of measured values, of (batch, targets) standardised predictions and references, one cost a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Residuals (in deviations) up to here count by their square, larger ones by their size.
HUBER = 1.0
# The logarithm of a variance stays within these bounds: error bars of 1/150 to 150 deviations of the training cases.
LEAST_LOG, MOST_LOG = -10.0, 10.0
# By which power of its own variance a case's likelihood is weighed, as in the paper's trials: arXiv:2203.09168.
BETA = 0.5


def huber(values: Tensor, truth: Tensor) -> Tensor:
    """Squared for small residuals and linear for large ones: Huber, Ann Math Stat 1964, doi:10.1214/aoms/1177703732"""
    return torch.nn.functional.huber_loss(values, truth, reduction="none", delta=HUBER)


def squared(values: Tensor, truth: Tensor) -> Tensor:
    """The squared residual."""
    return (values - truth) ** 2


def absolute(values: Tensor, truth: Tensor) -> Tensor:
    """The absolute residual."""
    return (values - truth).abs()


def weighted_likelihood(values: Tensor, logs: Tensor, truth: Tensor) -> Tensor:
    """Negative logarithm of the normal density, weighed so that cases with a large error bar still teach.

    logs: logarithms of the predicted variances
    Nix and Weigend, ICNN 1994, doi:10.1109/ICNN.1994.374138; Kendall and Gal, arXiv:1703.04977; the weight:
    Seitzer et al., arXiv:2203.09168
    """
    logs = logs.clamp(LEAST_LOG, MOST_LOG)
    cost = 0.5 * (logs + (values - truth) ** 2 / logs.exp())
    return cost * logs.detach().exp() ** BETA


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"huber": huber, "mse": squared, "mae": absolute}
