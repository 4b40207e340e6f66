"""Probabilities as the logits that they are made of: what a network states is decoded from logits everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A probability of 0 or 1 has no logit.
LEAST = 1e-7


def logarithm(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of probabilities of classes, whose softmax they are again."""
    return np.asarray(np.log(_held(likely)))


def log_odds(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of probabilities each by itself, whose sigmoid they are again."""
    held = _held(likely)
    return np.asarray(np.log(held / (1 - held)))


def logarithm_of_logarithms(logarithms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of logarithms of probabilities of classes, one of which may be that of 0."""
    return logarithm(np.exp(logarithms))


def log_odds_of_logarithms(logarithms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of logarithms of probabilities each by itself."""
    return log_odds(np.exp(logarithms))


def _held(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities that have logits; an infinite one is no probability, and stays no number."""
    return np.asarray(np.clip(np.where(np.isinf(likely), np.nan, likely), LEAST, 1 - LEAST))
