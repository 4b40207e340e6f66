"""The length of a training where a whole image gives one answer: one rule for classes, grades, findings and times."""

from __future__ import annotations

import math

from isocenter.errors import counted
from isocenter.values import Decision

# By bench/epochs.py, on held-out cases of three sets' training parts (retina, shapes, pneumonia; 300 or 450 cases drawn
# of each, one draw): in 60 epochs the mean of three networks of 20 has AUROC .733, .736 and .982 (log loss 1.221, .461
# and .218), one network after three cycles of the rate .717, .718 and .986 (1.341, .535 and .209), and a network of 20
# epochs .724, .723 and .979 on average. The 45 to 100 validation cases surely preferred none of the later cycles, not
# even those of the third set, which were better.
MOST_EPOCHS = 20
# Volumes with simulated times, 136 of them to train, 42 a step: after 64 steps the c of those that trained rises beyond
# .8, and that of others no more; after 58 epochs it was as low as after 8 (bench/survival.py).
LEAST_STEPS = 64
MEASURED = "docs/benchmarks.md"
LAKSHMINARAYANAN = "arXiv:1612.01474"
MEMORISED = (
    "each image gives one answer, and in more epochs the network memorises hard cases; on held-out cases of training "
    "parts further networks mostly brought more in the same minutes"
)
NEVER_ABOVE = "the loss of their mean is never above the mean of their losses"


def one_answer_length(
    because: str = MEMORISED, mean: str = NEVER_ABOVE, *, cases: int = 0, batch: int = 0
) -> dict[str, Decision]:
    """The epochs of each network, and that further networks have the minutes that are left.

    because: why a network is not trained longer; mean: why several networks are better than one
    cases, batch: of the training, where so few large batches are possible that the epochs follow from their number
    """
    if (least := math.ceil(LEAST_STEPS * batch / max(1, cases))) > MOST_EPOCHS:
        because += f"; {MOST_EPOCHS} epochs of {counted(cases, 'case')} would be fewer than {LEAST_STEPS} steps"
    networks = f"the minutes that are left after those epochs train further networks: {mean}"
    return {
        "training.epochs": Decision(max(MOST_EPOCHS, least), because, MEASURED),
        "training.networks": Decision(None, networks, LAKSHMINARAYANAN),
    }
