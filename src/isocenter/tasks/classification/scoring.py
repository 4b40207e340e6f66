"""The comparison of called classes with references: scores of cases, their summary, and pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from isocenter.belief import SET, OperatingPoint, doubt_rows, in_json, of_before, probabilities_of, set_rows
from isocenter.evaluation import THRESHOLD, UNCALIBRATED, CaseValues, Seed, Table, column_values, folds_of
from isocenter.lazy import pandas as pd
from isocenter.report import Figure, figures
from isocenter.tasks.classification.ordinal import Calling
from isocenter.tasks.classification.scores import (
    Answers,
    case_scores,
    class_index,
    class_values,
    levels_of,
    overview,
    summary_rows,
)
from isocenter.tasks.properties import stated_image
from isocenter.tasks.task import Guess, Task
from isocenter.values import Case, Finding, Prediction, Row


class ClassScoring(Task):
    """The scores of a classification, and what reports show of them; the fields are those of `Classification`."""

    classes: tuple[str, ...]
    counts: Mapping[str, int] | None
    point: OperatingPoint
    thresholds: Mapping[str, float] | None
    prevalence: Mapping[str, float] | None

    @property
    @abstractmethod
    def calling(self) -> Calling:
        """The rule by which a class is predicted."""

    @property
    @abstractmethod
    def is_ordered(self) -> bool:
        """Whether the classes are grades."""

    @property
    @abstractmethod
    def prices(self) -> tuple[tuple[float, ...], ...] | None:
        """(classes, classes) costs of calling a reference (row) so (column), by which mistakes are counted."""

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case: reference, predicted, the probability of each class, brier, and rps of grades."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            index = class_index(case, self.classes)
            probabilities = [probabilities_of(prediction)[name] for name in self.classes]
            levels = {**(self.thresholds or {}), **prediction.confidence.thresholds}
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": "all",
                    "reference": self.classes[index],
                    "predicted": self.called(prediction),
                    **{f"probability_{name}": p for name, p in zip(self.classes, probabilities, strict=True)},
                    **{f"{UNCALIBRATED}_{name}": p for name, p in prediction.confidence.uncalibrated.items()},
                    SET: in_json(prediction.confidence.set.get("")),
                    **{f"{THRESHOLD}_{name}": level for name, level in levels.items()},
                    **case_scores(probabilities, index, ordered=self.is_ordered),
                }
            )
        return pd.DataFrame(rows)

    def called(self, prediction: Prediction) -> str:
        """The class that is called."""
        return self.classes[self.calling.of_prediction(prediction, self.classes, self.thresholds or {})]

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """AUROC and the like with patients resampled within the classes; then one class against the rest."""
        doubts = doubt_rows(table, seed=seed)
        return [*summary_rows(self._sided(table), seed=seed), *set_rows("all", table, seed=seed), *doubts]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the probabilities and the reference in the caption."""
        probabilities = probabilities_of(prediction)
        named = self.called(prediction)
        caption = f"Called {named} ({probabilities[named]:.2f})"
        if reference := case.references.get("class"):
            caption += (
                f", reference {reference} ({probabilities.get(reference, 0.0):.2f})"
                if reference != named
                else ", as the reference"
            )
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """Discrimination, calibration and confusion of all cases."""
        return overview(self._sided(table), folds_of(table))

    def case_values(self, table: Table) -> list[CaseValues]:
        """What AUROC, calls, costs and Brier score are made of."""
        return [*class_values(self._sided(table), table["case"].to_numpy(str)), *column_values(table)]

    def guess(self, table: Table) -> Guess:
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
        return Guess(guessed, {"": f"always calling {named}"}, metrics)

    def rank(self, table: Table) -> list[str]:
        """Case ids by the Brier score, of grades by the ranked probability score."""
        return table.sort_values("rps" if self.is_ordered else "brier", kind="stable")["case"].tolist()

    def results(self, prediction: Prediction) -> list[Finding]:
        """The probability of each class, which of them is called, and the set of those that are not ruled out."""
        named, possible = self.called(prediction), prediction.confidence.set.get("")
        kind = "grade" if self.is_ordered else "class"
        return [
            Finding(name, probability=p, group=kind, called=name == named, possible=possible if name == named else None)
            for name, p in probabilities_of(prediction).items()
        ]

    def _sided(self, table: Table) -> Answers:
        """Probabilities and references of a table; of two classes the positive one is the second, as in figures."""
        ordered = sorted(self.classes, key=self.positives.__contains__) if len(self.classes) == 2 else self.classes
        return self._answers(table, tuple(ordered))

    def _answers(self, table: Table, classes: tuple[str, ...]) -> Answers:
        places = [self.classes.index(name) for name in classes]
        return Answers(
            classes,
            self.positives,
            table[[f"probability_{name}" for name in classes]].to_numpy(float),
            np.array([classes.index(name) for name in table["reference"]]),
            np.array([classes.index(name) for name in table["predicted"]]),
            self.calling,
            table["patient"].to_numpy(str),
            {name: table[name].to_numpy(float) for name in ("brier", *(["rps"] * self.is_ordered))},
            str(self.point),
            levels_of(table, classes, self.thresholds or {}),
            self.prevalence or {},
            None if self.prices is None else np.array(self.prices)[np.ix_(places, places)],
            of_before(table, *([f"{kind}_{name}" for name in classes] for kind in (UNCALIBRATED, "probability"))),
        )
