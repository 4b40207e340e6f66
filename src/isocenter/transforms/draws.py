"""Random draws that depend on what is drawn for, never on what was drawn before.

Each draw is a function of (seed, epoch, case, draw). So the number of workers, of ranks or of interruptions cannot
change a result, and a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, case: int, draw: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, case, draw))))


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch goes through `count` cases."""
    return generator(seed, epoch, count, 2**31).permutation(count)
