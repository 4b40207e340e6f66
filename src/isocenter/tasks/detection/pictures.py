"""Charts of boxes: precision over recall, the free-response curve, and whether scores can be believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isocenter.report import Figure, figures
from isocenter.tasks.detection.scores import Answers
from isocenter.tasks.shared import pooled_note


def overview(answers: Answers, overlap: float, folds: int) -> list[Figure]:
    """Of each class, and of all boxes together.

    overlap: from which a box is right
    folds:   how many models have scored the cases
    """
    matches = {name: answers.matches(name, overlap) for name in answers.classes}
    curves = [
        figures.box_precision_recall(
            {name: one.curve for name, one in matches.items()}, f"Precision and recall at IoU {overlap:g}"
        ),
        figures.froc(
            {name: answers.froc(name).curve for name in answers.classes},
            "Free-response receiver operating characteristic",
        ),
    ]
    pooled = pooled_note(folds)
    drawn = [replace(one, caption=f"{one.caption} {pooled}".strip()) for one in curves]
    scores, right = (np.concatenate([getattr(one, key) for one in matches.values()]) for key in ("scores", "right"))
    return (
        [*drawn, figures.reliability(right, scores, "Can the scores of boxes be believed?", counted="boxes")]
        if len(scores)
        else drawn
    )
