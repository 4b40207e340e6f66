"""The scores of findings: their unweighted mean first, then each finding over the cases in which it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np

from hilum.belief import calibration_scores, certainties, operating_points, prediction_sets
from hilum.belief.calibration_scores import CALIBRATION_METRICS
from hilum.belief.certainties import ABSENT, PRESENT
from hilum.belief.prediction_sets import SET, SET_METRICS
from hilum.evaluation import CaseValues, Metrics, Seed, Table, calibration, case_tables, classification, intervals
from hilum.evaluation.calibration import BY_MASS, BY_WIDTH, Gaps
from hilum.evaluation.case_tables import THRESHOLD, UNCALIBRATED
from hilum.evaluation.classification import EQUAL_WIDTH, LABEL_METRICS, Confusion
from hilum.evaluation.metric import BEFORE
from hilum.evaluation.significance import paired_tests
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import discrimination_figures, slice_figures
from hilum.tasks import properties
from hilum.tasks.findings import answering
from hilum.tasks.findings.answering import DEFAULT_THRESHOLD, FindingAnswering
from hilum.tasks.shared import binary_scores
from hilum.tasks.shared.binary_scores import BinaryCalls
from hilum.tasks.task import BlindGuess
from hilum.values import Case, Estimate, Floats, Prediction, Row
from hilum.values.table_cells import PlainCell

METRICS = Metrics((*LABEL_METRICS, *SET_METRICS, *CALIBRATION_METRICS), "finding", "brier").mark_audited(
    audited=("auroc", "calibration_slope", "coverage"), calibration="ece"
)
# Predictive values at another prevalence than that of the cases.
AT_PREVALENCE = {"ppv": Confusion.ppv_at, "npv": Confusion.npv_at}
# Metrics that set the score of one case against that of another.
RANKED = {"auroc": classification.auroc, "average_precision": classification.average_precision}
# Errors that are sums of gaps, whose means over findings are too: their bins, and these in words.
BY_BINS = {
    "ece": (BY_WIDTH, EQUAL_WIDTH),
    "ece_equal_mass": (BY_MASS, "bins of equal mass"),
    "ace": (BY_MASS, "bins of equal mass"),
}
# Of more findings reliability and confusion would fill pages; the curves show them all.
MOST_SHOWN = 6
V = TypeVar("V")


class FindingScoring(FindingAnswering):
    """The scores of findings, and what reports show of them."""

    prevalence: Mapping[str, float] | None

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and finding of which it is known: reference, predicted, probability, brier."""
        rows: list[dict[str, PlainCell]] = []
        for prediction, case in zip(predictions, cases, strict=True):
            probabilities = certainties.stated_probabilities(prediction)
            called = answering.called_findings(prediction, self.thresholds or {})
            levels = {**(self.thresholds or {}), **prediction.confidence.thresholds}
            for name, present in case.references["findings"].items():
                if name in self.findings:
                    rows.append(
                        {
                            "case": case.id,
                            "patient": case.patient,
                            "label": case_tables.figure_label(name, "finding"),
                            "reference": PRESENT if present else ABSENT,
                            "predicted": PRESENT if called[name] else ABSENT,
                            "probability": probabilities[name],
                            UNCALIBRATED: prediction.confidence.uncalibrated.get(name),
                            SET: certainties.set_in_json(prediction.confidence.set.get(name)),
                            THRESHOLD: levels.get(name),
                            "brier": (probabilities[name] - present) ** 2,
                        }
                    )
        columns = [
            "case",
            "patient",
            "label",
            "reference",
            "predicted",
            "probability",
            UNCALIBRATED,
            SET,
            THRESHOLD,
            "brier",
        ]
        return pd.DataFrame(rows, columns=columns)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric as the mean over findings, then by finding; patients are resampled with all their findings."""
        answers = self.known_calls(table)
        tables = {"all": table, **{name: table[table["label"] == name] for name in answers}}
        sets = [
            row
            for name, one in tables.items()
            for row in prediction_sets.set_rows(name, one, seed=seed, sides=(PRESENT, ABSENT))
        ]
        doubts = calibration_scores.doubt_rows(table, seed=seed)
        return [
            *finding_summary_rows(table, answers, by_finding_label(self.prevalence or {}), seed=seed),
            *sets,
            *doubts,
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean Brier score of their findings."""
        return table.groupby("case")["brier"].mean().sort_values(kind="stable").index.tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the probabilities and the findings of the reference in the caption."""
        caption = ", ".join(f"{name} {p:.2f}" for name, p in certainties.stated_probabilities(prediction).items())
        if (references := case.references.get("findings")) is not None:
            present = ", ".join(name for name, is_present in references.items() if is_present)
            caption += f"; reference {present or 'none of the known'}"
        return [slice_figures.contours(properties.first_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """Discrimination of all findings, calibration and confusion of the first."""
        return finding_overview(self.known_calls(table), case_tables.count_folds(table))

    def case_values(self, table: Table) -> list[CaseValues]:
        """Values of which AUROC, calls and Brier score of each finding are made."""
        answers = self.known_calls(table)
        cases = {name: table.loc[table["label"] == name, "case"].to_numpy(str) for name in answers}
        values = [one for name, own in answers.items() for one in binary_scores.called_values(name, own, cases[name])]
        return [*values, *paired_tests.column_values(table, self.metrics)]

    def guess(self, table: Table) -> BlindGuess:
        """The share of the training cases that have each finding, as if no image had been looked at."""
        shares = self._shares(table)
        chances = table["label"].map(shares).astype(float)
        levels = by_finding_label(self.thresholds or {})
        called = chances >= table["label"].map({name: levels.get(name, DEFAULT_THRESHOLD) for name in shares})
        guessed = table.assign(
            predicted=np.where(called, PRESENT, ABSENT),
            probability=chances,
            brier=(chances - (table["reference"] == PRESENT)) ** 2,
        )
        return BlindGuess(guessed, {"": "giving each finding its share among the training cases"}, ("auroc",))

    def _shares(self, table: Table) -> dict[str, float]:
        """{finding: share of the training cases that have it}; of these cases where it was not counted."""
        if self.counts:
            counts = by_finding_label(self.counts).items()
            return {name: by_label[PRESENT] / max(1, sum(by_label.values())) for name, by_label in counts}
        by_label = table.groupby("label")["reference"]
        return {str(name): float((references == PRESENT).mean()) for name, references in by_label}

    def known_calls(self, table: Table) -> dict[str, BinaryCalls]:
        """{label of a finding's rows: its cases}, of those in which it is known."""
        return calls_of_findings(table, [*by_finding_label(dict.fromkeys(self.findings))], str(self.point))


def calls_of_findings(table: Table, findings: Sequence[str], rule: str) -> dict[str, BinaryCalls]:
    """{finding: its cases}, of those in which it is known.

    findings: the labels of their rows; rule: by which thresholds were found
    """
    calls = {}
    for name in findings:
        rows = table[table["label"] == name]
        if len(rows):
            before = calibration_scores.probabilities_before(rows, [UNCALIBRATED], ["probability"])
            levels = rows[THRESHOLD].to_numpy(float) if THRESHOLD in rows else np.full(len(rows), np.nan)
            level_words = operating_points.levels_in_words(
                levels, rule, str(DEFAULT_THRESHOLD), by_group=case_tables.count_folds(table) == 1
            )
            calls[name] = BinaryCalls(
                rows["probability"].to_numpy(float),
                (rows["predicted"] == PRESENT).to_numpy(bool),
                (rows["reference"] == PRESENT).to_numpy(bool),
                rows["patient"].to_numpy(str),
                f"; {level_words}",
                None if before is None else before[:, 0],
            )
    return calls


def finding_summary_rows(
    table: Table, answers: Mapping[str, BinaryCalls], prevalence: Mapping[str, float], *, seed: Seed
) -> list[Row]:
    """Each metric over all findings (unweighted mean), then by finding."""
    by_finding = [row for name, one in answers.items() for row in _of_finding(name, one, prevalence.get(name), seed)]
    return [*_means(table, answers, by_finding, prevalence, seed), *by_finding]


def finding_overview(answers: Mapping[str, BinaryCalls], folds: int) -> list[Figure]:
    """Discrimination of all findings; of the first few calibration, and what was taken for what.

    folds: how many models have scored the cases
    """
    pictures = binary_scores.discrimination_overview(
        {name: (one.truth, one.scores, one.patients) for name, one in answers.items()}, folds
    )
    for name, answer in list(answers.items())[:MOST_SHOWN]:
        pictures.append(
            discrimination_figures.reliability_diagram(
                answer.truth, answer.scores, f"Can the probabilities of {name} be believed?"
            )
        )
        counts = Confusion.from_calls(answer.called, answer.truth).counts.astype(int)
        pictures.append(
            discrimination_figures.confusion_plot(counts, (f"no {name}", name), f"{name}: confusion matrix")
        )
    return pictures


def _of_finding(name: str, called: BinaryCalls, prevalence: float | None, seed: Seed) -> Iterator[Row]:
    yield from binary_scores.label_rows(name, called, prevalence=prevalence, seed=seed)
    yield from calibration_scores.binary_calibration_rows(
        name, called.scores, called.truth, called.patients, uncalibrated=called.uncalibrated, seed=seed
    )


def _means(
    table: Table, answers: Mapping[str, BinaryCalls], rows: Sequence[Row], prevalence: Mapping[str, float], seed: Seed
) -> Iterator[Row]:
    """The mean over the findings for which a figure is defined; a case is resampled with all its findings."""
    cases = table.drop_duplicates("case")
    number_of = {case: number for number, case in enumerate(cases["case"])}
    where = {name: table.loc[table["label"] == name, "case"].map(number_of).to_numpy(int) for name in answers}
    strata = _rarest(len(number_of), answers, where)
    values = {(row.metric, row.label): row.estimate.value for row in rows}
    for metric in dict.fromkeys(row.metric for row in rows):
        defined = [name for name in answers if np.isfinite(values.get((metric, name), np.nan))]
        note = f"; unweighted mean of {len(defined)} of {len(answers)} findings"
        if metric.removesuffix(BEFORE) in BY_BINS and defined:
            gaps = [_gaps(metric, answers[name]) for name in defined]
            mean = float(np.mean([values[metric, name] for name in defined]))
            words = f"{BY_BINS[metric.removesuffix(BEFORE)][1]}{note}"
            yield Row(
                metric,
                "all",
                calibration.binned_error_estimate(mean, Gaps.join(gaps), n=len(cases), seed=seed, expectation=words),
            )
            continue
        if metric not in METRICS.primaries or not defined:
            mean = float(np.mean([values[metric, name] for name in defined])) if defined else float("nan")
            people = int(cases["patient"].nunique())
            method = f"none: {note.lstrip('; ')}"
            yield Row(metric, "all", Estimate(mean, n=len(cases), patients=people, method=method))
            continue

        def mean_of(weights: Floats, metric: str = metric, defined: Sequence[str] = tuple(defined)) -> Floats:
            """The mean over the findings, for each weighting of the cases."""
            values = [
                _figure(metric, answers[name], weights[..., where[name]], prevalence.get(name)) for name in defined
            ]
            return cast("Floats", np.mean(values, axis=0))

        patients = cases["patient"].to_numpy(str)
        compares = metric in RANKED
        estimate = intervals.bootstrap_statistic(
            mean_of, patients, strata=strata, seed=seed, exact=False, compares=compares
        )
        yield Row(metric, "all", binary_scores.with_note(estimate, note))


def _gaps(metric: str, called: BinaryCalls) -> Gaps:
    """The distances of a finding's probabilities from frequencies; of `ace` also those that it is absent."""
    chances = called.uncalibrated if metric.endswith(BEFORE) else called.scores
    assert chances is not None  # noqa: S101 - without them the metric has no row
    truth = np.asarray(called.truth, dtype=np.float64)
    patients = np.asarray(called.patients)
    kind, _ = BY_BINS[metric.removesuffix(BEFORE)]
    present = Gaps.from_probabilities(chances, truth, patients, kind)
    if not metric.startswith("ace"):
        return present
    return Gaps.join([Gaps.from_probabilities(1 - chances, 1 - truth, patients, kind), present])


def _figure(metric: str, called: BinaryCalls, weights: Floats, prevalence: float | None) -> Floats:
    """A finding's figure under each weighting of its cases."""
    of_scores = {**RANKED, "brier": classification.brier}
    if metric in of_scores:
        return of_scores[metric](called.scores, called.truth, weights)
    counts = Confusion.from_calls(called.called, called.truth, 2, weights)
    if metric in AT_PREVALENCE and prevalence is not None:
        return AT_PREVALENCE[metric](counts, prevalence)
    figure: Floats = getattr(counts, metric)
    return figure


def _rarest(cases: int, answers: Mapping[str, BinaryCalls], where: Mapping[str, np.ndarray]) -> np.ndarray:
    """(cases,) the rarest finding that each has, by number, so that draws seldom lack one; the last for none."""
    numbers = np.full(cases, len(answers))
    for number, name in sorted(enumerate(answers), key=lambda item: -int(answers[item[1]].truth.sum())):
        numbers[where[name][answers[name].truth]] = number
    return numbers


def by_finding_label(values: Mapping[str, V]) -> dict[str, V]:
    """Values by finding, by the label of its rows in tables."""
    return {case_tables.figure_label(name, "finding"): value for name, value in values.items()}
