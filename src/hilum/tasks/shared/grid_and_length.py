"""The grid and the length of a training that kinds of problem ask for."""

from __future__ import annotations

import math

import numpy as np

from hilum import errors
from hilum.values import Decision, Fingerprint

# By bench/findings/training.md, on held-out cases of three sets' training parts (retina, shapes, pneumonia; 300 or
# 450 cases sampled of each, one draw): in 60 epochs the mean of three networks of 20 has AUROC .733, .736 and .982
# (log loss 1.221, .461 and .218), one network after three cycles of the rate .717, .718 and .986 (1.341, .535 and
# .209), and a network of 20 epochs .724, .723 and .979 on average. The 45 to 100 validation cases surely preferred
# none of the later cycles, not even those of the third set, which were better.
MOST_EPOCHS = 20
# Volumes with simulated times, 136 of them to train, 42 a step: after 64 steps the c of those that trained rises beyond
# .8, and that of others no more; after 58 epochs it was as low as after 8 (bench/findings/kinds.md).
LEAST_STEPS = 64
MEASURED = "bench/findings/training.md"
LAKSHMINARAYANAN = "arXiv:1612.01474"
MEMORISED = (
    "each image gives one answer, and in more epochs the network memorises hard cases; on held-out cases of training "
    "parts further networks mostly brought more in the same minutes"
)
NEVER_ABOVE = "the loss of their mean is never above the mean of their losses"


def decide_epochs_and_networks(
    because: str = MEMORISED, mean: str = NEVER_ABOVE, *, cases: int = 0, batch: int = 0
) -> dict[str, Decision]:
    """The epochs of each network, and that further networks have the minutes that are left.

    because: why a network is not trained longer; mean: why several networks are better than one
    cases, batch: of the training, where so few large batches are possible that the epochs follow from their number
    """
    if (least := math.ceil(LEAST_STEPS * batch / max(1, cases))) > MOST_EPOCHS:
        because += (
            f"; {MOST_EPOCHS} epochs of {errors.count_phrase(cases, 'case')} would be fewer than {LEAST_STEPS} steps"
        )
    networks = f"the minutes that are left after those epochs train further networks: {mean}"
    return {
        "training.epochs": Decision(max(MOST_EPOCHS, least), because, MEASURED),
        "training.networks": Decision(None, networks, LAKSHMINARAYANAN),
    }


# The grid that a network needs: one as coarse as what is looked for allows leaves time for more steps.

# A decision of a task that no plan keeps: how much coarser the grid may be where time is short.
COARSEST = "preprocessing.coarsest"
# Voxels that an image is at least: what lies around a structure tells it apart, too.
SMALLEST_IMAGE = 128


def decide_coarser_grid(fingerprint: Fingerprint, across: float, enough: float, words: str) -> Decision:
    """The whole factor by which images may be coarser.

    across: voxels of the smallest or thinnest of what is looked for; enough: those that have to be left of them
    words:  the reason, which says what is so many voxels across
    """
    shortest = float(np.median([min(n for n in case.shape if n > 1) for case in fingerprint.cases]))
    factor = max(1.0, float(int(min(across / enough, shortest / SMALLEST_IMAGE))))
    if factor == 1.0:
        return Decision(1.0, f"{words}, images of {shortest:.0f} voxels a side: they keep their grid")
    return Decision(factor, f"{words}: a coarser grid leaves {across / factor:.3g} of them, and time for more steps")


def network_axes(fingerprint: Fingerprint) -> int:
    """Axes of the network: volumes of a single slice are pictures, where all are."""
    shapes = [case.shape for case in fingerprint.cases]
    return 2 if all(len(shape) == 2 or 1 in shape for shape in shapes) else 3
