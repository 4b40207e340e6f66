"""The comparison of findings with references: scores of cases, their summary, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from isocenter.belief import ABSENT, PRESENT, SET, OperatingPoint, doubt_rows, in_json, probabilities_of, set_rows
from isocenter.evaluation import (
    THRESHOLD,
    UNCALIBRATED,
    CaseValues,
    Seed,
    Table,
    column_values,
    figure_label,
    folds_of,
)
from isocenter.lazy import pandas as pd
from isocenter.report import Figure, figures
from isocenter.tasks.findings.called import DEFAULT_THRESHOLD, called_findings
from isocenter.tasks.findings.scores import called_of, overview, summary_rows
from isocenter.tasks.properties import stated_image
from isocenter.tasks.shared import Called, called_values
from isocenter.tasks.task import Guess, Task
from isocenter.values import Case, Finding, Prediction, Row

V = TypeVar("V")


class FindingScoring(Task):
    """The scores of findings, and what reports show of them; the fields are those of `Findings`."""

    findings: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]] | None
    point: OperatingPoint
    thresholds: Mapping[str, float] | None
    prevalence: Mapping[str, float] | None

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The findings."""
        return self.findings

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and finding of which it is known: reference, predicted, probability, brier."""
        rows: list[dict[str, Any]] = []
        for prediction, case in zip(predictions, cases, strict=True):
            probabilities, called = probabilities_of(prediction), called_findings(prediction, self.thresholds or {})
            levels = {**(self.thresholds or {}), **prediction.confidence.thresholds}
            for name, present in case.references["findings"].items():
                if name in self.findings:
                    rows.append(
                        {
                            "case": case.id,
                            "patient": case.patient,
                            "label": figure_label(name, "finding"),
                            "reference": PRESENT if present else ABSENT,
                            "predicted": PRESENT if called[name] else ABSENT,
                            "probability": probabilities[name],
                            UNCALIBRATED: prediction.confidence.uncalibrated.get(name),
                            SET: in_json(prediction.confidence.set.get(name)),
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
        known = self.known(table)
        own = {"all": table, **{name: table[table["label"] == name] for name in known}}
        sets = [row for name, one in own.items() for row in set_rows(name, one, seed=seed, sides=(PRESENT, ABSENT))]
        doubts = doubt_rows(table, seed=seed)
        return [*summary_rows(table, known, labelled(self.prevalence or {}), seed=seed), *sets, *doubts]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the probabilities and the findings of the reference in the caption."""
        caption = ", ".join(f"{name} {p:.2f}" for name, p in probabilities_of(prediction).items())
        if (known := case.references.get("findings")) is not None:
            present = ", ".join(name for name, is_present in known.items() if is_present)
            caption += f"; reference {present or 'none of the known'}"
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """Discrimination of all findings, calibration and confusion of the first."""
        return overview(self.known(table), folds_of(table))

    def case_values(self, table: Table) -> list[CaseValues]:
        """What AUROC, calls and Brier score of each finding are made of."""
        known = self.known(table)
        cases = {name: table.loc[table["label"] == name, "case"].to_numpy(str) for name in known}
        made = [one for name, own in known.items() for one in called_values(name, own, cases[name])]
        return [*made, *column_values(table)]

    def guess(self, table: Table) -> Guess:
        """The share of the training cases that have each finding, as if no image had been looked at."""
        shares = self._shares(table)
        chances = table["label"].map(shares).astype(float)
        levels = labelled(self.thresholds or {})
        called = chances >= table["label"].map({name: levels.get(name, DEFAULT_THRESHOLD) for name in shares})
        guessed = table.assign(
            predicted=np.where(called, PRESENT, ABSENT),
            probability=chances,
            brier=(chances - (table["reference"] == PRESENT)) ** 2,
        )
        return Guess(guessed, {"": "giving each finding its share among the training cases"}, ("auroc",))

    def _shares(self, table: Table) -> dict[str, float]:
        """{finding: share of the training cases that have it}; of these cases where it was not counted."""
        if self.counts:
            counts = labelled(self.counts).items()
            return {name: own[PRESENT] / max(1, sum(own.values())) for name, own in counts}
        own = table.groupby("label")["reference"]
        return {str(name): float((references == PRESENT).mean()) for name, references in own}

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean Brier score of their findings."""
        return table.groupby("case")["brier"].mean().sort_values(kind="stable").index.tolist()

    def results(self, prediction: Prediction) -> list[Finding]:
        """Whether each finding is called, with its probability, and what is not ruled out of it."""
        called, sets = called_findings(prediction, self.thresholds or {}), prediction.confidence.set
        return [
            Finding(name, value=called[name], probability=p, possible=sets.get(name))
            for name, p in probabilities_of(prediction).items()
        ]

    def known(self, table: Table) -> dict[str, Called]:
        """{label of a finding's rows: its cases}, of those in which it is known."""
        return called_of(table, [*labelled(dict.fromkeys(self.findings))], str(self.point))


def labelled(given: Mapping[str, V]) -> dict[str, V]:
    """What is given by finding, by the label of its rows in tables."""
    return {figure_label(name, "finding"): value for name, value in given.items()}
