"""The findings of a result, and whether they have a place in the image or speak of it as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isocenter.tasks import Task, leaves, settings_of
from isocenter.values import Finding, Prediction, blocks


def has_place(prediction: Prediction) -> bool:
    """Whether the result lies somewhere in the image, and does not only speak of it."""
    every = (prediction, *prediction.frames)
    return any(one.data is not None or one.boxes is not None for one in every)


def says_something(prediction: Prediction, findings: Sequence[Finding]) -> bool:
    """Whether the result, or one of its frames, is an answer about the whole image, whatever it is, or marks something.

    A measured value of 0 and an absent finding are answers; a mask without a voxel and a search without a box are not.
    findings: of the result, or of all its frames
    """
    stills = prediction.frames or (prediction,)
    if any(not has_place(part) for still in stills for part in still.parts.values() or (still,)):
        return True
    return any(one.probability is not None or bool(one.value) for one in findings)


def marks_nothing(still: Prediction) -> bool:
    """Whether the parts of a result that look for something in the image have found none of it."""
    placed = [part for part in still.parts.values() or (still,) if has_place(part)]
    return bool(placed) and not any(_marks(part) for part in placed)


def _marks(part: Prediction) -> bool:
    """Whether there is a box that is called, or a voxel that is marked."""
    if part.called is not None and len(part.called):
        return True
    return part.data is not None and any(bool(np.any(block)) for _, block in blocks(part.data))


def promises(task: Task, findings: Sequence[Finding]) -> Iterator[str]:
    """Promises of sets and intervals among the findings, a sentence for each coverage."""
    if any(one.possible is not None or one.low is not None or one.high is not None for one in findings):
        settings = [settings_of(part) for part in leaves(task).values()]
        for coverage in sorted({float(one["coverage"]) for one in settings if one.get("coverage")}):
            yield f"coverage of sets and intervals: {100 * coverage:.4g} % of new patients"
