"""What earlier jobs of a study say, for rules that wait for them."""

from __future__ import annotations

from sqlalchemy import select

from isocenter.service.records import Database
from isocenter.service.records.tables import findings, jobs
from isocenter.service.routing.rules import StudyAnswers


def study_answers(database: Database, study: str) -> tuple[StudyAnswers, dict[str, str]]:
    """What finished jobs of a study say, and their keys by rule."""
    current = (jobs.c.study == study, jobs.c.state.in_(("sending", "done")))
    with database.read() as connection:
        finished = connection.execute(select(jobs.c.job, jobs.c.rule, jobs.c.outcome).where(*current)).all()
        joined = findings.join(jobs, findings.c.job == jobs.c.job)
        stated = connection.execute(select(jobs.c.rule, findings.c.row).select_from(joined).where(*current)).all()
    chances: dict[tuple[str, str], float] = {}
    for rule, row in stated:
        if row.get("probability") is not None:
            name = (rule, str(row["concept"]))
            chances[name] = max(chances.get(name, 0.0), float(row["probability"]))
    outcomes = {row.rule: row.outcome for row in finished}
    return StudyAnswers(outcomes, chances), {row.rule: row.job for row in finished}
