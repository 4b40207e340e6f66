"""Promises on boxes from cases that did not train: scores from which on few are missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isocenter.belief import COVERS_FROM, FALSE, MISSED, Certainty, Found, assured_covering
from isocenter.evaluation import box_hits, box_iou
from isocenter.values import BoundingBoxes, Floats

OF_BOXES = (
    "boxes from these scores on miss at most {} % of those of a case",
    "no score is known to do so for",
)


def assured_boxes(
    certainty: Certainty,
    predicted: Sequence[BoundingBoxes],
    references: Sequence[BoundingBoxes],
    patients: Sequence[str],
    classes: Sequence[str],
    overlap: float,
    *,
    exact: bool,
) -> Found:
    """With the score of each class from which on boxes miss little; exact: these cases have decided nothing else."""
    missed = missed_shares(predicted, references, patients, classes, overlap)
    return assured_covering(certainty, missed, exact=exact, words=OF_BOXES)


def missed_shares(
    predicted: Sequence[BoundingBoxes],
    references: Sequence[BoundingBoxes],
    patients: Sequence[str],
    classes: Sequence[str],
    overlap: float,
) -> dict[str, tuple[Floats, np.ndarray]]:
    """{class: ((cases, limits) share of its boxes that only boxes below each of `COVERS_FROM` find, patients)}.

    Of cases that have a box of the class; a box that nothing finds is missed at every limit.
    """
    made = {}
    for name in classes:
        pairs = [(a.of(name), b.of(name), who) for a, b, who in zip(predicted, references, patients, strict=True)]
        there = [(found, truth, who) for found, truth, who in pairs if not truth.ignored.all()]
        rows = [(best_scores(found, truth, overlap)[:, None] < COVERS_FROM).mean(axis=0) for found, truth, _ in there]
        made[name] = np.reshape(rows, (-1, len(COVERS_FROM))), np.array([who for *_, who in there])
    return made


def best_scores(predicted: BoundingBoxes, reference: BoundingBoxes, overlap: float) -> Floats:
    """(references,) the highest score of a box that overlaps each so much, -1 where none does; ignored ones are not."""
    assert predicted.scores is not None  # noqa: S101 - as decoded
    hits = box_iou(predicted.corners, reference.corners[~reference.ignored]) >= overlap
    return np.asarray(np.where(hits, predicted.scores[:, None], -1.0).max(axis=0, initial=-1.0))


def covering_boxes(boxes: BoundingBoxes, level: float, least: Mapping[str, float]) -> BoundingBoxes:
    """Those from the score of their class on, and those that are called; level: the score from which on they are."""
    assert boxes.scores is not None  # noqa: S101 - as decoded
    return boxes.at(boxes.scores >= np.array([min(level, least.get(name, level)) for name in boxes.names]))


def covering_columns(
    predicted: BoundingBoxes, reference: BoundingBoxes, overlap: float, least: float | None
) -> Mapping[str, float]:
    """Of one case and class the share that boxes from a score on miss, and how many of these find nothing."""
    if least is None:
        return {}
    assert predicted.scores is not None  # noqa: S101 - as decoded
    missed = best_scores(predicted, reference, overlap) < max(least, 0.0)
    own = predicted.at(predicted.scores >= least)
    right = box_hits(own, reference, overlap).any(axis=1)
    return {MISSED: float(missed.mean()) if len(missed) else float("nan"), FALSE: float((~right).sum())}
