"""The probability that a box is a true one, by its score and its size, and how far that can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from isocenter.belief import log_odds, rows_of_many, spread_of_many
from isocenter.errors import counted
from isocenter.evaluation import (
    Calibrator,
    Matches,
    Seed,
    Unseen,
    box_sizes,
)
from isocenter.values import BoundingBoxes, Floats, Geometry, Row


def sides_of(geometry: Geometry, in_voxels: bool) -> tuple[float, ...]:
    """Lengths of a voxel per axis by which sizes of boxes are known: 1 where they count voxels."""
    return (1.0,) * geometry.ndim if in_voxels else geometry.steps


def calibrated_boxes(boxes: BoundingBoxes, calibrator: Calibrator, steps: Sequence[float]) -> BoundingBoxes:
    """The boxes with calibrated scores, whether or not they have such; those of the network stay beside them.

    steps: length of a voxel per axis, as `sides_of` has it
    """
    given = boxes.scores if boxes.uncalibrated is None else boxes.uncalibrated
    assert given is not None  # noqa: S101 - as decoded
    if calibrator.method == "none" or not len(boxes):
        return replace(boxes, scores=given, uncalibrated=None)
    names = tuple(dict.fromkeys(boxes.names))
    kinds, odds = [names.index(name) for name in boxes.names], np.repeat(log_odds(given)[:, None], len(names), axis=1)
    stated = calibrator.odds(odds, names, np.log(box_sizes(boxes, steps)))[np.arange(len(boxes)), kinds]
    return replace(boxes, scores=np.exp(-np.logaddexp(0.0, -stated)), uncalibrated=given)


def unseen_boxes(
    predicted: Sequence[BoundingBoxes],
    references: Sequence[BoundingBoxes],
    patients: Sequence[str],
    classes: Sequence[str],
    overlap: float,
    steps: Sequence[Sequence[float]],
) -> Unseen:
    """The scores of boxes as the network gave them, their sizes, and which of them are right.

    steps: of each case, as in `calibrated_boxes`
    """
    scores, right, sizes = list[Floats](), list[Floats](), list[Floats]()
    owners = list[np.ndarray]()
    plain = [calibrated_boxes(one, Calibrator(), step) for one, step in zip(predicted, steps, strict=True)]
    for kind, name in enumerate(classes):
        own, truth = [one.of(name) for one in plain], [one.of(name) for one in references]
        matches = Matches.at(overlap, own, truth)
        known = np.full((len(matches.right), len(classes)), np.nan)
        known[:, kind] = matches.right
        every = [box_sizes(one, step) for one, step in zip(own, steps, strict=True)]
        sizes.append(np.array([every[image][number] for image, number in _places(matches)]))
        scores.append(matches.scores)
        right.append(known)
        owners.append(np.array(patients)[matches.image])
    logs = np.repeat(log_odds(np.concatenate(scores))[:, None], len(classes), axis=1)
    of_whom, log_sizes = np.concatenate(owners), np.log(np.concatenate(sizes))
    spread = spread_of_many(of_whom)
    return Unseen(logs, np.concatenate(right), of_whom, tuple(classes), "labels", spread=spread, sizes=log_sizes)


def box_calibration_rows(
    label: str,
    matched: Sequence[tuple[Matches, Sequence[BoundingBoxes]]],
    patients: np.ndarray,
    *,
    seed: Seed,
) -> Iterator[Row]:
    """How often boxes of a score are right, now and before calibration; nothing where there is no box.

    matched:  of each class what is right, and the boxes of each case; patients: (cases,)
    """
    scores = np.concatenate([matches.scores for matches, _ in matched])
    if not len(scores):
        return
    right = np.concatenate([matches.right for matches, _ in matched])
    owners = patients[np.concatenate([matches.image for matches, _ in matched])]
    before = np.concatenate([_before(matches, boxes) for matches, boxes in matched])
    images = len(np.unique(np.concatenate([matches.image for matches, _ in matched])))
    note = f"; {counted(len(scores), 'box', 'boxes')}"
    yield from rows_of_many(label, scores, right, owners, before=before, cases=images, note=note, seed=seed)


def _before(matches: Matches, boxes: Sequence[BoundingBoxes]) -> Floats:
    """(boxes,) scores before calibration, of images where nothing was calibrated those that there are."""
    each = [one.scores if one.uncalibrated is None else one.uncalibrated for one in boxes]
    return np.array([own[number] for image, number in _places(matches) if (own := each[image]) is not None])


def _places(matches: Matches) -> Iterator[tuple[int, int]]:
    """The image of each box, and its number among those of the image."""
    return zip(matches.image.tolist(), matches.number.tolist(), strict=True)
