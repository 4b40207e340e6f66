"""Labels of answered cases: those that came later, as a table states them, and the choice of what to label next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection, and_, select

from hilum import errors
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.monitoring import case_stream
from hilum.report import InNotebook
from hilum.service.model_facts import ModelFacts
from hilum.service.monitoring import monitored_cases, outcomes
from hilum.service.monitoring.monitored_cases import PROBABILITY
from hilum.service.monitoring.outcomes import BLIND, VERDICT, OutcomeQuestions
from hilum.service.objects import object_store
from hilum.service.reading.judged_results import TAKEN_BACK
from hilum.service.records import audit_records, deployments
from hilum.service.records.record_database import Database
from hilum.service.records.tables import BLIND_READS, FEEDBACK, JOBS, STUDIES
from hilum.values import ANSWERED, Floats, grouping, table_cells
from hilum.values.record_schema import RecordHead, RecordSchema

STUDY, LABEL, VALUE, AT, SOURCE = "study", "label", "value", "at", "source"
NEEDED = (STUDY, AT, SOURCE)
AT_ONCE = 500  # rows of a transaction, so that nobody waits long for the records
MOST_LETTERS = 64  # of a source in the records
DAY_S = 86400.0  # by which the clock of a table without zone may be ahead


class _RowError(Exception):
    """Why a row of a table is not taken."""


class ImportedLabelsRecord(RecordHead):
    """Rows of labels that were taken, of so many results; refused: {row: reason}."""

    rows: int
    results: int
    unknown: list[str]
    refused: dict[int, str]


IMPORTED_SCHEMA = RecordSchema("hilum.imported_labels", ImportedLabelsRecord)


@dataclass
class ImportedLabels(InNotebook):
    """Outcome of the rows of a table of labels.

    rows:    that are taken; results: keys of those to which their labels belong
    unknown: studies that the node does not have; refused: {number of the row from 1: why it is not taken}
    """

    rows: int = 0
    results: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    def as_record(self) -> ImportedLabelsRecord:
        """The record for `--json`."""
        return IMPORTED_SCHEMA.record_of(self, results=len(self.results))

    def __repr__(self) -> str:
        lines = [
            f"{errors.count_phrase(self.rows, 'row')} taken, about {errors.count_phrase(len(self.results), 'result')}"
        ]
        if self.unknown:
            studies = errors.count_phrase(len(self.unknown), "unknown study", "unknown studies")
            lines.append(f"{studies}: {', '.join(self.unknown)}")
        return "\n".join([*lines, *(f"row {number} is not taken: {why}" for number, why in self.refused.items())])


def import_outcomes(
    database: Database, models: Mapping[str, ModelFacts], table: str | Path | pd.DataFrame, *, rule: str | None = None
) -> ImportedLabels:
    """Keep the labels of a table as reported outcomes of the results of its studies.

    models: of the node; rule: whose results alone
    table:  study (StudyInstanceUID, or key in the records), label or value, at, source. A label without a value is
            present; a value without a label is that of the only thing that the model states.
    A row that says again what its source said of a label takes the place of that.
    Raises DatasetError for a table without these columns, for values and times that have two readings, and as
    `text_table`; no row stops the others.
    """
    where = "table" if isinstance(table, pd.DataFrame) else str(table)
    rows = case_stream.text_table(table, where)
    lacking = [name for name in NEEDED if name not in rows]
    if lacking or not {LABEL, VALUE} & set(rows):
        named = " and ".join(lacking or [f"{LABEL} and no {VALUE}"])
        raise DatasetError(
            f"has no column {named}", where, f"Name its columns {', '.join((STUDY, LABEL, VALUE, AT, SOURCE))}"
        )
    done, stated = ImportedLabels(), list(_rows(rows, where))
    for start in range(0, len(stated), AT_ONCE):
        with database.write() as connection:
            _import(connection, models, list(enumerate(stated[start : start + AT_ONCE], start + 1)), rule, done)
    counts = {
        "rows": done.rows,
        "results": len(done.results),
        "unknown": len(done.unknown),
        "refused": len(done.refused),
    }
    with database.write() as connection:
        audit_records.record_event(connection, "outcomes imported", Path(where).name, detail=counts)
    return done


@dataclass(frozen=True)
class _Row:
    """One row of a table of labels.

    cell:   of its value; truth and number: what it means as either, NaN where nothing
    at:     s since 1970, NaN where it is no time
    """

    study: str
    label: str
    cell: str
    truth: float
    number: float
    when: str
    at: float
    source: str


def _rows(table: pd.DataFrame, where: str) -> Iterator[_Row]:
    """The rows, each column read as a whole."""
    plain = table.reindex(columns=[*NEEDED, LABEL, VALUE], fill_value="")
    plain.attrs = table.attrs
    values = csv_text.text_column(plain, VALUE, where)
    times = table_cells.times_in(csv_text.text_column(plain, AT, where))
    seconds = np.where(np.isnat(times.at), np.nan, times.at.astype(np.int64) / 1e6)
    truths, numbers = table_cells.truths_in(values), table_cells.numbers_in(values, strictly=True)
    read = (truths.values.tolist(), numbers.values.tolist(), seconds.tolist())
    columns = [plain[name].str.strip() for name in (STUDY, LABEL, VALUE, AT, SOURCE)]
    for study, label, cell, when, source, truth, number, at in zip(*columns, *read, strict=True):
        yield _Row(study, label, cell, truth, number, when, at, source)


def _import(
    connection: Connection,
    models: Mapping[str, ModelFacts],
    rows: Sequence[tuple[int, _Row]],
    rule: str | None,
    done: ImportedLabels,
) -> None:
    keys = {key for _, row in rows for key in (row.study, object_store.uid_key(row.study))}
    studies_known = set(connection.execute(select(STUDIES.c.study).where(STUDIES.c.study.in_(keys))).scalars())
    answered = and_(JOBS.c.study.in_(studies_known), JOBS.c.state.not_in(TAKEN_BACK), JOBS.c.outcome == ANSWERED)
    columns = (JOBS.c.job, JOBS.c.study, JOBS.c.rule, JOBS.c.model, JOBS.c.model_hash)
    facts = deployments.facts_by_version(connection, models)
    results = grouping.by_key(
        (one.study, one) for one in connection.execute(select(*columns).where(answered)) if rule in (None, one.rule)
    )
    for number, row in rows:
        name = row.study
        study = next((key for key in (name, object_store.uid_key(name)) if key in studies_known), None)
        if study is None:
            done.unknown += [name] if name not in done.unknown else []
            continue
        try:
            at, source = _time(row), _source(row.source)
            facts_of_job = {one.job: facts(one.model, one.model_hash) for one in results[study]}
            values_stated = _row_labels(
                row, {job: OutcomeQuestions.for_model(own) for job, own in facts_of_job.items() if own is not None}
            )
        except _RowError as error:
            done.refused[number] = str(error)
            continue
        for job, values in values_stated.items():
            outcomes.write_outcomes(connection, job, values, source, at=at)
        done.rows += 1
        done.results |= set(values_stated)


def _row_labels(row: _Row, asked: Mapping[str, OutcomeQuestions]) -> dict[str, dict[str, float]]:
    """{job: {label: value}} that a row states of the results of its study."""
    if not asked:
        raise _RowError("the study has no result")
    label, cell = row.label, row.cell
    if not label and not cell:
        raise _RowError("it has neither label nor value")
    if cell and not np.isfinite([row.truth, row.number]).any():
        raise _RowError(f"the value {cell!r} is no number, and not present or absent")
    values = dict[str, dict[str, float]]()
    for job, questions in asked.items():
        names = {one.casefold(): one for one in questions.labels}
        name = names.get(label.casefold()) if label else questions.labels[0] if len(names) == 1 else None
        if name is not None:
            value = row.number if questions.are_numbers else row.truth if cell else 1.0
            if not np.isfinite(value) and not questions.are_numbers:
                raise _RowError(f"{cell!r} is neither present nor absent: {name} has no other value")
            if not np.isfinite(value):
                raise _RowError(f"{name} is a number, and it has {repr(cell) if cell else 'no value'}")
            values[job] = questions.answer(name, value)
    if not values:
        every = ", ".join(dict.fromkeys(one for questions in asked.values() for one in questions.labels))
        raise _RowError(
            f"no result states {label!r}, but {every}" if label else f"it has no label: name one of {every}"
        )
    return values


def _time(row: _Row) -> float:
    if np.isnan(row.at):
        raise _RowError(f"{row.when!r} is no time: write it as 2026-03-01T08:30:00")
    if row.at > time() + DAY_S:
        raise _RowError(f"{row.when!r} lies in the future: give the time at which it became known")
    return row.at


def _source(source: str) -> str:
    if not 0 < len(source) <= MOST_LETTERS:
        raise _RowError(f"its source has to have 1 to {MOST_LETTERS} letters")
    if source in (BLIND, VERDICT):
        raise _RowError(f"a source is not called {source!r}: the node writes these itself")
    return source


TOTAL, ACCEPTED = "total", "accepted"


@dataclass(frozen=True, eq=False)
class AnsweredCases:
    """Results of one rule, by the model that answers for it now.

    table:       a row a case, as `monitored_jobs` makes them; the case is the job
    is_labelled: (cases,) by whatever source, or sampled to be read blind
    chances:     (cases, labels) probabilities; NaN where the model states none
    references:  (cases, labels) what is known to be true, other than by verdicts on shown answers; NaN where nothing is
    uncertainty: (cases,) of the answer; NaN where nothing is known of it
    features:    (cases, features) what the network saw; None of a model without a gate
    corrected:   {place of a case: whether people corrected or rejected it} of those that were judged
    """

    table: pd.DataFrame
    questions: OutcomeQuestions
    is_labelled: np.ndarray
    chances: Floats
    references: Floats
    uncertainty: Floats
    features: Floats | None
    corrected: Mapping[int, bool]

    @property
    def attributes(self) -> dict[str, list[Any]]:
        """{attribute of the people: (cases,) values}."""
        named = [name for name in map(str, self.table) if name.startswith("covariate_")]
        return {name.removeprefix("covariate_"): self.table[name].tolist() for name in named}


def answered_cases(
    database: Database, folder: Path, models: Mapping[str, ModelFacts], rule: str | None
) -> AnsweredCases:
    """The results of a rule that stand. folder: of the node

    Raises UsageError where there is none, or where several rules have some and none is named.
    """
    with database.read() as connection:
        every = monitored_cases.monitored_jobs(connection)
        every = every[every["abstained"].isna() & every["model"].isin(models)]
        table = _of_one_rule(every, rule, str(folder)).reset_index(drop=True)
        of_studies = connection.execute(select(JOBS.c.job, JOBS.c.study))
        table["study"] = table["case"].map({row.job: row.study for row in of_studies})
        outcomes_stated, verdicts = outcomes.outcomes_by_job(connection), _verdicts(connection)
        features = monitored_cases.job_features(connection, version=table["version"].iloc[-1])
        known = deployments.facts_by_version(connection, models)(*table[["model", "version"]].iloc[-1])
        waiting = set(connection.execute(select(BLIND_READS.c.job).where(BLIND_READS.c.state == "waiting")).scalars())
    if known is None:
        raise UsageError("the model of its newest result is gone", str(folder), "Name a rule of a model that it has")
    questions, jobs = OutcomeQuestions.for_model(known), table["case"].tolist()
    # The model agrees with a label that was taken from its own answer, whether or not it is right.
    true = {(job, one.label): one.value for job, own in outcomes_stated.items() for one in own if one.source != VERDICT}
    chances = table.reindex(columns=[f"{PROBABILITY}{label}" for label in questions.labels]).to_numpy(dtype=np.float64)
    totals = [_total(folder / "results" / job / "predictions.csv") for job in jobs]
    lacking = np.full(len(next(iter(features.values()), [])), np.nan)
    return AnsweredCases(
        table,
        questions,
        np.array([job in outcomes_stated or job in waiting for job in jobs]),
        chances,
        np.array([[true.get((job, label), np.nan) for label in questions.labels] for job in jobs]),
        np.where(np.isfinite(totals), totals, _entropies(chances, is_exclusive=questions.is_exclusive)),
        np.array([features.get(job, lacking) for job in jobs], dtype=np.float64) if features else None,
        {place: verdicts[job] != ACCEPTED for place, job in enumerate(jobs) if job in verdicts},
    )


def _of_one_rule(table: pd.DataFrame, rule: str | None, where: str) -> pd.DataFrame:
    """The cases of a rule that its present model has answered."""
    rules = sorted(set(table["rule"]))
    if rule is None and len(rules) > 1:
        problem = f"it has results of {len(rules)} rules: {', '.join(rules)}"
        raise UsageError(problem, where, "Choose one with --rule NAME (rule=NAME in Python)")
    rows = table[table["rule"] == rule] if rule is not None else table
    if not len(rows):
        named = f" of {rule!r}" if rule is not None else ""
        remedy = f"Name one of {', '.join(rules)}" if rules else "Send studies"
        raise UsageError(f"it has no result{named}", where, remedy)
    return cast("pd.DataFrame", rows[rows["version"] == rows["version"].iloc[-1]])


def _verdicts(connection: Connection) -> dict[str, str]:
    """{job: the verdict that was given last}."""
    rows = connection.execute(select(FEEDBACK.c.judged, FEEDBACK.c.verdict).order_by(FEEDBACK.c.feedback))
    return {row.judged: row.verdict for row in rows}


def _total(path: Path) -> float:
    """The total uncertainty that the table of a result states, of several images the largest; NaN where it does not."""
    try:
        rows = csv_text.read_given_table(path)
    except (HilumError, OSError, ValueError):
        return float("nan")
    total = pd.to_numeric(rows[TOTAL], errors="coerce").max() if TOTAL in rows else float("nan")
    return float(total)


def _entropies(chances: Floats, *, is_exclusive: bool) -> Floats:
    """(cases,) entropy in nats, of findings its sum, as `Confidence.total` has it of one network."""
    parts = [chances] if is_exclusive else [chances, 1 - chances]
    clipped = [part.clip(1e-12, 1) for part in parts]
    return np.asarray(-sum((part * np.log(part)).sum(axis=1) for part in clipped), dtype=np.float64)
