"""Answered cases of a node as the choice of what to label next sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from isocenter.errors import IsocenterError, UsageError
from isocenter.files import read_given_table
from isocenter.lazy import pandas as pd
from isocenter.service.monitoring.cases import PROBABILITY, cases, features_of
from isocenter.service.monitoring.outcomes import VERDICT, Questions, outcomes_by_job
from isocenter.service.records.database import Database
from isocenter.service.records.deployments import facts_by_version
from isocenter.service.records.tables import blind, feedback
from isocenter.service.records.tables import jobs as job_rows
from isocenter.service.routing.facts import ModelFacts
from isocenter.values import Floats

TOTAL, ACCEPTED = "total", "accept"


@dataclass(frozen=True, eq=False)
class AnsweredCases:
    """Results of one rule, by the model that answers for it now.

    table:       a row a case, as `cases` makes them; the case is the job
    is_labelled: (cases,) by whatever source, or drawn to be read blind
    chances:     (cases, labels) probabilities; NaN where the model states none
    references:  (cases, labels) what is known to be true, other than by verdicts on shown answers; NaN where nothing is
    uncertainty: (cases,) of the answer; NaN where nothing is known of it
    features:    (cases, features) what the network saw; None of a model without a gate
    corrected:   {place of a case: whether people corrected or rejected it} of those that were judged
    """

    table: pd.DataFrame
    questions: Questions
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
        every = cases(connection)
        every = every[every["abstained"].isna() & every["model"].isin(models)]
        table = _of_one_rule(every, rule, str(folder)).reset_index(drop=True)
        of_studies = connection.execute(select(job_rows.c.job, job_rows.c.study))
        table["study"] = table["case"].map({row.job: row.study for row in of_studies})
        outcomes_stated, verdicts = outcomes_by_job(connection), _verdicts(connection)
        features = features_of(connection, version=table["version"].iloc[-1])
        known = facts_by_version(connection, models)(*table[["model", "version"]].iloc[-1])
        waiting = set(connection.execute(select(blind.c.job).where(blind.c.state == "waiting")).scalars())
    if known is None:
        raise UsageError("the model of its newest result is gone", str(folder), "Name a rule of a model that it has")
    questions, jobs = Questions.of(known), table["case"].tolist()
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
    return rows[rows["version"] == rows["version"].iloc[-1]]


def _verdicts(connection: Connection) -> dict[str, str]:
    """{job: the verdict that was given last}."""
    rows = connection.execute(select(feedback.c.judged, feedback.c.verdict).order_by(feedback.c.feedback))
    return {row.judged: row.verdict for row in rows}


def _total(path: Path) -> float:
    """The total uncertainty that the table of a result states, of several images the largest; NaN where it does not."""
    try:
        rows = read_given_table(path)
    except (IsocenterError, OSError, ValueError):
        return float("nan")
    total = pd.to_numeric(rows[TOTAL], errors="coerce").max() if TOTAL in rows else float("nan")
    return float(total)


def _entropies(chances: Floats, *, is_exclusive: bool) -> Floats:
    """(cases,) entropy in nats, of findings its sum, as `Confidence.total` has it of one network."""
    parts = [chances] if is_exclusive else [chances, 1 - chances]
    clipped = [part.clip(1e-12, 1) for part in parts]
    return np.asarray(-sum((part * np.log(part)).sum(axis=1) for part in clipped), dtype=np.float64)
