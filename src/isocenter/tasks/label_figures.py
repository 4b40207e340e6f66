"""How answers about whole images look together: what classes and findings draw alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isocenter.evaluation import roc_band
from isocenter.report import Figure, figures

# More bands than these would hide one another.
MOST_BANDS = 4
# {label: (truth, probability, patients), each of the cases of which it is known}
Curves = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def discrimination(curves: Curves) -> list[Figure]:
    """Receiver operating characteristic, with bands where there is room, and precision over recall."""
    lines = {name: (truth, scores) for name, (truth, scores, _) in curves.items()}
    bands = {}
    for name, (truth, scores, patients) in curves.items() if len(curves) < MOST_BANDS else ():
        band = roc_band(scores, truth, patients, seed=0)
        if band is not None:
            bands[name] = band
    return [
        figures.roc(lines, "Receiver operating characteristic", bands=bands),
        figures.precision_recall(lines, "Precision and recall"),
    ]
