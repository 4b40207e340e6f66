"""Outcomes of answered studies: by blind reads, by verdicts on shown answers, and by labels that came later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from hilum.service.model_facts import ModelFacts
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.tables import OUTCOME_ROWS
from hilum.values.finding_records import FindingRow

# Sources that no imported table may name.
BLIND, VERDICT = "blind", "verdict"
CLASSIFICATION = "classification"
# Groups of findings that are answers themselves.
ANSWERS = (None, "", "class", "grade")


@dataclass(frozen=True)
class ReportedOutcome:
    """Label of a job's study by one source.

    value:     1 present, 0 absent, or a number in the label's unit
    at:        when it became known (s since 1970); the case counts for the day on which it was answered
    inclusion: the chance with which a blind read was sampled; None where it is reported
    """

    label: str
    value: float
    at: float
    source: str
    inclusion: float | None = None


def outcomes_by_job(connection: Connection) -> dict[str, list[ReportedOutcome]]:
    """{job: what counts as true of each label}.

    Of a job that was read blind only that read counts: nothing reported is pooled with it. Else labels from elsewhere
    come before a verdict on a shown answer, and later ones before earlier ones.
    """
    by_job = dict[str, list[ReportedOutcome]]()
    for row in connection.execute(
        select(OUTCOME_ROWS).order_by(OUTCOME_ROWS.c.job, OUTCOME_ROWS.c.at, OUTCOME_ROWS.c.source)
    ):
        by_job.setdefault(row.job, []).append(ReportedOutcome(row.label, row.value, row.at, row.source, row.inclusion))
    return {job: _standing(given) for job, given in by_job.items()}


def _standing(outcomes_of_job: Sequence[ReportedOutcome]) -> list[ReportedOutcome]:
    read = [one for one in outcomes_of_job if one.inclusion is not None]
    later = sorted(read or outcomes_of_job, key=lambda one: one.source != VERDICT)
    return list({one.label: one for one in later}.values())


def write_outcomes(
    connection: Connection,
    job: str,
    values: Mapping[str, float],
    source: str,
    *,
    account: str = "",
    at: float | None = None,
    inclusion: float | None = None,
) -> None:
    """Write what a source says of a job's study, in place of what it said of these labels before."""
    mine = and_(OUTCOME_ROWS.c.job == job, OUTCOME_ROWS.c.source == source)
    connection.execute(delete(OUTCOME_ROWS).where(mine, OUTCOME_ROWS.c.label.in_(values)))
    columns = {"job": job, "source": source, "account": account, "inclusion": inclusion}
    when: Any = DatabaseClock() if at is None else at
    for label, value in values.items():
        connection.execute(insert(OUTCOME_ROWS).values(label=label, value=value, at=when, **columns))


@dataclass(frozen=True)
class OutcomeQuestions:
    """Questions about a study that a model has answered, whatever its answer was.

    labels:       names of classes, findings or structures, which are present or absent; or of numbers
    is_exclusive: whether exactly one of them is present
    are_numbers:  whether each is a number
    """

    labels: Sequence[str]
    is_exclusive: bool = False
    are_numbers: bool = False

    @classmethod
    def for_model(cls, model: ModelFacts) -> OutcomeQuestions:
        """The questions that a model answers."""
        present = list(model.labels) or list(model.findings)
        exclusive = not model.labels and model.task == CLASSIFICATION
        return cls(present, is_exclusive=exclusive) if present else cls(list(model.values), are_numbers=True)

    def answer(self, label: str, value: float) -> dict[str, float]:
        """{label: value} of one label, with what follows for others that exclude it."""
        if self.is_exclusive and value == 1:
            return {one: float(one == label) for one in self.labels}
        return {label: value}


def stated_values(rows: Iterable[FindingRow]) -> dict[str, float]:
    """{label: value} that the findings of a result state, as outcomes have them."""
    by_label = dict[str, float]()
    for row in rows:
        value, called = row.get("value"), row.get("called")
        if row.get("group") not in (*ANSWERS, row["concept"]):  # a measurement of a structure
            continue
        if called is not None:
            number = float(called)
        elif isinstance(value, bool) or row.get("box") is not None:
            number = float(value is not False)
        elif isinstance(value, int | float):
            number = float(value > 0) if row.get("label") is not None else float(value)
        else:
            continue
        by_label[row["concept"]] = max(number, by_label.get(row["concept"], number))
    return by_label


def called_labels(rows: Iterable[FindingRow]) -> frozenset[str]:
    """The classes, findings, structures and boxes that a result calls."""
    asked = [one for one in rows if one.get("called") is not None or not _is_number(one)]
    return frozenset(label for label, value in stated_values(asked).items() if value > 0)


def _is_number(row: FindingRow) -> bool:
    value = row.get("value")
    is_bare = row.get("label") is None and row.get("box") is None
    return is_bare and isinstance(value, int | float) and not isinstance(value, bool)
