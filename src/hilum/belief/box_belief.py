"""Answers that are boxes: the probability that a box is a true one, the score from which on boxes are called, and those
that miss few of what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum import errors
from hilum.belief import calibration_scores, certainties, covering_results, operating_points
from hilum.belief.certainties import Certainty
from hilum.belief.covering_results import FALSE, MISSED, AddedResults, Belief, UnseenCases
from hilum.errors import DatasetError
from hilum.evaluation import Seed, box_matching
from hilum.evaluation.box_matching import Matches
from hilum.evaluation.calibration_fit import Calibrator, UnseenOutputs
from hilum.values import BoundingBoxes, Decision, Floats, Geometry, Prediction, Row

# The score from which on boxes are called until cases have decided: CenterNet's own for its pictures.
CALLED_FROM = 0.3
# Of fewer boxes of validation cases a threshold would be chance.
FEWEST_BOXES = 10
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"


@dataclass(frozen=True)
class BoxBelief(Belief):
    """Boxes of classes; of its rows outputs are the boxes of each case with the network's scores, and voxel lengths.

    truth of rows: the boxes that people annotated
    overlap: intersection over union from which a box of the reference is found
    called:  the score from which on boxes are called; None until unseen cases have decided
    """

    certainty: Certainty
    classes: tuple[str, ...]
    overlap: float
    called: float | None

    @property
    def level(self) -> float:
        """The score from which on boxes are called."""
        return CALLED_FROM if self.called is None else self.called

    @property
    def added_results(self) -> AddedResults | None:
        """All boxes that it takes to miss little."""
        return None if self.certainty.covers_from is None else AddedResults({}, self._covering)

    def _covering(self, prediction: Prediction) -> Prediction:
        boxes = boxes_of_prediction(prediction)
        assert boxes.scores is not None  # noqa: S101 - as decoded
        least = self.certainty.covers_from or {}
        limits = np.array([min(self.level, least.get(name, self.level)) for name in boxes.names])
        return replace(prediction, boxes=boxes.at(boxes.scores >= limits), threshold=0.0)

    def columns(self, name: str, predicted: BoundingBoxes, reference: BoundingBoxes) -> Mapping[str, float]:
        """Misses and wrong marks of boxes of a class in a case from a score on; empty before it is found."""
        least = (self.certainty.covers_from or {}).get(name)
        return {} if least is None else covering_box_columns(predicted, reference, self.overlap, min(self.level, least))

    def calibrate(self, rows: UnseenCases) -> dict[str, Decision]:
        """Calibrated scores, and that from which on boxes are best called."""
        if None not in (self.called, self.certainty.calibration):
            return {}
        certainty, decisions = certainties.add_calibration(
            self.certainty, unseen_boxes(rows, self.classes, self.overlap)
        )
        if self.called is None:
            scores_now = _calibrate_rows(rows, certainty.calibrator)
            decisions["task.threshold"] = calling_score(scores_now, rows.truth, self.classes, self.overlap)
        return decisions

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """The score of each class from which on boxes miss little."""
        if self.certainty.risk is None or self.certainty.covering is not None:
            return {}
        scores_now = _calibrate_rows(rows, self.certainty.calibrator)
        pairs = list(zip(scores_now, rows.truth, strict=True))
        missed = dict[str, tuple[Floats, np.ndarray]]()
        for name in self.classes:
            best = [best_box_scores(found.of_class(name), truth.of_class(name), self.overlap) for found, truth in pairs]
            missed[name] = covering_results.missed_shares(best, rows.patients.tolist())
        return covering_results.covering_thresholds(self.certainty, missed, exact=exact, answers="boxes")


def _calibrate_rows(rows: UnseenCases, calibrator: Calibrator) -> list[BoundingBoxes]:
    """The boxes of rows with calibrated scores."""
    return [calibrated_boxes(boxes, calibrator, steps) for boxes, steps in rows.outputs]


def boxes_of_prediction(prediction: Prediction) -> BoundingBoxes:
    """The boxes of a prediction; DatasetError for a clip, of which each frame has its own."""
    if prediction.boxes is None:
        raise DatasetError("boxes of a clip are those of its frames", prediction.case, "Give the frames as images")
    return prediction.boxes


def voxel_lengths(geometry: Geometry, in_voxels: bool) -> tuple[float, ...]:
    """Lengths of a voxel per axis by which sizes of boxes are known: 1 where they count voxels."""
    return (1.0,) * geometry.ndim if in_voxels else geometry.steps


def uncalibrated_boxes(prediction: Prediction) -> BoundingBoxes:
    """The boxes of a prediction with the scores that the network gave."""
    boxes = boxes_of_prediction(prediction)
    return boxes if boxes.uncalibrated is None else replace(boxes, scores=boxes.uncalibrated, uncalibrated=None)


def calibrated_boxes(boxes: BoundingBoxes, calibrator: Calibrator, steps: Sequence[float]) -> BoundingBoxes:
    """The boxes with calibrated scores, whether or not they have such; those of the network stay beside them.

    steps: length of a voxel per axis, as `voxel_lengths` has it
    """
    scores = boxes.scores if boxes.uncalibrated is None else boxes.uncalibrated
    assert scores is not None  # noqa: S101 - as decoded
    if calibrator.method == "none" or not len(boxes):
        return replace(boxes, scores=scores, uncalibrated=None)
    names = tuple(dict.fromkeys(boxes.names))
    kinds = [names.index(name) for name in boxes.names]
    odds = np.repeat(certainties.log_odds(scores)[:, None], len(names), axis=1)
    new_odds = calibrator.odds(odds, names, np.log(box_matching.box_sizes(boxes, steps)))[np.arange(len(boxes)), kinds]
    return replace(boxes, scores=np.exp(-np.logaddexp(0.0, -new_odds)), uncalibrated=scores)


def unseen_boxes(rows: UnseenCases, classes: Sequence[str], overlap: float) -> UnseenOutputs:
    """The scores of boxes as the network gave them, their sizes, and which of them are right."""
    patients = rows.patients
    references = rows.truth
    scores = list[Floats]()
    right = list[Floats]()
    sizes = list[Floats]()
    owners = list[np.ndarray]()
    plain = _calibrate_rows(rows, Calibrator())
    steps = [step for _, step in rows.outputs]
    for kind, name in enumerate(classes):
        of_class = [one.of_class(name) for one in plain]
        truth = [one.of_class(name) for one in references]
        matches = Matches.at(overlap, of_class, truth)
        is_right = np.full((len(matches.right), len(classes)), np.nan)
        is_right[:, kind] = matches.right
        every = [box_matching.box_sizes(one, step) for one, step in zip(of_class, steps, strict=True)]
        sizes.append(np.array([every[image][number] for image, number in _places(matches)]))
        scores.append(matches.scores)
        right.append(is_right)
        owners.append(patients[matches.image])
    logs = np.repeat(certainties.log_odds(np.concatenate(scores))[:, None], len(classes), axis=1)
    of_whom = np.concatenate(owners)
    log_sizes = np.log(np.concatenate(sizes))
    spread = certainties.spread_of_many_answers(of_whom)
    return UnseenOutputs(logs, np.concatenate(right), of_whom, tuple(classes), "labels", spread=spread, sizes=log_sizes)


def calling_score(
    predicted: Sequence[BoundingBoxes], references: Sequence[BoundingBoxes], names: Sequence[str], overlap: float
) -> Decision:
    """The score from which on boxes are called: that of the highest F1 over all classes together."""
    scores: list[Floats] = [np.zeros(0)]
    right = [np.zeros(0, bool)]
    total = 0
    for name in names:
        of_class = [one.of_class(name) for one in predicted]
        truth = [one.of_class(name) for one in references]
        matches = Matches.at(overlap, of_class, truth)
        scores.append(matches.scores)
        right.append(matches.right)
        total += int(matches.references.sum())
    boxes = f"{errors.count_phrase(total, 'box', 'boxes')} of validation cases"
    if total < FEWEST_BOXES or not np.concatenate(right).any():
        because = f"{boxes} are too few (at least {FEWEST_BOXES} are needed)"
        return Decision(CALLED_FROM, because if total < FEWEST_BOXES else "no box of a validation case was found")
    level, f1 = operating_points.best_f1_level(np.concatenate(scores), np.concatenate(right), total)
    because = f"the highest F1, {f1:.3f}, of {boxes} at IoU {overlap}"
    return Decision(level, because, MAIER_HEIN)


def best_box_scores(predicted: BoundingBoxes, reference: BoundingBoxes, overlap: float) -> Floats:
    """(references,) the highest score of a box that overlaps each so much, -1 where none does; ignored ones are not."""
    assert predicted.scores is not None  # noqa: S101 - as decoded
    hits = box_matching.box_iou(predicted.corners, reference.corners[~reference.ignored]) >= overlap
    return np.asarray(np.where(hits, predicted.scores[:, None], -1.0).max(axis=0, initial=-1.0))


def covering_box_columns(
    predicted: BoundingBoxes, reference: BoundingBoxes, overlap: float, least: float
) -> Mapping[str, float]:
    """Share of one case and class that boxes from a score on miss, and the number of these that find nothing."""
    assert predicted.scores is not None  # noqa: S101 - as decoded
    missed = best_box_scores(predicted, reference, overlap) < max(least, 0.0)
    covering = predicted.at(predicted.scores >= least)
    right = box_matching.box_hits(covering, reference, overlap).any(axis=1)
    return {MISSED: float(missed.mean()) if len(missed) else float("nan"), FALSE: float((~right).sum())}


def box_calibration_rows(
    label: str, matched: Sequence[tuple[Matches, Sequence[BoundingBoxes]]], patients: np.ndarray, *, seed: Seed
) -> Iterator[Row]:
    """Rows on how often boxes of a score are right, now and before calibration; none where there is no box.

    matched:  of each class what is right, and the boxes of each case; patients: (cases,)
    """
    scores = np.concatenate([matches.scores for matches, _ in matched])
    if not len(scores):
        return
    right = np.concatenate([matches.right for matches, _ in matched])
    owners = patients[np.concatenate([matches.image for matches, _ in matched])]
    before = np.concatenate([_before(matches, boxes) for matches, boxes in matched])
    images = len(np.unique(np.concatenate([matches.image for matches, _ in matched])))
    note = f"; {errors.count_phrase(len(scores), 'box', 'boxes')}"
    yield from calibration_scores.calibration_rows_of_many(
        label, scores, right, owners, before=before, cases=images, note=note, seed=seed
    )


def _before(matches: Matches, boxes: Sequence[BoundingBoxes]) -> Floats:
    """(boxes,) scores before calibration, of images where nothing was calibrated those that there are."""
    scores = [one.scores if one.uncalibrated is None else one.uncalibrated for one in boxes]
    return np.array([own[number] for image, number in _places(matches) if (own := scores[image]) is not None])


def _places(matches: Matches) -> Iterator[tuple[int, int]]:
    """The image of each box, and its number among those of the image."""
    return zip(matches.image.tolist(), matches.number.tolist(), strict=True)
