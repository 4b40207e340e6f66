"""Probabilities as the logits that they are made of: what a network states is decoded from logits everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A probability of 0 or 1 has no logit.
LEAST = 1e-7


def logarithm(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of probabilities of classes, whose softmax they are again."""
    return np.asarray(np.log(np.clip(likely, LEAST, 1 - LEAST)))


def log_odds(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of probabilities each by itself, whose sigmoid they are again."""
    held = np.clip(likely, LEAST, 1 - LEAST)
    return np.asarray(np.log(held / (1 - held)))
