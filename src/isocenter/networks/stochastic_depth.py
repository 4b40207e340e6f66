"""Stochastic depth: samples skip blocks at random in training. Huang et al., ECCV 2016, arXiv:1603.09382."""

from __future__ import annotations

import torch
from torch import Tensor


def stochastic_depth(change: Tensor, left_out: float, training: bool) -> Tensor:
    """What a block adds to its input: in training nothing for a share of samples, and more for the others.

    The mean over samples stays the same.
    """
    if not training or left_out == 0:
        return change
    kept = torch.empty_like(change[(slice(None), *[slice(1)] * (change.ndim - 1))]).bernoulli_(1 - left_out)
    return change * kept / (1 - left_out)
