"""Overlapping structures: from a network's outputs, one for each, to probabilities and to one label map.

NumPy only, and nothing of ours: a packaged model carries a copy of this file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sigmoid(outputs: ArrayLike) -> NDArray[np.floating]:
    """The probability of each structure from its log odds."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), -np.asarray(outputs, dtype=np.float32))))


def written(outputs: ArrayLike, values: Sequence[int]) -> NDArray[np.integer]:
    """(structures, *spatial) log odds to (*spatial): the value of each where it is likelier than not, later on top."""
    logits = np.asarray(outputs)
    labels = np.zeros(logits.shape[1:], dtype=np.min_scalar_type(max(values)))
    for logit, value in zip(logits, values, strict=True):
        labels[logit > 0] = value
    return labels
