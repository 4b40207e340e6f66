"""The scores of objects: one row a case, estimates over cases and over all objects together, and charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from isocenter.belief import covering_results, object_belief
from isocenter.belief.calibration_scores import CALIBRATION_METRICS
from isocenter.belief.covering_results import FALSE, MISSED
from isocenter.evaluation import Metric, Metrics, Seed, Table, case_tables, instances, intervals, regression, tracks
from isocenter.evaluation.instances import InstanceOverlap
from isocenter.evaluation.tracks import TRACK_METRICS
from isocenter.lazy import pandas as pd
from isocenter.report import Figure
from isocenter.report.figures import charts, slice_figures
from isocenter.tasks import properties
from isocenter.tasks.instances.answering import ObjectAnswering
from isocenter.transforms import label_maps
from isocenter.values import Array, Case, Confidence, Floats, Prediction, Row

# Metrics of each case, whose mean is stated; the primary one first.
SHARES = ("ap50", "ap75", "ap", "f1", "aji", "pq", "sq", "rq")
COUNTS = ("count_error", "count_difference")
# Metrics of the objects of all cases together, as StarDist states them; large cases count more.
POOLED = {"ap50_pooled": "matched50", "ap75_pooled": "matched75"}
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
        Metric("ap50_pooled", "AP at IoU 0.5, pooled"),
        Metric("ap75_pooled", "AP at IoU 0.75, pooled"),
        Metric(MISSED, "Missed by covering objects", "less"),
        Metric(FALSE, "False covering objects a case", "less"),
        *TRACK_METRICS,
        *CALIBRATION_METRICS,
    ),
    of_case="f1",
).mark_audited(audited=("pq", "f1"), calibration="ece")
NOTES = {
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

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case, on the reference's own grid."""
        return pd.DataFrame([self._score(one, case) for one, case in zip(predictions, cases, strict=True)])

    def _score(self, prediction: Prediction, case: Case) -> dict[str, Any]:
        reference = self._reference(case, prediction)
        row = object_case_row(instances.instance_overlap(np.asarray(prediction.data), reference), prediction.confidence)
        row |= self.answers.columns(prediction, reference)
        row["tracks"] = self._tracks(prediction, reference, case.id)
        return {"case": case.id, "patient": case.patient, "label": "all", **row}

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
        return object_summary_rows(table, seed=seed)

    def rank(self, table: Table) -> list[str]:
        """Case ids by average precision; a case without any object counts as 1."""
        order = table.set_index("case")["ap"].fillna(1.0).sort_values(ascending=False, kind="stable")
        return [str(case) for case in order.index]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Outlines of the predicted objects, and of the reference where the case has one."""
        referenced = "instances" in case.references
        reference = self._reference(case, prediction) if referenced else None
        return [
            slice_figures.object_outlines(
                properties.first_image(case), reference, np.asarray(prediction.data), title=case.id
            )
        ]

    def overview(self, table: Table) -> list[Figure]:
        """Metrics of the cases, and numbers of objects over those of the reference."""
        values = {
            METRICS.metric_named(name).words: table[name].dropna().to_numpy(float) for name in ("ap50", "aji", "pq")
        }
        reference, predicted = (table[name].to_numpy(float) for name in ("objects_reference", "objects_predicted"))
        axes = ("objects of the reference", "objects predicted")
        return [
            charts.histogram_chart(values, "Scores of the cases", axis="score"),
            charts.scatter(reference, predicted, "Numbers of objects", axes=axes, identity=True),
        ]


def object_case_row(overlap: InstanceOverlap, confidence: Confidence) -> dict[str, Any]:
    """The metrics of one case, NaN where neither side has an object, and the scores of its objects."""
    predicted, reference = len(overlap.predicted), len(overlap.reference)
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
        **object_belief.score_columns(overlap, confidence),
    }


def object_summary_rows(table: Table, *, seed: Seed) -> list[Row]:
    """Means over cases, then the figures of all objects together; patients are resampled."""
    rows = case_tables.mean_rows(
        table, {name: METRICS.metric_named(name).unit for name in (*SHARES, *COUNTS)}, seed=seed
    )
    rows = [_with_note(row, NOTES[row.metric]) if row.metric in NOTES else row for row in rows]
    counts = table[["objects_reference", "objects_predicted"]].sum(axis=1).to_numpy(dtype=np.float64)
    for metric, column in POOLED.items():
        matched = table[column].to_numpy(dtype=np.float64)
        estimate = intervals.bootstrap_statistic(_pool(matched, counts), table["patient"], seed=seed, exact=False)
        rows.append(_with_note(Row(metric, "all", estimate), "TP / (TP + FP + FN) of all objects together"))
    predicted, reference = (table[f"objects_{side}"].to_numpy(float) for side in ("predicted", "reference"))
    if reference.all():
        statistic = partial(regression.relative_bias, predicted, reference)
        estimate = intervals.bootstrap_statistic(statistic, table["patient"], unit="%", seed=seed, exact=False)
        rows.append(_with_note(Row("count_relative_bias", "all", estimate), NOTES["count_relative_bias"]))
    rows += object_belief.object_calibration_rows(table, seed=seed)
    return [
        *rows,
        *tracks.track_rows(table, seed=seed),
        *covering_results.covering_rows(table, (), "objects", seed=seed),
    ]


def _pool(matched: Floats, counts: Floats) -> Callable[[Floats], Floats]:
    def statistic(weights: Floats) -> Floats:
        """TP / (TP + FP + FN) of all objects, for each weighting of the cases."""
        right, total = weights @ matched, weights @ counts
        return np.divide(right, total - right, out=np.full(np.shape(right), np.nan), where=total > 0)

    return statistic


def _with_note(row: Row, note: str) -> Row:
    return replace(row, estimate=replace(row.estimate, method=f"{row.estimate.method}; {note}"))
