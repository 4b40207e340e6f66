"""Answered cases of a node as the choice of what to label next sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from isocenter.errors import IsocenterError, UsageError
from isocenter.files import read_given_table
from isocenter.lazy import pandas as pd
from isocenter.service.monitoring.cases import PROBABILITY, REFERENCE, cases
from isocenter.service.monitoring.outcomes import VERDICT, Questions
from isocenter.service.records.database import Database
from isocenter.service.records.tables import blind, feedback, measures, outcomes
from isocenter.service.records.tables import jobs as job_rows
from isocenter.service.routing.facts import ModelFacts
from isocenter.values import Floats

TOTAL, ACCEPTED = "total", "accept"


@dataclass(frozen=True, eq=False)
class AnsweredCases:
    """Results of one rule, by the model that answers for it now.

    table:       a row a case, as `cases` makes them; the case is the job
    is_labelled: (cases,) by whatever source, or drawn to be read blind
    uncertainty: (cases,) of the answer; NaN where nothing is known of it
    features:    (cases, features) what the network saw; None of a model without a gate
    corrected:   {place of a case: whether people corrected or rejected it} of those that were judged
    """

    table: pd.DataFrame
    questions: Questions
    is_labelled: np.ndarray
    uncertainty: Floats
    features: Floats | None
    corrected: Mapping[int, bool]

    @property
    def attributes(self) -> dict[str, list[Any]]:
        """{attribute of the people: (cases,) values}."""
        named = [name for name in map(str, self.table) if name.startswith("covariate_")]
        return {name.removeprefix("covariate_"): self.table[name].tolist() for name in named}

    @property
    def chances(self) -> Floats:
        """(cases, labels) probabilities; NaN where the model states none."""
        return _columns(self.table, PROBABILITY, self.questions)

    @property
    def references(self) -> Floats:
        """(cases, labels) what is known to be true, other than by verdicts on shown answers; NaN where nothing is."""
        return _columns(self.table, f"{REFERENCE}_", self.questions)


def answered_cases(
    database: Database, folder: Path, models: Mapping[str, ModelFacts], rule: str | None
) -> AnsweredCases:
    """The results of a rule that stand. folder: of the node

    Raises UsageError where there is none, or where several rules have some and none is named.
    """
    with database.read() as connection:
        every = cases(connection)
        every = every[every["abstained"].isna() & every["model"].isin(models)]
        table = _of_one_rule(every, rule, str(folder)).reset_index(drop=True)
        jobs = table["case"].tolist()
        of_sources = select(outcomes.c.job, outcomes.c.source).where(outcomes.c.job.in_(jobs))
        sources = [(row.job, row.source) for row in connection.execute(of_sources)]
        waiting = select(blind.c.job).where(blind.c.state == "waiting")
        labelled = {job for job, _ in sources} | set(connection.execute(waiting).scalars())
        of_studies = select(job_rows.c.job, job_rows.c.study).where(job_rows.c.job.in_(jobs))
        table["study"] = table["case"].map({row.job: row.study for row in connection.execute(of_studies)})
        features, verdicts = _features(connection, jobs), _verdicts(connection, jobs)
    # The model agrees with a label that was taken from its own answer, whether or not it is right.
    only_verdict = {job for job, _ in sources} - {job for job, source in sources if source != VERDICT}
    references = [name for name in map(str, table) if name.startswith(f"{REFERENCE}_") and name != f"{REFERENCE}_at"]
    table.loc[table["case"].isin(only_verdict), references] = np.nan
    questions = Questions.of(models[table["model"].iloc[-1]])
    entropies = _entropies(_columns(table, PROBABILITY, questions), is_exclusive=questions.is_exclusive)
    totals = [_total(folder / "results" / job / "predictions.csv") for job in jobs]
    return AnsweredCases(
        table,
        questions,
        table["case"].isin(labelled).to_numpy(),
        np.where(np.isfinite(totals), totals, entropies),
        features,
        {place: verdicts[job] != ACCEPTED for place, job in enumerate(jobs) if job in verdicts},
    )


def _columns(table: pd.DataFrame, beginning: str, questions: Questions) -> Floats:
    named = [f"{beginning}{label}" for label in questions.labels]
    return np.asarray(table.reindex(columns=named).to_numpy(dtype=np.float64))


def _of_one_rule(table: pd.DataFrame, rule: str | None, where: str) -> pd.DataFrame:
    """The cases of a rule that its present model has answered."""
    rules = sorted(set(table["rule"]))
    if rule is None and len(rules) > 1:
        problem = f"it has results of {len(rules)} rules: {', '.join(rules)}"
        raise UsageError(problem, where, "Choose one with --rule NAME (rule=NAME in Python)")
    own = table[table["rule"] == rule] if rule is not None else table
    if not len(own):
        named = f" of {rule!r}" if rule is not None else ""
        remedy = f"Name one of {', '.join(rules)}" if rules else "Send studies"
        raise UsageError(f"it has no result{named}", where, remedy)
    return own[own["version"] == own["version"].iloc[-1]]


def _features(connection: Connection, jobs: list[str]) -> Floats | None:
    known = (measures.c.job.in_(jobs), measures.c.features.is_not(None))
    wanted = select(measures.c.job, measures.c.features).where(*known)
    rows = {row.job: np.frombuffer(row.features, np.float16) for row in connection.execute(wanted)}
    if not rows:
        return None
    lacking = np.full(len(next(iter(rows.values()))), np.nan)
    return np.array([rows.get(job, lacking) for job in jobs], dtype=np.float64)


def _verdicts(connection: Connection, jobs: list[str]) -> dict[str, str]:
    newest = select(func.max(feedback.c.feedback)).where(feedback.c.judged.in_(jobs)).group_by(feedback.c.judged)
    rows = connection.execute(select(feedback.c.judged, feedback.c.verdict).where(feedback.c.feedback.in_(newest)))
    return {row.judged: row.verdict for row in rows}


def _total(path: Path) -> float:
    """The total uncertainty that the table of a result states, of several images the largest; NaN where it does not."""
    try:
        rows = read_given_table(path)
    except (IsocenterError, OSError, ValueError):
        return float("nan")
    known = pd.to_numeric(rows[TOTAL], errors="coerce").max() if TOTAL in rows else float("nan")
    return float(known)


def _entropies(chances: Floats, *, is_exclusive: bool) -> Floats:
    """(cases,) entropy in nats, of findings its sum, as `Confidence.total` has it of one network."""
    parts = [chances] if is_exclusive else [chances, 1 - chances]
    clipped = [part.clip(1e-12, 1) for part in parts]
    return np.asarray(-sum((part * np.log(part)).sum(axis=1) for part in clipped), dtype=np.float64)
