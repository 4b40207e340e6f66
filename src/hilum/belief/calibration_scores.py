"""Rows on how well probabilities agree with frequencies, before and after calibration, and doubt with errors.

Doubt detects errors, and risk falls with coverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from hilum.belief import certainties
from hilum.belief.certainties import LEAST_CHANCE
from hilum.evaluation import Metric, Seed, Table, calibration, classification, intervals, uncertainty
from hilum.evaluation.calibration import BY_MASS, LARGEST_GAP
from hilum.evaluation.classification import BRIER
from hilum.evaluation.metric import BEFORE, BY_EPISTEMIC
from hilum.lazy import pandas as pd
from hilum.values import Floats, Row

DOUBTS = ("total", "epistemic")
# By the whole uncertainty; by the epistemic part they have the same names with an end.
DOUBT_METRICS: tuple[Metric, ...] = (
    Metric("error_detection", "Error detection (AUROC)", is_of_belief=True, may_judge=False),
    Metric("aurc", "Area under risk-coverage", "less", is_of_belief=True, may_judge=False),
    Metric("excess_aurc", "Excess area under risk-coverage", "less", is_of_belief=True, may_judge=False),
)
# Of probabilities in a log loss: half the distance of 1 to the number below it.
LEAST_STATED = 2.0**-53
# How much calibration changed the log loss of the same cases; above 0 it made their probabilities worse.
LOG_LOSS_CHANGE = Metric("log_loss_change", "Change of the log loss by calibration", "less", may_judge=False)
_SLOPES = (Metric("calibration_slope", better="aim", aim=1.0), Metric("calibration_intercept", better="aim", aim=0.0))
# How spread the references are is no merit of a model.
_BRIER_PARTS = (
    Metric("brier_reliability", better="less"),
    Metric("brier_resolution"),
    Metric("brier_uncertainty", better="aim"),
)
# What a plan may name as the primary metric.
_SCORES = (BRIER, Metric("ece", "ECE", "less", least=0.0, most=1.0))
_DETAILS = (
    Metric("ece_equal_mass", "ECE of bins of equal mass", "less"),
    Metric("temperature", "Temperature that remains", "aim", aim=1.0),
    *_SLOPES,
    Metric("mce", "Largest calibration error", "less"),
    Metric("ace", "Adaptive calibration error", "less"),
    *_BRIER_PARTS,
)
# Of probabilities, those of their doubt last. Before calibration they have the same names with an end.
CALIBRATION_METRICS = (
    Metric("log_loss", better="less", is_of_belief=True, may_judge=False),
    *(replace(one, is_of_belief=True) for one in _SCORES),
    *(replace(one, is_of_belief=True, may_judge=False) for one in _DETAILS),
    *DOUBT_METRICS,
    LOG_LOSS_CHANGE,
)


def calibration_rows(
    label: str,
    probabilities: Floats,
    reference: np.ndarray,
    patients: np.ndarray,
    *,
    uncalibrated: Floats | None,
    seed: Seed,
) -> Iterator[Row]:
    """Log loss and how calibration changed it, errors by bins, and the temperature, slope and intercept that remain.

    probabilities, uncalibrated: (cases, classes), those before calibration None where that changed nothing
    reference: (cases,) index of the class; patients: (cases,)
    """
    sides = {"": probabilities} if uncalibrated is None else {"": probabilities, BEFORE: uncalibrated}
    for side, table in sides.items():
        logs = np.log(table.clip(LEAST_CHANCE))
        chance, happened = chance_and_truth(table, reference)
        yield Row(
            f"log_loss{side}", label, intervals.bootstrap(_losses(table, reference), patients, seed=seed, exact=False)
        )
        by_mass = calibration.calibration_error(chance, happened, patients, seed=seed, kind=BY_MASS)
        yield Row(f"ece_equal_mass{side}", label, by_mass)
        if side:
            classes = table.shape[1]
            squares = ((table - np.eye(classes)[reference]) ** 2).sum(axis=1) / (2 if classes == 2 else 1)
            yield Row(f"brier{side}", label, intervals.bootstrap(squares, patients, seed=seed))
            yield Row(f"ece{side}", label, calibration.calibration_error(chance, happened, patients, seed=seed))
        yield Row(f"temperature{side}", label, calibration.remaining_temperature(logs, reference, patients))
        if table.shape[1] == 2:
            both = calibration.slope_and_intercept(logs[:, 1] - logs[:, 0], reference == 1, patients)
            yield from (Row(f"{metric.name}{side}", label, one) for metric, one in zip(_SLOPES, both, strict=True))
    if uncalibrated is not None:
        now, before = (_losses(table, reference) for table in (probabilities, uncalibrated))
        yield Row(LOG_LOSS_CHANGE.name, label, intervals.bootstrap(now - before, patients, seed=seed, exact=False))
    for side, table in sides.items():
        yield from _rows_by_bins(label, side, table, reference, patients, seed)


def _rows_by_bins(
    label: str, side: str, probabilities: Floats, reference: np.ndarray, patients: np.ndarray, seed: Seed
) -> Iterator[Row]:
    """The largest and the adaptive error, and the parts of the Brier score; side: the end of their names."""
    chance, happened = chance_and_truth(probabilities, reference)
    true = np.eye(probabilities.shape[1])[reference]
    worst = calibration.calibration_error(chance, happened, patients, seed=seed, kind=LARGEST_GAP)
    yield Row(f"mce{side}", label, worst)
    yield Row(
        f"ace{side}", label, calibration.calibration_error(probabilities, true, patients, seed=seed, kind=BY_MASS)
    )
    # The Brier score of two classes is that of the second, of several the sum over them.
    if probabilities.shape[1] > 2:
        chance = probabilities
        happened = true
    for metric, part in zip(
        _BRIER_PARTS, calibration.brier_estimates(chance, happened, patients, seed=seed), strict=True
    ):
        yield Row(f"{metric.name}{side}", label, part)


def _losses(probabilities: Floats, reference: np.ndarray) -> Floats:
    """(cases,) the negative logarithm of the probability of what is true; at most 36.7 nats.

    Of 1 less a probability nothing below 2^-53 is left: so neither side of a finding costs more than the other.
    """
    losses: Floats = -np.log(probabilities.clip(LEAST_STATED))[np.arange(len(probabilities)), reference]
    return losses


def slope_rows(
    names: Sequence[str],
    probabilities: Floats,
    reference: np.ndarray,
    patients: np.ndarray,
    *,
    uncalibrated: Floats | None,
) -> Iterator[Row]:
    """Slope and intercept of each of several classes against the rest; the arguments of `calibration_rows`."""
    for side, table in (("", probabilities), (BEFORE, uncalibrated)):
        if table is None:
            continue
        for index, name in enumerate(names):
            both = calibration.slope_and_intercept(certainties.log_odds(table[:, index]), reference == index, patients)
            yield from (Row(f"{metric.name}{side}", name, one) for metric, one in zip(_SLOPES, both, strict=True))


def binary_calibration_rows(
    label: str, chances: Floats, truth: np.ndarray, patients: np.ndarray, *, uncalibrated: Floats | None, seed: Seed
) -> Iterator[Row]:
    """`calibration_rows` of one question, after its Brier score and its error by bins.

    chances, uncalibrated, truth, patients: (samples,) uncalibrated None where calibration changed nothing
    """
    yield Row("brier", label, intervals.bootstrap((chances - truth) ** 2, patients, seed=seed))
    yield Row("ece", label, calibration.calibration_error(chances, truth, patients, seed=seed))
    both, before = (None if one is None else np.stack([1 - one, one], axis=1) for one in (chances, uncalibrated))
    assert both is not None  # noqa: S101 - only what was before may be missing
    yield from calibration_rows(label, both, truth.astype(int), patients, uncalibrated=before, seed=seed)


def calibration_rows_of_many(
    label: str,
    chances: Floats,
    truth: np.ndarray,
    patients: np.ndarray,
    *,
    before: Floats,
    cases: int,
    note: str,
    seed: Seed,
) -> Iterator[Row]:
    """`binary_calibration_rows` of answers of which a case has many, such as boxes.

    chances, before, truth, patients: (answers,) before: those of before calibration, the same where there was none
    cases: how many have an answer; note: what the method of each estimate ends with
    """
    uncalibrated = None if np.allclose(before, chances, rtol=0, atol=1e-12) else before
    for row in binary_calibration_rows(label, chances, truth, patients, uncalibrated=uncalibrated, seed=seed):
        method = f"{row.estimate.method}{note}"
        yield replace(row, estimate=replace(row.estimate, n=cases, method=method))


def probabilities_before(table: Table, before: Sequence[str], now: Sequence[str]) -> Floats | None:
    """(cases, columns) probabilities before calibration; None where that changed nothing, or nobody kept them."""
    if not set(before) <= set(table):
        return None
    before_calibration, after_calibration = (table[list(columns)].to_numpy(float) for columns in (before, now))
    is_finite = np.isfinite(before_calibration).all()
    is_same = np.allclose(before_calibration, after_calibration, rtol=0, atol=1e-12)
    return before_calibration if is_finite and not is_same else None


def chance_and_truth(probabilities: Floats, reference: np.ndarray) -> tuple[Floats, np.ndarray]:
    """(cases,) the probability that is compared with how often it comes true, and whether it did.

    Of two classes that of the second, of several that of the most probable one.
    """
    if probabilities.shape[1] == 2:
        return probabilities[:, 1], reference == 1
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == reference


class DoubtedAnswers(NamedTuple):
    """Answers of a table of cases: {"total", "epistemic": (answers,)}, the loss of each, and whose they are."""

    doubts: Mapping[str, Floats]
    loss: Floats
    patients: np.ndarray

    @classmethod
    def from_table(cls, table: Table) -> DoubtedAnswers:
        """Wrong calls count 1, masks what their mean Dice lacks to 1; without doubts where nobody stated any.

        Of findings the entropy of each is its doubt: the columns of a case are those of all its findings.
        """
        columns = {name: table[name] for name in DOUBTS if name in table}
        if "probability" in table:
            chance = table["probability"].to_numpy(float)
            columns = {"total": pd.Series(np.asarray(uncertainty.entropy([chance, 1 - chance]), float), table.index)}
        if {"predicted", "reference"} <= set(table):
            loss = (table["predicted"] != table["reference"]).where(table["reference"].notna()).astype(float)
            rows = pd.DataFrame({**columns, "loss": loss})
            patients = table["patient"]
        elif "dice" in table and columns:
            cases = table.assign(loss=1 - table["dice"]).groupby("case", sort=False)
            rows = cases[[*columns, "loss"]].mean()
            patients = cases["patient"].first()
        else:
            return cls({}, np.empty(0), np.empty(0))
        is_known = rows.notna().all(axis=1).to_numpy()
        numbers = {str(name): rows[name].to_numpy(float)[is_known] for name in rows}
        return cls(numbers, numbers.pop("loss"), patients.to_numpy(str)[is_known])


def doubt_rows(table: Table, *, seed: Seed) -> Iterator[Row]:
    """AUROC of the doubt against being wrong, and the area under risk-coverage, above that of the best order too."""
    doubts, loss, patients = DoubtedAnswers.from_table(table)
    for name, doubt in doubts.items() if len(loss) else ():
        end = "" if name == "total" else BY_EPISTEMIC
        if np.isin(loss, (0, 1)).all():
            area = partial(classification.auroc, doubt, loss > 0)
            estimate = intervals.bootstrap_statistic(area, patients, strata=loss, seed=seed, compares=True)
            yield Row(f"error_detection{end}", "all", estimate)
        for metric, figure in (("aurc", uncertainty.aurc), ("excess_aurc", uncertainty.excess_aurc)):
            estimate = intervals.bootstrap_statistic(partial(figure, doubt, loss), patients, seed=seed, exact=False)
            yield Row(f"{metric}{end}", "all", estimate)
