"""The mean of the outputs of several networks, or of mirrored views.

NumPy only: a packaged model carries a copy of this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.belief import certainties

# Beside a head's name: what several views say of uncertainty in each of them, and of that between them.
WITHIN = ":within"
BETWEEN = ":between"
# And what each of them says itself, one after the other along the channels.
EACH = ":each"
ENDS = (WITHIN, BETWEEN, EACH)
# The outputs from which the probabilities of a head were made.
OUTPUT = ":output"
# The logarithm of a probability of 0 would be infinite; a float32 softmax gives nothing smaller than this but 0.
LEAST = float(np.finfo(np.float32).tiny)
# How much each of several outputs counts, in sum 1; None where all count alike.
Shares = Sequence[float] | None


def mean_output(outputs: Sequence[ArrayLike], shares: Shares = None) -> NDArray[np.floating]:
    """The mean of arrays of one shape, added up one after the other, so that no copy of all of them is made."""
    total = _numbers(outputs[0]) * (1.0 if shares is None else shares[0])
    for number, other in enumerate(outputs[1:], start=1):
        total += _numbers(other) * (1.0 if shares is None else shares[number])
    return np.asarray(total / len(outputs) if shares is None else total)


def log_mean(
    outputs: Sequence[ArrayLike], axis: int = 1, shares: Sequence[float] | None = None
) -> NDArray[np.floating]:
    """Logarithm of the mean probability that several outputs give each class, itself an output.

    shares: how much each of them counts, in sum 1; None where all count alike
    """
    total = certainties.softmax(outputs[0], axis) * (1.0 if shares is None else shares[0])
    for number, other in enumerate(outputs[1:], start=1):
        total += certainties.softmax(other, axis) * (1.0 if shares is None else shares[number])
    return np.asarray(np.log(np.maximum(total / len(outputs) if shares is None else total, LEAST)))


def outputs_of_each(arrays: Mapping[str, ArrayLike], head: str, count: int) -> NDArray[np.float64] | None:
    """(networks, count) what each of several says of one case; None where their mean alone is known."""
    rows = arrays.get(f"{head}{EACH}")
    return None if rows is None else np.reshape(np.asarray(rows, dtype=np.float64), (-1, count))


def _numbers(output: ArrayLike) -> NDArray[np.floating]:
    numbers = np.asarray(output)
    return numbers.astype(np.result_type(numbers.dtype, np.float32), copy=False)
