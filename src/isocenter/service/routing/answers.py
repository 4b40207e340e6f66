"""Answers of a study's earlier jobs, for rules that wait for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from isocenter.service.records import RESULT, Database
from isocenter.service.records.tables import findings, jobs
from isocenter.service.routing.rules import StudyAnswers
from isocenter.service.settings import Rule

# Of each rule the jobs of a study that have a result, oldest first: {rule: {job: keys of its series}}.
Results = Mapping[str, Mapping[str, frozenset[str]]]


def study_answers(database: Database, study: str) -> tuple[StudyAnswers, Results]:
    """What finished jobs of a study say, and those of them that have a result."""
    current = (jobs.c.study == study, jobs.c.state.in_(("sending", "done")))
    with database.read() as connection:
        columns = (jobs.c.job, jobs.c.rule, jobs.c.outcome, jobs.c.inputs)
        oldest = (jobs.c.created_at, jobs.c.job)
        finished = connection.execute(select(*columns).where(*current).order_by(*oldest)).all()
        joined = findings.join(jobs, findings.c.job == jobs.c.job)
        stated = connection.execute(select(jobs.c.rule, findings.c.row).select_from(joined).where(*current)).all()
    chances: dict[tuple[str, str], float] = {}
    for rule, row in stated:
        if row.get("probability") is not None:
            name = (rule, str(row["concept"]))
            chances[name] = max(chances.get(name, 0.0), float(row["probability"]))
    results = dict[str, dict[str, frozenset[str]]]()
    for row in finished:
        if row.outcome == RESULT:
            results.setdefault(row.rule, {})[row.job] = frozenset(row.inputs["series"].values())
    outcomes = {row.rule: row.outcome for row in finished} | dict.fromkeys(results, RESULT)
    return StudyAnswers(outcomes, chances), results


def box_inside(
    rule: Rule, series: Sequence[str], results: Results, labels: Mapping[str, Mapping[str, int]]
) -> dict[str, Any] | None:
    """Where alone a job of a rule predicts: around which value of which job's answer; None for the whole image.

    series: keys of its series; labels: {rule: {label: value} of its answers}
    """
    if (inside := rule.inside) is None:
        return None
    value = labels[inside.rule][inside.label]
    earlier = _nearest(results[inside.rule], series)
    return {"job": earlier, "label": inside.label, "value": value, "margin_mm": inside.margin_mm}


def _nearest(results: Mapping[str, frozenset[str]], series: Sequence[str]) -> str:
    """Of jobs with a result the oldest on one of these series, else the oldest."""
    shared = (job for job, own in results.items() if not own.isdisjoint(series))
    return next(shared, next(iter(results)))
