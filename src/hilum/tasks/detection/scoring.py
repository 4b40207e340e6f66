"""The scores of boxes: one row a case and class, estimates over the cases, and charts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from hilum import errors
from hilum.belief import box_belief, covering_results
from hilum.belief.calibration_scores import CALIBRATION_METRICS
from hilum.belief.covering_results import FALSE, MISSED
from hilum.errors import FormatError
from hilum.evaluation import Metric, Metrics, Seed, Table, box_matching, case_tables, intervals, tracks
from hilum.evaluation.box_matching import Froc, Matches
from hilum.evaluation.case_tables import THRESHOLD, UNCALIBRATED
from hilum.evaluation.classification import LABEL_METRICS
from hilum.evaluation.tracks import TRACK_METRICS
from hilum.files.storage import structured_text
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import box_figures, discrimination_figures
from hilum.tasks import properties
from hilum.tasks.detection import answering
from hilum.tasks.detection.answering import BoxAnswering, BoxDecoder
from hilum.tasks.shared import binary_scores
from hilum.values import MM, Array, BoundingBoxes, Case, Estimate, Floats, Geometry, Prediction, Row, grid_geometry
from hilum.values.table_cells import PlainCell

# COCO's mean over overlaps, and single ones: 0.5 for pictures, 0.1 for volumes.
MEASURED_AT = {"ap": tuple(round(0.5 + 0.05 * n, 2) for n in range(10)), "ap50": (0.5,), "ap10": (0.1,)}
BY_RATE = {f"sensitivity_at_{rate:g}": rate for rate in Froc.rates}
# Thirds of the references by size, at one false box an image.
THIRDS = ("small", "medium", "large")
BY_SIZE = tuple(f"sensitivity_{third}" for third in THIRDS)
SIZE_RATE = 1.0
CALLED = ("sensitivity", "ppv", "f1")
# Selection: scores in so many steps, and the overlaps at which average precision is taken.
BINS = 50
SELECTION_OVERLAPS = (0.1, 0.5)
SELECTED = "ap10_ap50"
METRICS = Metrics(
    (
        Metric("ap", "AP at IoU 0.5 to 0.95", worst=0.0),
        Metric("ap50", "AP at IoU 0.5", worst=0.0),
        Metric("ap10", "AP at IoU 0.1", worst=0.0),
        Metric("cpm", "Mean sensitivity (CPM)", least=0.0, most=1.0),
        Metric("cpm_iou10", "Mean sensitivity (CPM) at IoU 0.1", least=0.0, most=1.0),
        *(
            Metric(name, f"Sensitivity at {rate:g} false box{'es' * (rate != 1)} an image")
            for name, rate in BY_RATE.items()
        ),
        *(Metric(name, f"Sensitivity, {third} boxes") for name, third in zip(BY_SIZE, THIRDS, strict=True)),
        *(one for one in LABEL_METRICS if one.name in CALLED),
        Metric(MISSED, "Missed by covering boxes", "less"),
        Metric(FALSE, "False covering boxes a case", "less"),
        Metric(SELECTED, "Mean AP at IoU 0.1 and 0.5", may_judge=False),
        *TRACK_METRICS,
        *CALIBRATION_METRICS,
    ),
    label_word="class",
    of_case="f1",
).mark_audited(audited=("cpm", "sensitivity"), calibration="ece")
# A figure of one class under weightings of the cases.
Statistic = Callable[[int, Floats], Floats]


class BoxScoring(BoxAnswering):
    """The scores of a detection, and what reports show of them."""

    @property
    def primary(self) -> str:
        """Average precision at the overlap that counts in pictures or in volumes."""
        return "ap50" if self.axes == 2 else "ap10"

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and class; the boxes themselves stand in it as JSON."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            reference = self._reference(case)
            predicted = box_belief.boxes_of_prediction(prediction)
            geometry = prediction.geometry
            for name in self.classes:
                row = box_case_row(
                    predicted.of_class(name), reference.of_class(name), self.overlap, self._level, geometry, self.axes
                )
                row |= self.answers.columns(name, predicted.of_class(name), reference.of_class(name))
                row["tracks"] = self._tracks(predicted.of_class(name), reference.of_class(name), case.id)
                rows.append({"case": case.id, "patient": case.patient, "label": case_tables.figure_label(name), **row})
        return pd.DataFrame(rows)

    def _tracks(self, predicted: BoundingBoxes, reference: BoundingBoxes, case: str) -> str | None:
        """Entries that scores of tracks need, of a frame of a clip."""
        assert predicted.scores is not None  # noqa: S101 - as decoded
        ours = predicted.corners[predicted.scores >= self._level]
        theirs = reference.corners
        return tracks.frame_scores_json(case, ours, theirs, reference.numbers, box_matching.box_iou(theirs, ours))

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Average precision and free-response figures with patients resampled, of all classes first."""
        answers = self._answers(table)
        missed = covering_results.covering_rows(table, answers.classes, "boxes", seed=seed)
        rows = box_summary_rows(answers, self.overlap, primary=self.primary, seed=seed)
        return [*rows, *tracks.track_rows(table, seed=seed), *missed]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean F1; a case without any box counts as 1."""
        f1 = table.groupby("case")["f1"].mean().fillna(1.0)
        return f1.sort_values(ascending=False, kind="stable").index.tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The boxes that are called, and those of the reference where the case has one."""
        boxes = box_belief.boxes_of_prediction(prediction)
        assert boxes.scores is not None  # noqa: S101 - as decoded
        called = boxes.at(boxes.scores >= self._level)
        reference = self._reference(case) if "boxes" in case.references else None
        return [box_figures.box_overlay(properties.first_image(case), reference, called, self.labels, title=case.id)]

    def overview(self, table: Table) -> list[Figure]:
        """Precision over recall and the free-response curve of each class, and the calibration of all boxes."""
        return box_overview(self._answers(table), self.overlap, case_tables.count_folds(table))

    def _answers(self, table: Table) -> ScoredBoxes:
        return ScoredBoxes.from_table(table, [*map(case_tables.figure_label, self.classes)], self._level)


@dataclass(frozen=True, eq=False)
class StatedMetric:
    """A metric with its figure.

    note:     how it was made, in words
    by_class: these words for each class, where they differ
    """

    metric: str
    figure: Statistic
    note: str
    by_class: Sequence[str] = ()


def box_case_row(
    predicted: BoundingBoxes,
    reference: BoundingBoxes,
    overlap: float,
    threshold: float,
    geometry: Geometry,
    axes: int,
) -> dict[str, PlainCell]:
    """Counts of one case and class at the threshold and, as JSON, all that the summary needs.

    axes: of the network's grid, which leaves out that of a single slice
    """
    assert predicted.scores is not None  # noqa: S101 - as decoded
    called = predicted.at(predicted.scores >= threshold)
    matches = Matches.at(overlap, [called], [reference])
    right = int(matches.right.sum())
    total = int(matches.references.sum())
    wrong = len(matches.right) - right
    f1 = 2 * right / (2 * right + wrong + total - right) if right + wrong + total else float("nan")
    flat = answering.flat_axis(geometry, axes)
    sizes = box_matching.box_sizes(reference, geometry.steps, flat)
    # Without the axis of a single slice boxes are those of a picture, and a set may hold both.
    columns = [column for column in range(2 * geometry.ndim) if flat is None or column % geometry.ndim != flat]
    return {
        "references": total,
        "found": right,
        "false": wrong,
        "f1": f1,
        THRESHOLD: threshold,
        "unit": MM if geometry.physical else grid_geometry.pixels_or_voxels(axes),
        "axes": axes,
        "reference_boxes": _text(np.column_stack([reference.ignored, sizes, reference.corners[:, columns]])),
        "predicted_boxes": _text(predicted.corners[:, columns], predicted.scores),
        UNCALIBRATED: None if predicted.uncalibrated is None else json.dumps(predicted.uncalibrated.tolist()),
    }


def counts_by_score(decoder: BoxDecoder, outputs: Array, boxes: Array) -> tuple[Array, Array, Array]:
    """True and false boxes of a part of a case by overlap, class and score, and references by class.

    outputs: (channels, *spatial)
    boxes:   (references, 1 + 2 * axes) numbers of classes and corners; a box in a region of class -2, which is to be
             ignored, is no false one
    """
    classes = len(decoder.classes)
    shape = (len(SELECTION_OVERLAPS), classes, BINS)
    right = np.zeros(shape)
    wrong = np.zeros(shape)
    total = np.zeros(classes)
    size = np.array(outputs.shape[1:])
    [(index, values)] = decoder.peaks([(tuple(slice(0, int(n)) for n in size), outputs)])
    # A peak at the edge of a part may be no peak of the image; a box that reaches beyond the part is kept whole.
    inner = ((index[:, 1:] > 0) & (index[:, 1:] < size - 1)).all(axis=1)
    corners, kinds, scores, _ = decoder.of_peaks(index[inner], values[inner], -np.inf, np.inf)
    remaining = answering.suppress_overlapping(corners, kinds, scores, decoder.suppression)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    ignored = boxes[boxes[:, 0] == -2, 1:]
    for kind in range(classes):
        truth = boxes[boxes[:, 0] == kind, 1:]
        boxes_of_kind = remaining[kinds[remaining] == kind]
        total[kind] = len(truth)
        shared = box_matching.box_iou(corners[boxes_of_kind], truth)
        inside = box_matching.shares_inside(corners[boxes_of_kind], ignored).max(axis=1, initial=0.0)
        for number, overlap in enumerate(SELECTION_OVERLAPS):
            hit = _first_hits(shared, overlap)
            np.add.at(right[number, kind], bins[boxes_of_kind][hit], 1.0)
            np.add.at(wrong[number, kind], bins[boxes_of_kind][~hit & (inside < overlap)], 1.0)
    return right, wrong, total


def box_selection_score(collected: Mapping[str, Array]) -> float:
    """Average precision of counts by score, (cases, ...) each, the mean over overlaps and classes that are there."""
    # From the highest score down.
    right, wrong = (collected[name].sum(axis=0)[..., ::-1] for name in ("right", "wrong"))
    total = collected["total"].sum(axis=0)
    present = total > 0
    if not present.any():
        return float("nan")
    hits = right.cumsum(axis=-1)
    precision = hits / np.maximum(hits + wrong.cumsum(axis=-1), 1)
    area = (precision * right).sum(axis=-1) / np.maximum(total, 1)
    return float(area[:, present].mean())


def _first_hits(shared: Array, overlap: float) -> Array:
    """(boxes,) whether each, from the first, takes a reference that no earlier box has; shared: (boxes, references)"""
    hit = np.zeros(len(shared), dtype=bool)
    free = np.ones(shared.shape[1], dtype=bool)
    for number, row in enumerate(shared):
        open_to = np.where(free & (row >= overlap), row, -1.0)
        if open_to.max(initial=-1.0) >= 0:
            free[int(open_to.argmax())] = False
            hit[number] = True
    return hit


@dataclass(frozen=True, eq=False)
class ScoredBoxes:
    """The boxes of all cases by class, as the table has them.

    classes:               by the labels of their rows
    predicted, references: {class: one a case}, in order of `cases`
    sizes:                 {class: of each case (references,)}, in `unit`
    levels:                (cases,) score from which on a box is called
    """

    classes: Sequence[str]
    patients: np.ndarray
    predicted: dict[str, list[BoundingBoxes]]
    references: dict[str, list[BoundingBoxes]]
    sizes: dict[str, list[Floats]]
    unit: str
    levels: Floats

    @classmethod
    def from_table(cls, table: Table, classes: Sequence[str], threshold: float) -> ScoredBoxes:
        """The boxes in rows of `box_case_row` with case, patient and label; a missing row holds no box.

        threshold: of a table that does not say by which its boxes were called
        """
        axes = int(table["axes"].iloc[0])
        cases = table.drop_duplicates("case")
        places = {case: number for number, case in enumerate(cases["case"])}
        levels = cases[THRESHOLD].to_numpy(float) if THRESHOLD in cases else np.full(len(cases), threshold)
        units = list(dict.fromkeys(table["unit"]))
        # Sizes in mm of some images and in voxels of others cannot be set side by side.
        unit = units[0] if len(units) == 1 else grid_geometry.pixels_or_voxels(axes)
        answers = cls(tuple(classes), cases["patient"].to_numpy(str), {}, {}, {}, str(unit), levels)
        for name in classes:
            predicted = [BoundingBoxes.none(axes, scored=True) for _ in places]
            references = [BoundingBoxes.none(axes) for _ in places]
            sizes: list[Floats] = [np.zeros(0) for _ in places]
            for row in table[table["label"] == name].to_dict("records"):
                boxes = _numbers(row["predicted_boxes"], 1 + 2 * axes)
                truth = _numbers(row["reference_boxes"], 2 + 2 * axes)
                index = places[row["case"]]
                before = row.get(UNCALIBRATED)
                uncalibrated = _numbers(before, 1)[:, 0] if isinstance(before, str) else None
                predicted[index] = BoundingBoxes(
                    boxes[:, 1:], (name,) * len(boxes), boxes[:, 0], uncalibrated=uncalibrated
                )
                references[index] = BoundingBoxes(truth[:, 2:], (name,) * len(truth), ignored=truth[:, 0] > 0)
                sizes[index] = truth[:, 1] if len(units) == 1 else box_matching.box_sizes(references[index])
            answers.predicted[name] = predicted
            answers.references[name] = references
            answers.sizes[name] = sizes
        return answers

    def holders(self, name: str) -> np.ndarray:
        """(cases,) whether each holds a box of the class that counts."""
        return np.array([bool((~one.ignored).any()) for one in self.references[name]])

    def matches(self, name: str, overlap: float) -> Matches:
        """The predicted boxes of a class and the references that they take at this overlap."""
        return Matches.at(overlap, self.predicted[name], self.references[name])

    def froc(self, name: str, overlap: float | None = None) -> Froc:
        """The free-response curve of a class; overlap: None where a centre in the reference is enough."""
        return Froc.from_boxes(self.predicted[name], self.references[name], overlap=overlap, sizes=self.sizes[name])

    def counts_at_threshold(self, name: str, overlap: float) -> Floats:
        """(3, cases) true and false boxes at the threshold, and boxes of the reference."""
        matches = self.matches(name, overlap)
        chosen = matches.scores >= self.levels[matches.image]
        images = len(self.patients)
        right, wrong = (
            np.bincount(matches.image[chosen & marks], minlength=images) for marks in (matches.right, ~matches.right)
        )
        return np.array([right, wrong, matches.references], dtype=float)


def box_summary_rows(answers: ScoredBoxes, overlap: float, *, primary: str, seed: Seed) -> list[Row]:
    """Average precision, free-response figures, what is called, calibration; of all classes first, then of each.

    overlap: at which `sensitivity`, `ppv` and `f1` are stated
    primary: the overlap that stands first
    """
    present = [name for name in answers.classes if answers.holders(name).any()]
    rows: list[Row] = []
    for estimates in _stated_metrics(answers, present, overlap, primary):
        rows += _of_each(estimates, answers, present, seed)
    matched = {name: (answers.matches(name, overlap), answers.predicted[name]) for name in answers.classes}
    for label, matches in {"all": list(matched.values()), **{name: [one] for name, one in matched.items()}}.items():
        rows += box_belief.box_calibration_rows(label, matches, answers.patients, seed=seed)
    return rows


def _stated_metrics(answers: ScoredBoxes, names: Sequence[str], overlap: float, primary: str) -> Iterator[StatedMetric]:
    order = sorted(MEASURED_AT, key=lambda metric: metric != primary)
    for metric in order:
        matches = [[answers.matches(name, one) for one in MEASURED_AT[metric]] for name in names]
        overlaps = "0.5 to 0.95" if len(MEASURED_AT[metric]) > 1 else f"{MEASURED_AT[metric][0]:g}"
        yield StatedMetric(metric, _precision(matches), f"; at IoU {overlaps}, 101 recalls")
    curves = [answers.froc(name) for name in names]
    strict = [answers.froc(name, 0.1) for name in names]
    by_centre = "; found where the centre lies in the reference"
    yield StatedMetric("cpm", _cpm(curves), f"{by_centre}; mean at 1/8 to 8 false boxes an image")
    yield StatedMetric("cpm_iou10", _cpm(strict), "; found from IoU 0.1 on; mean at 1/8 to 8 an image")
    for metric, rate in BY_RATE.items():
        yield StatedMetric(metric, _sensitivity(curves, rate), f"{by_centre}; at most {rate:g} false boxes an image")
    yield from _by_size(answers, curves, by_centre)
    counts = [answers.counts_at_threshold(name, overlap) for name in names]
    low, high = answers.levels.min(), answers.levels.max()
    score = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}, each fold's own,"
    at = f"; boxes from a score of {score} on, found from IoU {overlap:g} on"
    for metric in CALLED:
        yield StatedMetric(metric, _call(counts, metric), at)


def _by_size(answers: ScoredBoxes, curves: Sequence[Froc], note: str) -> Iterator[StatedMetric]:
    """The sensitivity in thirds of each class's references by size."""
    bounds = [[-np.inf, *np.quantile(one.sizes, [1 / 3, 2 / 3]).tolist(), np.inf] for one in curves]
    for number, metric in enumerate(BY_SIZE):
        groups = [
            (one.sizes > cut[number]) & (one.sizes <= cut[number + 1]) for one, cut in zip(curves, bounds, strict=True)
        ]
        in_all, *in_each = (
            f"{note}; {words}; at most {SIZE_RATE:g} false boxes an image"
            for words in ("thirds of each class by size", *(_sides(cut, number, answers.unit) for cut in bounds))
        )
        yield StatedMetric(metric, _sensitivity(curves, SIZE_RATE, groups), in_all, in_each)


def _sides(bounds: Sequence[float], group: int, unit: str) -> str:
    low, high = (f"{bounds[group + end]:.3g} {unit}" for end in (0, 1))
    return (f"sides up to {high}", f"sides above {low} up to {high}", f"sides above {low}")[group]


def _precision(matches: Sequence[Sequence[Matches]]) -> Statistic:
    return lambda n, weights: np.mean([one.average_precision(weights) for one in matches[n]], axis=0)


def _cpm(curves: Sequence[Froc]) -> Statistic:
    return lambda n, weights: curves[n].cpm(weights)


def _sensitivity(curves: Sequence[Froc], rate: float, groups: Sequence[np.ndarray] | None = None) -> Statistic:
    return lambda n, weights: curves[n].sensitivity(rate, weights, among=None if groups is None else groups[n])


def _call(counts: Sequence[Floats], metric: str) -> Statistic:
    def figure(n: int, weights: Floats) -> Floats:
        """One class's figure, for each weighting of the cases."""
        right, wrong, total = (weights @ one for one in counts[n])
        part, of_all = {
            "sensitivity": (right, total),
            "ppv": (right, right + wrong),
            "f1": (2 * right, right + wrong + total),
        }[metric]
        return cast("Floats", np.divide(part, of_all, out=np.full(np.shape(part), np.nan), where=of_all > 0))

    return figure


def _of_each(metric: StatedMetric, answers: ScoredBoxes, names: Sequence[str], seed: Seed) -> Iterator[Row]:
    """The unweighted mean of the classes that have a reference, then each of them."""

    def every(weights: Floats) -> Floats:
        """The mean over the classes, for each weighting of the cases."""
        if not names:
            return np.full(len(weights), np.nan)
        return np.asarray(np.mean([metric.figure(n, weights) for n in range(len(names))], axis=0))

    several = "; unweighted mean of the classes" if len(names) > 1 else ""
    without = len(answers.classes) - len(names)
    left = f"; {errors.count_phrase(without, 'class', 'classes')} without a reference left out" if without else ""
    # By its score a box is compared with those of other cases, unless all are called from one score on.
    compares = metric.metric not in CALLED
    estimate = partial(_estimate, patients=answers.patients, seed=seed, compares=compares)
    holders = {name: answers.holders(name) for name in names}
    mean = estimate(every, note=f"{metric.note}{several}{left}", labels=holders)
    yield Row(metric.metric, "all", mean)
    notes = metric.by_class or [metric.note] * len(names)
    for number, (name, note) in enumerate(zip(names, notes, strict=True)):
        figure = partial(metric.figure, number)
        yield Row(metric.metric, name, estimate(figure, note=note, labels={name: holders[name]}))


def _estimate(
    statistic: Callable[[Floats], Floats],
    patients: np.ndarray,
    note: str,
    *,
    labels: Mapping[str, np.ndarray],
    seed: Seed,
    compares: bool,
) -> Estimate:
    estimate = intervals.bootstrap_statistic(
        statistic, patients, exact=False, seed=seed, compares=compares, labels=labels
    )
    return binary_scores.with_note(estimate, note)


def _text(lengths: Floats, scores: Floats | None = None) -> str:
    """Rows of lengths in JSON, rounded, each after its score, which is not: 0.999997 is not certain."""
    rows = np.round(lengths.astype(float), 5).tolist()
    if scores is not None:
        rows = [[score, *row] for score, row in zip(scores.tolist(), rows, strict=True)]
    return json.dumps(rows)


def _numbers(text: str, columns: int) -> Floats:
    """(boxes, columns) numbers of a cell. Raises FormatError for a cell that `_text` did not write."""
    try:
        return np.array(structured_text.parse_json(text), dtype=float).reshape(-1, columns)
    except (TypeError, ValueError) as error:
        raise FormatError(f"a cell holds no boxes ({error})", "table of cases", "Evaluate the model again") from error


def box_overview(answers: ScoredBoxes, overlap: float, folds: int) -> list[Figure]:
    """Overview of each class, and of all boxes together.

    overlap: from which a box is right
    folds:   how many models have scored the cases
    """
    matches = {name: answers.matches(name, overlap) for name in answers.classes}
    curves = [
        box_figures.box_precision_recall(
            {name: one.curve for name, one in matches.items()}, f"Precision and recall at IoU {overlap:g}"
        ),
        box_figures.froc(
            {name: answers.froc(name).curve for name in answers.classes},
            "Free-response receiver operating characteristic",
        ),
    ]
    pooled = binary_scores.pooled_note(folds)
    curves_with_notes = [replace(one, caption=f"{one.caption} {pooled}".strip()) for one in curves]
    scores, right = (np.concatenate([getattr(one, key) for one in matches.values()]) for key in ("scores", "right"))
    if len(scores):
        return [
            *curves_with_notes,
            discrimination_figures.reliability_diagram(
                right, scores, "Can the scores of boxes be believed?", counted="boxes"
            ),
        ]
    return curves_with_notes
