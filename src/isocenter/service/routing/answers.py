"""Answers of a study's earlier jobs, for rules that wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select

from isocenter.service.records.database import Database
from isocenter.service.records.jobs import RESULT
from isocenter.service.records.tables import findings, jobs
from isocenter.service.routing.facts import ModelFacts
from isocenter.service.routing.rules import StudyAnswers, inputs_hash
from isocenter.service.settings import Rule

# Of each rule the jobs of a study that have a result, oldest first: {rule: {job: keys of its series}}.
Results = Mapping[str, Mapping[str, frozenset[str]]]


def study_answers(
    database: Database,
    study: str,
    rules: Sequence[Rule],
    models: Mapping[str, ModelFacts],
    contents: Mapping[str, str],
) -> tuple[StudyAnswers, Results]:
    """The answers of a study's finished jobs, and those of them that have a result.

    contents: {series: hash} of the study as it is
    Jobs of models that were replaced, or on inputs that have changed, say nothing.
    """
    ended = (jobs.c.study == study, jobs.c.state.in_(("sending", "done")))
    with database.read() as connection:
        oldest = (jobs.c.created_at, jobs.c.job)
        rows = connection.execute(select(jobs).where(*ended).order_by(*oldest)).all()
        joined = findings.join(jobs, findings.c.job == jobs.c.job)
        columns = (jobs.c.job, jobs.c.rule, findings.c.row)
        stated = connection.execute(select(*columns).select_from(joined).where(*ended)).all()
    finished = _current(rows, {rule.name: models[rule.model].hash for rule in rules}, contents)
    chances: dict[tuple[str, str], float] = {}
    for job, rule, row in stated:
        if job in finished and row.get("probability") is not None:
            name = (rule, str(row["concept"]))
            chances[name] = max(chances.get(name, 0.0), float(row["probability"]))
    results = dict[str, dict[str, frozenset[str]]]()
    for job, made in finished.items():
        if made.outcome == RESULT:
            results.setdefault(made.rule, {})[job] = frozenset(made.inputs["series"].values())
    outcomes = {made.rule: made.outcome for made in finished.values()} | dict.fromkeys(results, RESULT)
    return StudyAnswers(outcomes, chances), results


def _current(rows: Iterable[Row[Any]], models: Mapping[str, str], contents: Mapping[str, str]) -> dict[str, Row[Any]]:
    """The jobs that the rules would make of the study as it is. models: {rule: hash of its model}"""
    current = dict[str, Row[Any]]()
    for row in rows:  # what a job looks within is older than the job
        inside = row.inputs.get("inside")
        is_of_study = inputs_hash(row.inputs["series"], contents, inside) == row.inputs_hash
        is_of_model = models.get(row.rule) == row.model_hash
        if is_of_study and is_of_model and (inside is None or inside["job"] in current):
            current[row.job] = row
    return current


def box_inside(
    rule: Rule, series: Sequence[str], results: Results, labels: Mapping[str, Mapping[str, int]]
) -> dict[str, Any] | None:
    """The box in which alone a job predicts: around which value of which job's answer; None for the whole image.

    series: keys of its series; labels: {rule: {label: value} of its answers}
    """
    if (inside := rule.inside) is None:
        return None
    value = labels[inside.rule][inside.label]
    earlier = _nearest(results[inside.rule], series)
    return {"job": earlier, "label": inside.label, "value": value, "margin_mm": inside.margin_mm}


def _nearest(results: Mapping[str, frozenset[str]], series: Sequence[str]) -> str:
    """The oldest job with a result on one of these series, else the oldest."""
    shared = (job for job, own in results.items() if not own.isdisjoint(series))
    return next(shared, next(iter(results)))
