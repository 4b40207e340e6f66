"""Charts of discrimination, for classes and for findings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isocenter.evaluation import roc_band
from isocenter.report import Figure, figures

POOLED = (
    "The scores of {} folds are pooled, although they come from different models: figures of these curves differ from "
    "those stated, which are means over the folds."
)
# More bands than these would hide one another.
MOST_BANDS = 4
# {label: (truth, probability, patients), each of the cases of which it is known}
Curves = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def pooled_note(folds: int) -> str:
    """Note for the caption of curves by the scores of several models; empty of one model."""
    return POOLED.format(folds) if folds > 1 else ""


def discrimination(curves: Curves, folds: int) -> list[Figure]:
    """Receiver operating characteristic, with bands where there is room, and precision over recall.

    folds: how many models have scored the cases
    """
    lines = {name: (truth, scores) for name, (truth, scores, _) in curves.items()}
    bands = {}
    for name, (truth, scores, patients) in curves.items() if len(curves) < MOST_BANDS else ():
        band = roc_band(scores, truth, patients, seed=0)
        if band is not None:
            bands[name] = band
    pooled = pooled_note(folds)
    return [
        figures.roc(lines, "Receiver operating characteristic", bands=bands, caption=pooled),
        figures.precision_recall(lines, "Precision and recall", caption=pooled),
    ]
