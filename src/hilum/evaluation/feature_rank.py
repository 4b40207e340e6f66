"""Effective rank of features: how many directions they use."""

from __future__ import annotations

from typing import cast

import numpy as np

from hilum.values import Floats

# Added to each share, as in the paper, so that directions without any variance have a logarithm.
LEAST_SHARE = 1e-7
# Deviations below this share of all are those of rounding and of noise, and say nothing of an image.
SAME = 1e-3


def effective_rank(features: Floats) -> float:
    """The exponential of the entropy of the shares of singular values, from 1 to `possible_rank`.

    features: (images, features), of which the deviations from their mean count: normalising layers leave a common part
              that is far larger (hippocampi, a U-Net: 50 times). NaN where there are none, or all are 0
    1 where all images have the same features. Garrido et al., ICML 2023, arXiv:2210.02885
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        return float("nan")
    if not rows.any():
        return float("nan")
    apart = rows - rows.mean(axis=0)
    if np.linalg.norm(apart) < SAME * np.linalg.norm(rows):
        return 1.0
    values = np.linalg.svd(apart, compute_uv=False)
    shares = values / values.sum() + LEAST_SHARE
    return float(np.exp(-np.sum(shares * np.log(shares))))


def possible_rank(features: Floats) -> int:
    """The highest rank that so many features of so many images can have."""
    return cast(int, min(np.asarray(features).shape))
