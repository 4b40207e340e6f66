"""The scores of objects: one row a case, of classes one each, estimates over cases and over all objects, and charts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.belief import covering_results, object_belief
from hilum.belief.calibration_scores import CALIBRATION_METRICS
from hilum.belief.covering_results import FALSE, MISSED
from hilum.belief.prediction_sets import SET_METRICS
from hilum.evaluation import Metric, Metrics, Seed, Table, case_tables, instances, intervals, regression, tracks
from hilum.evaluation.case_tables import ALL
from hilum.evaluation.instances import InstanceOverlap
from hilum.evaluation.regression import AGREEMENT_METRICS
from hilum.evaluation.tracks import TRACK_METRICS
from hilum.files.storage import structured_text
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import charts, discrimination_figures, slice_figures
from hilum.tasks import properties
from hilum.tasks.instances.answering import ObjectAnswering
from hilum.tasks.shared import measurements
from hilum.tasks.shared.measurements import MeasuredQuantity
from hilum.transforms import label_maps
from hilum.values import Array, Case, Confidence, Floats, Label, Prediction, Row
from hilum.values.table_cells import PlainCell

# Metrics of each case, whose mean is stated; the primary one first.
SHARES = ("ap50", "ap75", "ap", "f1", "aji", "pq", "sq", "rq")
COUNTS = ("count_error", "count_difference")
# Metrics of the objects of all cases together, as StarDist states them; large cases count more.
POOLED = {"ap50_pooled": "matched50", "ap75_pooled": "matched75"}
# Columns of the row of all classes of a case: F1 of objects of whatever class, and matched objects by class in JSON.
FOUND = "f1_any_class"
ACCURACY = "class_accuracy"
CONFUSION = "confusion"
LIMITS = ("loa_lower", "loa_upper")
OF_SETS = ("coverage", "set_size")
METRICS = Metrics(
    (
        Metric("ap50", "AP at IoU 0.5", worst=0.0),
        Metric("ap75", "AP at IoU 0.75", worst=0.0),
        Metric("ap", "AP at IoU 0.5 to 0.95", worst=0.0),
        Metric("f1", worst=0.0),
        Metric("aji", "Aggregated Jaccard (AJI)", worst=0.0),
        Metric("pq", "Panoptic quality (PQ)", worst=0.0),
        Metric("sq", "Segmentation quality (SQ)", worst=0.0),
        Metric("rq", "Recognition quality (RQ)", worst=0.0),
        Metric("count_error", better="less", unit="objects"),
        Metric("count_difference", better="aim", aim=0.0, unit="objects"),
        Metric("count_relative_bias", better="aim", aim=0.0, unit="%", tolerated=5.0),
        Metric("ap50_pooled", "AP at IoU 0.5, pooled", least=0.0, most=1.0),
        Metric("ap75_pooled", "AP at IoU 0.75, pooled", least=0.0, most=1.0),
        Metric(ACCURACY, "Class accuracy among matched objects", worst=0.0),
        Metric(FOUND, "F1 whatever the class", worst=0.0),
        *(one for one in (*AGREEMENT_METRICS, *SET_METRICS) if one.name in (*LIMITS, *OF_SETS)),
        Metric(MISSED, "Missed by covering objects", "less"),
        Metric(FALSE, "False covering objects a case", "less"),
        *TRACK_METRICS,
        *CALIBRATION_METRICS,
    ),
    label_word="class",
    of_case="f1",
).mark_audited(audited=("pq", "f1"), calibration="ece")
NOTES = {
    FOUND: "found above an IoU of 0.5, of whatever class",
    "ap50": "found above an IoU of 0.5; TP / (TP + FP + FN) of each case",
    "ap75": "found above an IoU of 0.75; TP / (TP + FP + FN) of each case",
    "ap": "mean of IoU 0.5 to 0.95; TP / (TP + FP + FN) of each case",
    "f1": "found above an IoU of 0.5",
    "sq": "mean IoU of what was found",
    "count_error": "absolute difference of the numbers of objects",
    "count_difference": "predicted less reference",
    "count_relative_bias": "predicted less reference, of all cases together",
}


class ObjectScoring(ObjectAnswering):
    """The scores of objects, and what reports show of them."""

    @property
    def primaries(self) -> frozenset[str]:
        """The metrics of a summary with these settings: some need classes."""
        return self.metrics.primaries - (frozenset() if self.classes else {ACCURACY, FOUND, *LIMITS})

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case, of classes one for each and one for what concerns them all, on the reference's own grid."""
        pairs = zip(predictions, cases, strict=True)
        return pd.DataFrame([row for one, case in pairs for row in self._score(one, case)])

    def _score(self, prediction: Prediction, case: Case) -> Iterator[dict[str, PlainCell]]:
        reference = self._reference(case, prediction)
        overlap = instances.instance_overlap(np.asarray(prediction.data), reference)
        named = {"case": case.id, "patient": case.patient}
        of_all = {**self.answers.columns(prediction, reference), "tracks": self._tracks(prediction, reference, case.id)}
        if prediction.objects is None:
            yield {**named, "label": ALL, **object_case_row(overlap, prediction.confidence), **of_all}
            return
        ours = prediction.objects.kinds
        theirs = instances.coded_classes(reference, len(self.classes))
        confusion = overlap.confusion(ours, theirs, len(self.classes)).tolist()
        of_all |= self._set_columns(prediction, overlap, theirs)
        yield {**named, "label": ALL, FOUND: overlap.f1(), CONFUSION: json.dumps(confusion), **of_all}
        for kind, name in enumerate(self.classes):
            of_class = overlap.within(ours == kind, theirs == kind)
            row = object_case_row(of_class, prediction.confidence, ours == kind)
            yield {**named, "label": case_tables.figure_label(name), **row}

    def _set_columns(
        self, prediction: Prediction, overlap: InstanceOverlap, kinds: NDArray[np.int64]
    ) -> dict[str, float]:
        """The share of matched objects whose set holds their class, and its mean size; kinds: of the reference"""
        sets = [*prediction.confidence.set.values()]
        pairs = zip(*object_belief.hit_pairs(overlap), strict=True)
        held = [(self.classes[kinds[true]] in sets[own], len(sets[own])) for own, true in pairs] if sets else []
        return dict(zip(OF_SETS, np.mean(held, axis=0).tolist(), strict=True)) if held else {}

    def _tracks(self, prediction: Prediction, reference: Array, case: str) -> str | None:
        """Entries that scores of tracks need, of a frame of a clip."""
        (_, ours), (numbers, theirs) = (
            label_maps.boxes_of_numbers(one) for one in (np.asarray(prediction.data), reference)
        )
        both = instances.instance_overlap(np.asarray(prediction.data), reference)
        shared = np.zeros((len(theirs), len(ours)))
        shared[both.pairs[:, 1], both.pairs[:, 0]] = both.iou
        return tracks.frame_scores_json(case, ours, theirs, numbers, shared)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Objects that were found, missed and wrongly called."""
        if CONFUSION not in table:
            return object_summary_rows(table, seed=seed)
        return list(class_summary_rows(table, [*map(case_tables.figure_label, self.classes)], seed=seed))

    def rank(self, table: Table) -> list[str]:
        """Case ids by average precision, of classes by their mean; a case without any object counts as 1."""
        means = table.groupby("case", sort=False)["ap"].mean()
        order = means.fillna(1.0).sort_values(ascending=False, kind="stable")
        return [str(case) for case in order.index]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Outlines of the predicted objects, and of the reference where there is one; of classes in their colours."""
        reference = None
        labels = list[Label]()
        if "instances" in case.references:
            reference = self._reference(case, prediction)
            kinds = instances.coded_classes(reference, len(self.classes)) if self.classes else ()
            numbers = np.setdiff1d(reference, 0).tolist()
            pairs = zip(numbers, kinds, strict=False)
            labels = [self._label_of(number, self.classes[kind]) for number, kind in pairs]
        image = properties.first_image(case)
        predicted = np.asarray(prediction.data)
        outlined_labels = (labels, prediction.labels if self.classes else ())
        return [slice_figures.object_outlines(image, reference, predicted, title=case.id, labels=outlined_labels)]

    def overview(self, table: Table) -> list[Figure]:
        """Metrics of the cases, and numbers of objects over those of the reference; of classes their confusion."""
        counts = table[table["objects_reference"].notna()]
        values = {
            METRICS.metric_named(name).words: table[name].dropna().to_numpy(float) for name in ("ap50", "aji", "pq")
        }
        reference, predicted = (counts[name].to_numpy(float) for name in ("objects_reference", "objects_predicted"))
        axes = ("objects of the reference", "objects predicted")
        return [
            charts.histogram_chart(values, "Scores of the cases", axis="score"),
            charts.scatter(reference, predicted, "Numbers of objects", axes=axes, identity=True),
            *self._confusion_figures(table),
        ]

    def _confusion_figures(self, table: Table) -> Iterator[Figure]:
        if CONFUSION in table:
            counts = confusion_of_cases(table).sum(axis=0)
            yield discrimination_figures.confusion_plot(counts, self.classes, "Classes of matched objects")

    def further_tables(self, table: Table) -> Mapping[str, Table]:
        """Of classes the objects that were matched, by the class of the reference and that which was predicted."""
        if CONFUSION not in table:
            return {}
        counts = confusion_of_cases(table).sum(axis=0)
        named = [(true, called) for true in self.classes for called in self.classes]
        rows = [(*pair, int(count)) for pair, count in zip(named, counts.ravel(), strict=True)]
        return {CONFUSION: pd.DataFrame(rows, columns=["reference", "predicted", "objects"])}


def object_case_row(
    overlap: InstanceOverlap, confidence: Confidence, chosen: NDArray[np.bool_] | None = None
) -> dict[str, PlainCell]:
    """The metrics of one case, NaN where neither side has an object, and the scores of its objects.

    chosen: whether each predicted object is one of the overlap's, where it holds one class
    """
    predicted = len(overlap.predicted)
    reference = len(overlap.reference)
    return {
        "ap50": overlap.ap((0.5,)),
        "ap75": overlap.ap((0.75,)),
        "ap": overlap.ap(),
        "f1": overlap.f1(),
        "aji": overlap.aji,
        "pq": overlap.pq,
        "sq": overlap.sq,
        "rq": overlap.rq,
        "count_error": float(abs(predicted - reference)),
        "count_difference": float(predicted - reference),
        "objects_reference": reference,
        "objects_predicted": predicted,
        "matched50": overlap.matched_pairs(0.5),
        "matched75": overlap.matched_pairs(0.75),
        **object_belief.score_columns(overlap, confidence, chosen),
    }


def object_summary_rows(table: Table, *, seed: Seed) -> list[Row]:
    """Means over cases, then the figures of all objects together; patients are resampled."""
    rows = _mean_rows(table, (*SHARES, *COUNTS), seed)
    rows += _pooled_rows(table, ALL, seed)
    rows += object_belief.object_calibration_rows(table, seed=seed)
    return [
        *rows,
        *tracks.track_rows(table, seed=seed),
        *covering_results.covering_rows(table, (), "objects", seed=seed),
    ]


def class_summary_rows(table: Table, classes: Sequence[str], *, seed: Seed) -> Iterator[Row]:
    """The same of classes: "all" is the mean over them, or of all objects together; then what concerns all of them."""
    of_cases = table[table["label"] == ALL]
    of_classes = table[table["label"] != ALL]
    yield from _mean_rows(of_classes, (*SHARES, *COUNTS), seed)
    yield from _mean_rows(of_cases, [name for name in (FOUND, *OF_SETS) if name in of_cases], seed)
    yield _accuracy_row(of_cases, seed)
    for label in (ALL, *classes):
        own = of_classes if label == ALL else of_classes[of_classes["label"] == label]
        yield from _pooled_rows(own, label, seed)
        yield from object_belief.object_calibration_rows(own, label=label, seed=seed)
    for label in classes:
        own = of_classes[of_classes["label"] == label]
        reference, predicted = (own[f"objects_{side}"].to_numpy(float) for side in ("reference", "predicted"))
        people, cases = (own[name].to_numpy(str) for name in ("patient", "case"))
        counted = MeasuredQuantity(label, predicted, reference, people, cases)
        yield from (row for row in measurements.agreement_rows(counted, "objects", seed=seed) if row.metric in LIMITS)
    yield from tracks.track_rows(of_cases, seed=seed)
    yield from covering_results.covering_rows(of_cases, (), "objects", seed=seed)


def confusion_of_cases(table: Table) -> NDArray[np.int64]:
    """(cases, classes, classes) matched objects by the class of the reference, then by that which was predicted."""
    return np.array([structured_text.parse_json(cell) for cell in table[CONFUSION].dropna()], dtype=np.int64)


def _accuracy_row(table: Table, seed: Seed) -> Row:
    """The share of matched objects of all cases that have the class of the reference."""
    confusion = confusion_of_cases(table)
    right = np.trace(confusion, axis1=1, axis2=2)
    matched = confusion.sum(axis=(1, 2))

    def statistic(weights: Floats) -> Floats:
        """The share, for each weighting of the cases."""
        total = weights @ matched
        return cast("Floats", np.divide(weights @ right, total, out=np.full(np.shape(total), np.nan), where=total > 0))

    estimate = intervals.bootstrap_statistic(statistic, table["patient"], seed=seed, exact=False)
    note = f"of {errors.count_phrase(int(matched.sum()), 'matched object')}, above an IoU of 0.5"
    return _with_note(Row(ACCURACY, ALL, estimate), note)


def _mean_rows(table: Table, metrics: Sequence[str], seed: Seed) -> list[Row]:
    """Means over cases, of classes also over these."""
    rows = case_tables.mean_rows(table, {name: METRICS.metric_named(name).unit for name in metrics}, seed=seed)
    return [_with_note(row, NOTES[row.metric]) if row.metric in NOTES else row for row in rows]


def _pooled_rows(table: Table, label: str, seed: Seed) -> Iterator[Row]:
    """The figures of all objects of the rows together."""
    counts = table[["objects_reference", "objects_predicted"]].sum(axis=1).to_numpy(dtype=np.float64)
    for metric, column in POOLED.items():
        matched = table[column].to_numpy(dtype=np.float64)
        estimate = intervals.bootstrap_statistic(_pool(matched, counts), table["patient"], seed=seed, exact=False)
        yield _with_note(Row(metric, label, estimate), "TP / (TP + FP + FN) of all objects together")
    predicted, reference = (table[f"objects_{side}"].to_numpy(float) for side in ("predicted", "reference"))
    if reference.all():
        statistic = partial(regression.relative_bias, predicted, reference)
        estimate = intervals.bootstrap_statistic(statistic, table["patient"], unit="%", seed=seed, exact=False)
        yield _with_note(Row("count_relative_bias", label, estimate), NOTES["count_relative_bias"])


def _pool(matched: Floats, counts: Floats) -> Callable[[Floats], Floats]:
    def statistic(weights: Floats) -> Floats:
        """TP / (TP + FP + FN) of all objects, for each weighting of the cases."""
        right = weights @ matched
        total = weights @ counts
        return cast("Floats", np.divide(right, total - right, out=np.full(np.shape(right), np.nan), where=total > 0))

    return statistic


def _with_note(row: Row, note: str) -> Row:
    return replace(row, estimate=replace(row.estimate, method=f"{row.estimate.method}; {note}"))
