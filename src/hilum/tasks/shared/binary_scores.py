"""Metrics and charts of one label that is called or not: of a class against the rest, or of a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hilum.evaluation import CaseValues, Seed, classification, intervals
from hilum.evaluation.classification import Confusion
from hilum.report import Figure
from hilum.report.figures import discrimination_figures
from hilum.values import Estimate, Floats, Row


@dataclass(frozen=True, eq=False)
class BinaryCalls:
    """One label of some cases.

    scores, called, truth, patients: (cases,) its probability, whether it is called, whether it is present, and in whom
    at: in words, where the operating point lies
    uncalibrated: (cases,) its probability before calibration; None where nothing was calibrated
    """

    scores: Floats
    called: np.ndarray
    truth: np.ndarray
    patients: np.ndarray
    at: str
    uncalibrated: Floats | None = None


def label_rows(name: str, calls: BinaryCalls, *, prevalence: float | None, seed: Seed) -> Iterator[Row]:
    """Metrics of one label, those of calls at the operating point; one is left out where cases for it are missing.

    prevalence: share of all people for the predictive values; that of these cases where none is stated
    """
    called = calls.called
    truth = calls.truth
    patients = calls.patients
    for metric, figure in (("auroc", classification.auroc), ("average_precision", classification.average_precision)):
        estimate = intervals.bootstrap_statistic(
            partial(figure, calls.scores, truth), patients, strata=truth, seed=seed, compares=True
        )
        yield Row(metric, name, estimate)
    if truth.any():
        yield Row(
            "sensitivity", name, with_note(intervals.proportion(called[truth], patients[truth], seed=seed), calls.at)
        )
    if not truth.all():
        yield Row(
            "specificity", name, with_note(intervals.proportion(~called[~truth], patients[~truth], seed=seed), calls.at)
        )
    values = classification.predictive_values(called, truth, patients, prevalence=prevalence, seed=seed)
    for metric, value in zip(("ppv", "npv"), values, strict=True):
        yield Row(metric, name, with_note(value, calls.at))
    for metric in ("f1", "kappa"):
        figure_of = partial(_of_calls, metric, called, truth)
        estimate = intervals.bootstrap_statistic(figure_of, patients, strata=truth, seed=seed, exact=False)
        yield Row(metric, name, with_note(estimate, calls.at))


def _of_calls(metric: str, called: np.ndarray, truth: np.ndarray, weights: Floats) -> Floats:
    figure: Floats = getattr(Confusion.from_calls(called, truth, 2, weights), metric)
    return figure


def called_values(name: str, calls: BinaryCalls, cases: np.ndarray) -> Iterator[CaseValues]:
    """Values of which AUROC, sensitivity and specificity of one label are made; cases: (cases,) ids."""
    truth = calls.truth
    called = calls.called
    if truth.any() and not truth.all():
        yield CaseValues("auroc", name, "area", cases, calls.patients, calls.scores, truth)
    for metric, right, is_of_class in (("sensitivity", called, truth), ("specificity", ~called, ~truth)):
        yield CaseValues(metric, name, "share", cases, calls.patients, right.astype(float), worst=0.0).of_rows(
            is_of_class
        )


def with_note(estimate: Estimate, note: str) -> Estimate:
    """The estimate with more words on how it was made."""
    return replace(estimate, method=estimate.method + note)


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


def discrimination_overview(curves: Curves, folds: int) -> list[Figure]:
    """Receiver operating characteristic, with bands where there is room, and precision over recall.

    folds: how many models have scored the cases
    """
    lines = {name: (truth, scores) for name, (truth, scores, _) in curves.items()}
    bands = {}
    for name, (truth, scores, patients) in curves.items() if len(curves) < MOST_BANDS else ():
        band = classification.roc_band(scores, truth, patients, seed=0)
        if band is not None:
            bands[name] = band
    pooled = pooled_note(folds)
    return [
        discrimination_figures.roc(lines, "Receiver operating characteristic", bands=bands, caption=pooled),
        discrimination_figures.precision_recall(lines, "Precision and recall", caption=pooled),
    ]
