"""Outputs of a network to probabilities: of exclusive classes, and of structures that overlap.

NumPy only, and nothing of ours: a packaged model carries a copy of this file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def softmax(outputs: ArrayLike, axis: int = 0) -> NDArray[np.floating]:
    """Probabilities of classes that lie along an axis."""
    logits = np.asarray(outputs)
    if logits.dtype.kind != "f" or logits.dtype.itemsize < 4:
        logits = logits.astype(np.float32)
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(outputs: ArrayLike) -> NDArray[np.floating]:
    """The probability of each structure from its log odds."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), -np.asarray(outputs, dtype=np.float32))))


def chance_of(odds: ArrayLike) -> NDArray[np.float64]:
    """Logarithms of odds to probabilities, in double precision."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(odds, dtype=np.float64))))


def written(outputs: ArrayLike, values: Sequence[int]) -> NDArray[np.integer]:
    """(structures, *spatial) log odds to (*spatial): the value of each where it is likelier than not, later on top."""
    logits = np.asarray(outputs)
    labels = np.zeros(logits.shape[1:], dtype=np.min_scalar_type(max(values)))
    for logit, value in zip(logits, values, strict=True):
        labels[logit > 0] = value
    return labels
