"""Effective rank of features: how many directions they use."""

from __future__ import annotations

import numpy as np

from isocenter.values import Floats

# Added to each share, as in the paper, so that directions without any variance have a logarithm.
LEAST_SHARE = 1e-7


def effective_rank(features: Floats) -> float:
    """The exponential of the entropy of the shares of singular values, from 1 to `possible_rank`.

    features: (images, features); NaN where there are none, or all are 0
    Garrido et al., ICML 2023, arXiv:2210.02885
    """
    known = np.asarray(features, dtype=np.float64)
    if known.ndim != 2 or not known.size or not np.isfinite(known).all():
        return float("nan")
    values = np.linalg.svd(known, compute_uv=False)
    if not values.sum() > 0:
        return float("nan")
    shares = values / values.sum() + LEAST_SHARE
    return float(np.exp(-np.sum(shares * np.log(shares))))


def possible_rank(features: Floats) -> int:
    """The highest rank that so many features of so many images can have."""
    return min(np.asarray(features).shape)
