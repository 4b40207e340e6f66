"""Answers that are objects: the probability that an object is a true one, by how surely its voxels are inside and by
its size, and those that miss few of what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.belief import calibration_scores, certainties, class_belief, covering_results, operating_points
from hilum.belief.certainties import Certainty
from hilum.belief.covering_results import COVERING_MAP, FALSE, MISSED, AddedResults, Belief, UnseenCases
from hilum.evaluation import Seed, Table, instances
from hilum.evaluation.calibration_fit import Calibrator, UnseenOutputs
from hilum.evaluation.case_tables import UNCALIBRATED
from hilum.evaluation.instances import InstanceOverlap
from hilum.files.storage import structured_text
from hilum.values import Array, Confidence, Decision, Floats, Map, Prediction, Row

Numbers = NDArray[np.integer]
OBJECT = "object"
# Columns of cases and of predictions, in the order of the objects: a score each; of cases also whether it is right.
SCORES = "scores"
RIGHT = "right"


class CaseObjects(NamedTuple):
    """The objects of a case: (*spatial) numbers, (objects,) network's scores and sizes, (objects, classes) chances."""

    numbers: Numbers
    scores: Floats
    sizes: Floats
    chances: Floats

    @property
    def kinds(self) -> NDArray[np.intp]:
        """(objects,) the most probable class of each, from 0 on."""
        return np.asarray(self.chances.argmax(axis=1))

    def only(self, chosen: NDArray[np.bool_]) -> CaseObjects:
        """Some of the objects, numbered anew."""
        numbers = renumber_objects(np.where(np.append(False, chosen)[self.numbers], self.numbers, 0))
        return CaseObjects(numbers, *(one[chosen] for one in self[1:]))


# Numbers of all objects that there may be, and their scores.
Candidates = tuple[Numbers, Floats]
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
# Of fewer objects of validation cases a threshold would be chance.
FEWEST_OBJECTS = 10
# The overlap from which an object is found, as in the figures that are stated of objects.
OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class ObjectRow:
    """Statement of a network on the objects of a case.

    objects:    those that are called
    candidates: all that there may be; None where the maps that they are made of are not kept
    Both are made when they are asked for: each takes a watershed.
    """

    objects: Callable[[], CaseObjects]
    candidates: Callable[[], Candidates] | None


@dataclass(frozen=True, eq=False)
class ObjectBelief(Belief):
    """Single objects; of its rows outputs are an `ObjectRow` of each case, truth the numbers that people annotated.

    candidates: of a prediction, all objects that there may be
    classes:    of the objects, which the numbers of the truth state as `instances.code_classes` does; one without name
    called:     {class: the score from which on an object is called}; None until unseen cases have decided
    """

    certainty: Certainty
    candidates: Callable[[Prediction], Candidates]
    classes: tuple[str, ...] = (OBJECT,)
    called: Mapping[str, float] | None = None

    @property
    def least(self) -> float:
        """The score from which on an object is in the covering map."""
        return (self.certainty.covers_from or {}).get(OBJECT, 0.0)

    @property
    def added_results(self) -> AddedResults | None:
        """A map of all objects that it takes to miss little."""
        return None if self.certainty.covers_from is None else AddedResults({}, self._covering)

    def _covering(self, prediction: Prediction) -> Prediction:
        if prediction.untuned is None:
            note = "a clip has no covering objects: what they are made of is not kept for each frame"
            return replace(prediction, notes=(*prediction.notes, note))
        numbers = covering_objects(*self.candidates(prediction), self.least)
        return replace(prediction, maps={**prediction.maps, COVERING_MAP: Map(numbers)})

    def columns(self, prediction: Prediction, reference: Array) -> Mapping[str, float]:
        """Misses and wrong marks of objects in a case from a score on; empty before it is found."""
        if self.certainty.covers_from is None or prediction.untuned is None:
            return {}
        return covering_object_columns(self.candidates(prediction), reference, self.least)

    def calibrate(self, rows: UnseenCases) -> dict[str, Decision]:
        """Calibrated scores of the objects, and of several classes that from which on each is best called."""
        has_scores = self.called is not None or len(self.classes) == 1
        if not len(rows) or (has_scores and self.certainty.calibration is not None):
            return {}
        unseen = unseen_objects(rows, self.classes)
        certainty, decisions = certainties.add_calibration(self.certainty, unseen)
        if not has_scores:
            decisions["task.thresholds"] = self._calling_scores(unseen, rows, certainty)
        return decisions

    def _calling_scores(self, unseen: UnseenOutputs, rows: UnseenCases, certainty: Certainty) -> Decision:
        """The score of the highest F1 of each class, of one with too few objects none."""
        scores = certainties.chances_from_log_odds(unseen.apply_calibrator(certainty.calibrator))
        true = np.concatenate([instances.coded_classes(one, len(self.classes)) for one in rows.truth])
        levels = dict[str, float]()
        words = list[str]()
        for kind, name in enumerate(self.classes):
            own = np.isfinite(unseen.truth[:, kind])
            total = int((true == kind).sum())
            right = unseen.truth[own, kind]
            levels[name] = 0.0
            f1 = 0.0
            if total >= FEWEST_OBJECTS and right.any():
                levels[name], f1 = operating_points.best_f1_level(scores[own, kind], right, total)
            words.append(f"{name} {f1:.3f} of {total}" if f1 else f"{name} all, {total} are too few or none was found")
        because = f"the highest F1 of each class among objects of validation cases: {', '.join(words)}"
        return Decision(levels, because, MAIER_HEIN)

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """The sets of classes of objects that are there, and the score from which on objects miss little."""
        return {**self._class_sets(rows, exact=exact), **self._covering_scores(rows, exact=exact)}

    def _class_sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """Thresholds of sets of classes by matched objects; a patient counts once, however many objects it has."""
        if len(self.classes) == 1 or self.certainty.conformal is not None or not len(rows):
            return {}
        chances = list[Floats]()
        truth = list[NDArray[np.integer]]()
        counts = list[int]()
        for one, reference in zip(rows.outputs, rows.truth, strict=True):
            objects = one.objects()
            predicted, true = hit_pairs(instances.instance_overlap(objects.numbers, reference))
            chances.append(objects.chances[predicted])
            truth.append(instances.coded_classes(reference, len(self.classes))[true])
            counts.append(len(true))
        likely = np.concatenate(chances)
        owners = np.repeat(rows.patients, counts)
        matched = UnseenCases(likely, np.concatenate(truth), owners)
        return class_belief.find_class_sets(self.certainty, self.classes, likely, matched, ordered=False, exact=exact)

    def _covering_scores(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """The score from which on objects miss little."""
        with_candidates = [place for place, one in enumerate(rows.outputs) if one.candidates is not None]
        if not with_candidates or self.certainty.risk is None or self.certainty.covering is not None:
            return {}
        pairs = [(*rows.outputs[place].candidates(), rows.truth[place]) for place in with_candidates]
        best = [best_object_scores(numbers, scores, reference) for numbers, scores, reference in pairs]
        missed = covering_results.missed_shares(best, rows.patients[with_candidates].tolist())
        return covering_results.covering_thresholds(self.certainty, {OBJECT: missed}, exact=exact, answers="objects")


def renumber_objects(numbers: Numbers, smallest: float = 0.0) -> Numbers:
    """Objects of at least so many voxels, numbered anew without a gap in the order of their first voxels."""
    flat = numbers.reshape(-1)
    counts = np.bincount(flat)
    first = np.zeros(len(counts), dtype=np.intp)
    first[flat[::-1]] = np.arange(len(flat) - 1, -1, -1)  # of several places of one number the last to be set stays
    is_kept = (counts > 0) & (counts >= smallest)
    is_kept[0] = False
    numbered = np.flatnonzero(is_kept)
    table = np.zeros(len(counts), dtype=np.uint16 if len(numbered) < 2**16 else np.uint32)
    table[numbered[np.argsort(first[numbered], kind="stable")]] = np.arange(1, len(numbered) + 1)
    return np.asarray(table[flat]).reshape(numbers.shape)


def network_scores(numbers: Numbers, inside: Array) -> Floats:
    """(objects,) mean probability of inside of the voxels of each, numbered 1, 2, ..."""
    flat = numbers.reshape(-1)
    counts = np.bincount(flat)[1:]
    return np.asarray(np.bincount(flat, np.asarray(inside, dtype=np.float64).reshape(-1))[1:] / counts)


def object_sizes(numbers: Numbers, voxel: float) -> Floats:
    """(objects,) size of each; voxel: of one, in the unit of a task."""
    return np.bincount(numbers.reshape(-1))[1:] * voxel


def confidence_of_objects(
    names: Sequence[str], objects: CaseObjects, calibrator: Calibrator, classes: Sequence[str] = (OBJECT,)
) -> Confidence:
    """The calibrated scores of objects, and those of the network where that changed something."""
    score_by_name = dict(zip(names, objects.scores.tolist(), strict=True))
    if calibrator.method == "none":
        return Confidence(scores=score_by_name)
    odds = calibrator.odds(_odds_by_class(objects.scores, classes), tuple(classes), np.log(objects.sizes))
    own = odds[np.arange(len(odds)), objects.kinds]
    chances = np.exp(-np.logaddexp(0.0, -own)).tolist()
    return Confidence(scores=dict(zip(names, chances, strict=True)), uncalibrated=score_by_name)


def _odds_by_class(scores: Floats, classes: Sequence[str]) -> Floats:
    """(objects, classes) log odds of scores, of which each object has those of its own class."""
    return np.repeat(certainties.log_odds(scores)[:, None], len(classes), axis=1)


def objects_of_prediction(prediction: Prediction, voxel: float) -> CaseObjects:
    """The objects of a prediction, as it was decoded; voxel: as in `object_sizes`."""
    numbers = np.asarray(prediction.data)
    confidence = prediction.confidence
    scores = np.array([*(confidence.uncalibrated or confidence.scores).values()], dtype=np.float64)
    chances = np.ones((len(scores), 1)) if prediction.objects is None else prediction.objects.probabilities
    return CaseObjects(numbers, scores, object_sizes(numbers, voxel), chances)


def unseen_objects(rows: UnseenCases, classes: Sequence[str] = (OBJECT,)) -> UnseenOutputs:
    """The scores of objects as the network gave them, their sizes, and which of them are right, by their classes."""
    objects: list[CaseObjects] = [one.objects() for one in rows.outputs]
    right = [
        are_right(overlap_of_classes(one, truth, len(classes))) for one, truth in zip(objects, rows.truth, strict=True)
    ]
    scores, sizes = (np.concatenate([getattr(one, name) for one in objects]) for name in ("scores", "sizes"))
    kinds = np.concatenate([one.kinds for one in objects])
    owners = np.repeat(rows.patients, [len(one) for one in right])
    truth = np.full((len(kinds), len(classes)), np.nan)
    truth[np.arange(len(kinds)), kinds] = np.concatenate(right)
    spread = certainties.spread_of_many_answers(owners)
    logs = _odds_by_class(scores, classes)
    return UnseenOutputs(logs, truth, owners, tuple(classes), "labels", spread=spread, sizes=np.log(sizes))


def overlap_of_classes(objects: CaseObjects, reference: Array, classes: int) -> InstanceOverlap:
    """The overlap in which only objects of one class meet; reference: by `instances.code_classes`, of several."""
    overlap = instances.instance_overlap(objects.numbers, reference)
    return overlap if classes == 1 else overlap.alike(objects.kinds, instances.coded_classes(reference, classes))


def are_right(overlap: InstanceOverlap) -> np.ndarray:
    """(objects,) whether each overlaps an object of the reference enough to be one."""
    right = np.zeros(len(overlap.predicted), dtype=bool)
    right[hit_pairs(overlap)[0]] = True
    return right


def best_object_scores(numbers: Numbers, scores: Floats, reference: Array) -> Floats:
    """(references,) the highest score of an object that overlaps each so much, -1 where none does."""
    overlap = instances.instance_overlap(numbers, reference)
    best = np.full(len(overlap.reference), -1.0)
    predicted, true = hit_pairs(overlap)
    np.maximum.at(best, true, scores[predicted])
    return best


def covering_objects(numbers: Numbers, scores: Floats, least: float) -> Numbers:
    """The objects from a score on, numbered anew."""
    is_covering = np.append(False, scores >= least)
    return renumber_objects(np.where(is_covering[numbers], numbers, 0))


def covering_object_columns(candidates: Candidates, reference: Array, least: float) -> Mapping[str, float]:
    """The share of a case's objects that those from a score on miss, and how many of these find nothing."""
    numbers, scores = candidates
    overlap = instances.instance_overlap(covering_objects(numbers, scores, least), reference)
    predicted, true = hit_pairs(overlap)
    objects = len(overlap.reference)
    missed = 1 - len(np.unique(true)) / objects if objects else float("nan")
    return {MISSED: missed, FALSE: float(len(overlap.predicted) - len(np.unique(predicted)))}


def hit_pairs(overlap: InstanceOverlap) -> tuple[np.ndarray, np.ndarray]:
    """(hits,) predicted objects and the reference objects that they overlap enough, counted from 0."""
    predicted, true = overlap.pairs[overlap.iou > OVERLAP].T
    return predicted, true


def score_columns(
    overlap: InstanceOverlap, confidence: Confidence, chosen: NDArray[np.bool_] | None = None
) -> Mapping[str, str | None]:
    """JSON of what objects score, whether they are right, and what they scored before; empty without scores.

    chosen: whether each object of the prediction is one of the overlap; None: all are
    """
    is_chosen = np.ones(len(confidence.scores), bool) if chosen is None else chosen
    if len(confidence.scores) != len(is_chosen) or is_chosen.sum() != len(overlap.predicted):
        return {}
    before = confidence.uncalibrated
    return {
        SCORES: scores_in_json(confidence.scores, is_chosen),
        RIGHT: json.dumps(are_right(overlap).astype(int).tolist()),
        UNCALIBRATED: scores_in_json(before, is_chosen) if before else None,
    }


def scores_in_json(scores: Mapping[str, float], chosen: NDArray[np.bool_] | None = None) -> str:
    """Scores in the order of the objects, as a column has them: unrounded, since 0.9999997 is not certain."""
    return json.dumps(list(scores.values() if chosen is None else compress(scores.values(), chosen.tolist())))


def object_calibration_rows(table: Table, *, label: str = "all", seed: Seed) -> Iterator[Row]:
    """Rows on how often objects of a score are right, now and before calibration; none where there is no object."""
    if SCORES not in table:
        return
    rows = table[table[SCORES].notna()]
    scores, right = (
        [np.array(structured_text.parse_json(cell), dtype=float) for cell in rows[name]] for name in (SCORES, RIGHT)
    )
    if not sum(map(len, scores)):
        return
    cells = zip(rows[UNCALIBRATED], scores, strict=True)
    before = [
        np.array(structured_text.parse_json(cell), dtype=float) if isinstance(cell, str) else now for cell, now in cells
    ]
    owners = np.repeat(rows["patient"].to_numpy(str), [len(one) for one in scores])
    all_scores = np.concatenate(scores)
    images = sum(len(one) > 0 for one in scores)
    note = f"; {errors.count_phrase(len(all_scores), OBJECT)}"
    truth = np.concatenate(right)
    former = np.concatenate(before)
    yield from calibration_scores.calibration_rows_of_many(
        label, all_scores, truth, owners, before=former, cases=images, note=note, seed=seed
    )
