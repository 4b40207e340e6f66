"""The grid that a network needs: one as coarse as what is looked for allows leaves time for more steps."""

from __future__ import annotations

import numpy as np

from isocenter.values import Decision, Fingerprint

# A decision of a task that no plan keeps: how much coarser the grid may be where time is short.
COARSEST = "preprocessing.coarsest"
# Voxels that an image is at least: what lies around a structure tells it apart, too.
SMALLEST_IMAGE = 128


def coarser(fingerprint: Fingerprint, across: float, enough: float, words: str) -> Decision:
    """The whole factor by which images may be coarser.

    across: voxels of the smallest or thinnest of what is looked for; enough: those that have to be left of them
    words:  the reason, which says what is so many voxels across
    """
    shortest = float(np.median([min(n for n in case.shape if n > 1) for case in fingerprint.cases]))
    factor = max(1.0, float(int(min(across / enough, shortest / SMALLEST_IMAGE))))
    if factor == 1.0:
        return Decision(1.0, f"{words}, images of {shortest:.0f} a side: nothing is given away")
    return Decision(factor, f"{words}: a coarser grid leaves {across / factor:.3g} of them, and time for more steps")


def axes_of(fingerprint: Fingerprint) -> int:
    """Axes of the network: volumes of a single slice are pictures, where all are."""
    shapes = [case.shape for case in fingerprint.cases]
    return 2 if all(len(shape) == 2 or 1 in shape for shape in shapes) else 3
