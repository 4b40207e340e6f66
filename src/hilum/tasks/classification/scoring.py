"""The scores of a classification: discrimination, calibration and calls, of grades also their distances, and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hilum.belief import calibration_scores, certainties, operating_points, prediction_sets
from hilum.belief.calibration_scores import CALIBRATION_METRICS
from hilum.belief.prediction_sets import SET, SET_METRICS
from hilum.evaluation import (
    CaseValues,
    Metric,
    Metrics,
    Seed,
    Table,
    calibration,
    case_tables,
    classification,
    intervals,
)
from hilum.evaluation.case_tables import THRESHOLD, UNCALIBRATED
from hilum.evaluation.classification import CLASS_METRICS, GRADE_METRICS, LABEL_METRICS, Confusion
from hilum.evaluation.significance import paired_tests
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import discrimination_figures, slice_figures
from hilum.tasks import properties
from hilum.tasks.classification import answering, ordinal
from hilum.tasks.classification.answering import ClassAnswering
from hilum.tasks.classification.ordinal import CallingRule
from hilum.tasks.shared import binary_scores
from hilum.tasks.shared.binary_scores import BinaryCalls
from hilum.tasks.task import BlindGuess
from hilum.values import Case, Estimate, Floats, Prediction, Row

# Of classes whose mistakes have costs.
COST_METRICS = (Metric("expected_cost", better="less", unit="cost"),)
METRICS = Metrics(
    (*LABEL_METRICS, *CLASS_METRICS, *GRADE_METRICS, *COST_METRICS, *SET_METRICS, *CALIBRATION_METRICS),
    label_word="class",
    of_case="brier",
).mark_audited(audited=("auroc", "calibration_slope", "coverage"), calibration="ece")
# Of two classes the metrics of calibration that are those of the probability of one of them.
OF_ONE_SIDE = ("ece_equal_mass", "ece_uncalibrated", "mce", "calibration_")
PLACES = "; distances in places of the order of the classes"


@dataclass(frozen=True, eq=False)
class ClassAnswers:
    """Probabilities and references of the cases, with the rules by which classes are called.

    classes:       of two the positive one is the second, wherever figures are made
    positives:     the classes that sensitivity, predictive values and thresholds are of
    probabilities: (cases, classes); reference: (cases,) index of the class; patients: (cases,)
    predicted:     (cases,) index of the class that is called
    calling:       by which rule
    scores:        {"brier", and "rps" of grades: (cases,)}
    thresholds:    {class: (cases,) probability from which on it counts}, by `rule` from unseen cases; NaN where a fold
                   has none: of two classes 0.5 for the positive one then holds, of several the predicted class
    prevalence:    {class: share of all people}; that of these cases where none is stated
    costs:         (classes, classes) of calling a reference (row) so (column), by which mistakes count; None: nobody
                   stated any
    uncalibrated:  (cases, classes) probabilities before calibration; None where nothing was calibrated
    """

    classes: Sequence[str]
    positives: Sequence[str]
    probabilities: Floats
    reference: np.ndarray
    predicted: np.ndarray
    calling: CallingRule
    patients: np.ndarray
    scores: Mapping[str, Floats]
    rule: str
    thresholds: Mapping[str, Floats]
    prevalence: Mapping[str, float]
    costs: Floats | None = None
    uncalibrated: Floats | None = None

    def calls_at_operating_point(self, index: int) -> tuple[np.ndarray, str]:
        """(cases,) whether the class is called at its operating point, and in words where that lies."""
        if len(self.classes) == 2 and index != self._parting:
            called, words = self.calls_at_operating_point(self._parting)
            return ~called, words
        name = self.classes[index]
        usual = self.predicted == index
        by_level = len(self.classes) == 2 and self.calling.costs is None
        levels = self.thresholds.get(name, np.full(len(usual), np.nan))
        if not by_level and np.isnan(levels).all():
            return usual, self.calling.by
        called = np.where(np.isfinite(levels), self.probabilities[:, index] >= levels, usual)
        default = "0.5" if by_level else "the most probable class"
        level_words = operating_points.levels_in_words(
            levels, self.rule, default, by_group=bool(self.calling.by_group_of)
        )
        return (
            called,
            f"; {name} {level_words}",
        )

    @property
    def order(self) -> list[int]:
        """The numbers of the classes, the positive ones first."""
        return sorted(range(len(self.classes)), key=lambda n: self.classes[n] not in self.positives)

    def role(self, index: int) -> str:
        """Word on whether a class is positive; empty where every class is."""
        name = self.classes[index]
        others = len(self.positives) < len(self.classes)
        return f"; {name} is {'positive' if name in self.positives else 'negative'}" if others else ""

    @property
    def _parting(self) -> int:
        """The class of two whose threshold parts them: the positive one, unless only the other has one."""
        return int(self.classes[1] in self.thresholds or self.classes[0] not in self.thresholds)


class ClassScoring(ClassAnswering):
    """The scores of a classification, and what reports show of them."""

    counts: Mapping[str, int] | None
    prevalence: Mapping[str, float] | None
    priced: tuple[tuple[float, ...], ...] | None

    @property
    def primaries(self) -> frozenset[str]:
        """Primary metrics of classes, and those that grades and costs add."""
        return primary_metrics(ordered=self.is_ordered, costly=bool(self.costs))

    @property
    def prices(self) -> tuple[tuple[float, ...], ...] | None:
        """The costs by which mistakes are counted."""
        return self.priced or ordinal.costs_of_mistakes(self.order, self.costs, len(self.classes))

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case: reference, predicted, the probability of each class, brier, and rps of grades."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            index = answering.class_index(case, self.classes)
            probabilities = [certainties.stated_probabilities(prediction)[name] for name in self.classes]
            levels = {**(self.thresholds or {}), **prediction.confidence.thresholds}
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": "all",
                    "reference": self.classes[index],
                    "predicted": self.called_class(prediction),
                    **{f"probability_{name}": p for name, p in zip(self.classes, probabilities, strict=True)},
                    **{f"{UNCALIBRATED}_{name}": p for name, p in prediction.confidence.uncalibrated.items()},
                    SET: certainties.set_in_json(prediction.confidence.set.get("")),
                    **{f"{THRESHOLD}_{name}": level for name, level in levels.items()},
                    **case_scores(probabilities, index, ordered=self.is_ordered),
                }
            )
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """AUROC and the like with patients resampled within the classes; then one class against the rest."""
        doubts = calibration_scores.doubt_rows(table, seed=seed)
        return [
            *class_summary_rows(self._positive_second(table), seed=seed),
            *prediction_sets.set_rows("all", table, seed=seed),
            *doubts,
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the Brier score, of grades by the ranked probability score."""
        return table.sort_values("rps" if self.is_ordered else "brier", kind="stable")["case"].tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the probabilities and the reference in the caption."""
        probabilities = certainties.stated_probabilities(prediction)
        named = self.called_class(prediction)
        caption = f"Called {named} ({probabilities[named]:.2f})"
        if reference := case.references.get("class"):
            caption += (
                f", reference {reference} ({probabilities.get(reference, 0.0):.2f})"
                if reference != named
                else ", as the reference"
            )
        return [slice_figures.contours(properties.first_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """Discrimination, calibration and confusion of all cases."""
        return class_overview(self._positive_second(table), case_tables.count_folds(table))

    def case_values(self, table: Table) -> list[CaseValues]:
        """Values of which AUROC, calls, costs and Brier score are made."""
        # Of three classes or more, the squared errors of all are summed.
        summed = replace(self.metrics.metric_named("brier"), worst=2.0 if len(self.classes) > 2 else 1.0)
        metrics = Metrics((*self.metrics.each, summed))
        return [
            *class_values(self._positive_second(table), table["case"].to_numpy(str)),
            *paired_tests.column_values(table, metrics),
        ]

    def guess(self, table: Table) -> BlindGuess:
        """The shares of the classes among the training cases, as if no image had been looked at."""
        counted = self.counts or table["reference"].value_counts()
        counts = np.array([float(counted.get(name, 0)) for name in self.classes])
        shares = (counts / counts.sum()).tolist()
        named = self.classes[int(self.calling(shares))]
        rows = [case_scores(shares, self.classes.index(name), ordered=self.is_ordered) for name in table["reference"]]
        guessed = table.assign(
            predicted=named, **{f"probability_{n}": p for n, p in zip(self.classes, shares, strict=True)}
        )
        guessed = guessed.assign(**{name: [row[name] for row in rows] for name in rows[0]})
        metrics = ("quadratic_kappa", "mae") if self.is_ordered else ("auroc", "accuracy")
        return BlindGuess(guessed, {"": f"always calling {named}"}, metrics)

    def _positive_second(self, table: Table) -> ClassAnswers:
        """Probabilities and references of a table; of two classes the positive one is the second, as in figures."""
        ordered = sorted(self.classes, key=self.positives.__contains__) if len(self.classes) == 2 else self.classes
        return self._answers(table, tuple(ordered))

    def _answers(self, table: Table, classes: tuple[str, ...]) -> ClassAnswers:
        places = [self.classes.index(name) for name in classes]
        return ClassAnswers(
            classes,
            self.positives,
            table[[f"probability_{name}" for name in classes]].to_numpy(float),
            np.array([classes.index(name) for name in table["reference"]]),
            np.array([classes.index(name) for name in table["predicted"]]),
            self.calling,
            table["patient"].to_numpy(str),
            {name: table[name].to_numpy(float) for name in ("brier", *(["rps"] * self.is_ordered))},
            str(self.point),
            thresholds_by_class(table, classes, self.thresholds or {}),
            self.prevalence or {},
            None if self.prices is None else np.array(self.prices)[np.ix_(places, places)],
            calibration_scores.probabilities_before(
                table, *([f"{kind}_{name}" for name in classes] for kind in (UNCALIBRATED, "probability"))
            ),
        )


def primary_metrics(*, ordered: bool, costly: bool) -> frozenset[str]:
    """The metrics that may judge classes; ordered: of grades, whose mistakes have costs too; costly: as stated."""
    unstated = (*(() if ordered else GRADE_METRICS), *(() if ordered or costly else COST_METRICS))
    return METRICS.primaries - {one.name for one in unstated}


def thresholds_by_class(table: Table, classes: Sequence[str], thresholds: Mapping[str, float]) -> dict[str, Floats]:
    """{class: (cases,) its threshold} as the table has them; of a table without such columns those of the task."""
    levels = {name: np.full(len(table), level) for name, level in thresholds.items()}
    columns = {name: f"{THRESHOLD}_{name}" for name in classes}
    return levels | {name: table[column].to_numpy(float) for name, column in columns.items() if column in table}


def case_scores(probabilities: Sequence[float], index: int, *, ordered: bool) -> dict[str, float]:
    """The scores of a single case: brier, and rps of grades."""
    ranked = {"rps": float(classification.ranked_probability_score([probabilities], [index]))} if ordered else {}
    return {"brier": float(classification.brier([probabilities], [index])), **ranked}


def class_selection_score(
    probabilities: Floats, reference: np.ndarray, calling: CallingRule, *, ordered: bool
) -> float:
    """AUROC, of grades the quadratic kappa; where too few classes are among the cases, the mean log likelihood."""
    classes = probabilities.shape[1]
    if ordered:
        counts = Confusion.from_calls(calling(probabilities), reference, classes)
        metric = float(classification.weighted_kappa(counts, classification.grade_distances(classes, 2)))
    else:
        metric = float(classification.one_against_rest(classification.auroc, probabilities, reference))
    if np.isfinite(metric):
        return metric
    return float(np.log(probabilities[np.arange(len(reference)), reference].clip(1e-7)).mean())


def class_summary_rows(answers: ClassAnswers, *, seed: Seed) -> list[Row]:
    """Over all classes, those of grades and costs first; then one class against the rest, at the operating point."""
    graded = _of_grades(answers, seed) if "rps" in answers.scores else ()
    return [
        *graded,
        *_of_costs(answers, seed),
        *_overall(answers, seed),
        *(row for n in answers.order for row in _of_class(answers, n, seed)),
    ]


def class_values(answers: ClassAnswers, cases: np.ndarray) -> Iterator[CaseValues]:
    """Values of which figures of all classes, then of each class against the rest, are made; cases: (cases,) ids."""
    predicted = answers.predicted
    reference = answers.reference
    patients = answers.patients
    if len(answers.classes) == 2 and len(set(reference.tolist())) == 2:
        yield CaseValues("auroc", "all", "area", cases, patients, answers.probabilities[:, 1], reference == 1)
    yield CaseValues("accuracy", "all", "share", cases, patients, (predicted == reference).astype(float), worst=0.0)
    if "rps" in answers.scores:
        apart = np.abs(predicted - reference).astype(float)
        most = float(len(answers.classes) - 1)
        yield CaseValues("mae", "all", "mean", cases, patients, apart, worst=most)
    if (costs := _costs(answers)) is not None:
        paid = costs[0][reference, predicted]
        most = float(costs[0].max())
        yield CaseValues("expected_cost", "all", "mean", cases, patients, paid, worst=most)
    for index in answers.order:
        yield from binary_scores.called_values(
            case_tables.figure_label(answers.classes[index]), _class_calls(answers, index), cases
        )


def class_overview(answers: ClassAnswers, folds: int) -> list[Figure]:
    """Discrimination, calibration, and what was taken for what; folds: how many models have scored the cases."""
    probabilities = answers.probabilities
    reference = answers.reference
    classes = answers.classes
    shown = [n for n in answers.order if classes[n] in answers.positives]
    chance, happened = calibration_scores.chance_and_truth(probabilities, reference)
    counts = Confusion.from_calls(answers.predicted, reference, len(classes)).counts.astype(int)
    return [
        *binary_scores.discrimination_overview(
            {classes[n]: (reference == n, probabilities[:, n], answers.patients) for n in shown}, folds
        ),
        discrimination_figures.reliability_diagram(
            happened, chance, "Can the probabilities be believed?", caption=_stated_of(answers)
        ),
        discrimination_figures.confusion_plot(counts, classes, "Confusion matrix", caption=_how_called(answers)),
    ]


def _how_called(answers: ClassAnswers) -> str:
    """Rules by which cases in the matrix, and figures by class, are called; empty if by the same."""
    asked = max(n for n, name in enumerate(answers.classes) if name in answers.positives)
    called, words = answers.calls_at_operating_point(asked)
    if np.array_equal(called, answers.predicted == asked):
        return ""
    rule = answers.calling.by.removeprefix("; ")
    return f"Called {rule}; sensitivity and specificity by class are of calling{words.removeprefix(';')}."


def _stated_of(answers: ClassAnswers) -> str:
    """Whose probabilities `chance_and_truth` takes."""
    return f"Probabilities of {answers.classes[1]}." if len(answers.classes) == 2 else ""


def quadratic_kappa(
    predicted: np.ndarray, reference: np.ndarray, grades: int, patients: np.ndarray, *, seed: Seed
) -> Estimate:
    """Agreement beyond chance of (images,) grades, misses by their squares.

    How many patients there are of each grade is chance too, which decides what is beyond it: none are kept as many.
    """
    squares = classification.grade_distances(grades, 2)

    def kappa(weights: Floats) -> Floats:
        """The quadratic kappa, for each weighting."""
        return classification.weighted_kappa(Confusion.from_calls(predicted, reference, grades, weights), squares)

    return intervals.bootstrap_statistic(kappa, patients, seed=seed, exact=False)


def _of_grades(answers: ClassAnswers, seed: Seed) -> Iterator[Row]:
    reference = answers.reference
    predicted = answers.predicted
    estimate = quadratic_kappa(predicted, reference, len(answers.classes), answers.patients, seed=seed)
    yield Row("quadratic_kappa", "all", binary_scores.with_note(estimate, answers.calling.by + PLACES))
    missed = np.abs(predicted - reference)
    estimate = intervals.bootstrap(missed, answers.patients, seed=seed, unit="grades")
    yield Row("mae", "all", binary_scores.with_note(estimate, answers.calling.by + PLACES))
    yield Row("rps", "all", intervals.bootstrap(answers.scores["rps"], answers.patients, seed=seed))


def _of_costs(answers: ClassAnswers, seed: Seed) -> Iterator[Row]:
    """The mean cost of mistakes: as stated, or one unit for each grade that they miss by."""
    if (priced := _costs(answers)) is None:
        return
    costs, words = priced
    paid = costs[answers.reference, answers.predicted]
    estimate = intervals.bootstrap(paid, answers.patients, seed=seed, unit="cost")
    yield Row("expected_cost", "all", binary_scores.with_note(estimate, answers.calling.by + words))


def _costs(answers: ClassAnswers) -> tuple[Floats, str] | None:
    """(classes, classes) costs, as stated or one for each grade, and which in words."""
    if answers.costs is None:
        return None
    by_grade = "rps" in answers.scores and np.array_equal(
        answers.costs, classification.grade_distances(len(answers.classes))
    )
    return answers.costs, "; costs of 1 for each grade" if by_grade else "; costs as stated"


def _overall(answers: ClassAnswers, seed: Seed) -> Iterator[Row]:
    probabilities = answers.probabilities
    reference = answers.reference
    size = len(answers.classes)
    predicted = answers.predicted
    by = answers.calling.by

    def interval(
        figure: Callable[[Floats], Floats], note: str = "", exact: bool = True, compares: bool = False
    ) -> Estimate:
        """The figure with patients resampled within the classes."""
        estimate = intervals.bootstrap_statistic(
            figure, answers.patients, strata=reference, seed=seed, exact=exact, compares=compares
        )
        return binary_scores.with_note(estimate, note)

    def confused(weights: Floats) -> Confusion:
        """The confusion matrix, for each weighting."""
        return Confusion.from_calls(predicted, reference, size, weights)

    of_class = f"; of {answers.classes[1]}" if size == 2 else ""
    for metric, figure in (("auroc", classification.auroc), ("average_precision", classification.average_precision)):
        whose = of_class or "; unweighted mean of one class against the rest"
        yield Row(
            metric,
            "all",
            interval(partial(classification.one_against_rest, figure, probabilities, reference), whose, compares=True),
        )
    yield Row(
        "accuracy",
        "all",
        binary_scores.with_note(intervals.proportion(predicted == reference, answers.patients, seed=seed), by),
    )
    yield Row("balanced_accuracy", "all", interval(lambda w: confused(w).balanced_accuracy, by))
    of_all = of_class or "; unweighted mean of the classes"
    yield Row("f1", "all", interval(lambda w: confused(w).f1, of_all + by, exact=False))
    yield Row("mcc", "all", interval(lambda w: confused(w).mcc, by, exact=False))
    yield Row("kappa", "all", interval(lambda w: confused(w).kappa, by, exact=False))
    yield Row("brier", "all", intervals.bootstrap(answers.scores["brier"], answers.patients, seed=seed))
    error = calibration.calibration_error(
        *calibration_scores.chance_and_truth(probabilities, reference), answers.patients, seed=seed
    )
    yield Row("ece", "all", binary_scores.with_note(error, of_class))
    scored = (answers.probabilities, answers.reference, answers.patients)
    for row in calibration_scores.calibration_rows("all", *scored, uncalibrated=answers.uncalibrated, seed=seed):
        yield replace(
            row, estimate=binary_scores.with_note(row.estimate, of_class * row.metric.startswith(OF_ONE_SIDE))
        )
    if size > 2:
        yield from calibration_scores.slope_rows(
            [*map(case_tables.figure_label, answers.classes)], *scored, uncalibrated=answers.uncalibrated
        )


def _of_class(answers: ClassAnswers, index: int, seed: Seed) -> Iterator[Row]:
    name = answers.classes[index]
    called = _class_calls(answers, index)
    yield from binary_scores.label_rows(
        case_tables.figure_label(name), called, prevalence=answers.prevalence.get(name), seed=seed
    )


def _class_calls(answers: ClassAnswers, index: int) -> BinaryCalls:
    called, at = answers.calls_at_operating_point(index)
    at = answers.role(index) + at
    return BinaryCalls(answers.probabilities[:, index], called, answers.reference == index, answers.patients, at)
