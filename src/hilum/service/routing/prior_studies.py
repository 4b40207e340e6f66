"""The earlier study of a patient that an answer is compared with: which one, and whose answers wait for it.

A patient is known by number and issuer. A job that has an earlier study keeps it, whatever comes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select

from hilum.service.configuration import PriorSection, RoutingRule
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.tables import DEPLOYMENTS, JOBS, STUDIES
from hilum.values import ANSWERED

DAY = "%Y%m%d"
HOUR_S = 3600.0


def choose_prior(
    connection: Connection, rule: RoutingRule, study: Row[Any], series: Mapping[str, str], model: tuple[str, str]
) -> dict[str, str] | None:
    """The job of the newest earlier study of this patient that the same rule answered, as inputs state it.

    series: {role: series} of the job that is compared; model: its name and hash
    None where there is none, or where the answer without one is older than `wait_h`.
    """
    if rule.prior is None:
        return None
    own = and_(JOBS.c.study == study.study, JOBS.c.rule == rule.name, JOBS.c.model_hash == model[1])
    columns = JOBS.c.inputs, JOBS.c.done_at, DatabaseClock().label("now")
    made = [
        row
        for row in connection.execute(select(*columns).where(own).order_by(JOBS.c.created_at)).all()
        if row.inputs["series"] == dict(series)
    ]
    for row in made:
        if "prior" in row.inputs:
            return dict(row.inputs["prior"])
    if any(row.done_at is not None and row.now - row.done_at > rule.prior.wait_h * HOUR_S for row in made):
        return None
    days = days_before(study.study_date, rule.prior)
    if days is None or not study.patient_id:
        return None
    joined = JOBS.join(STUDIES, JOBS.c.study == STUDIES.c.study)
    answered = and_(
        STUDIES.c.patient == study.patient,
        STUDIES.c.patient_id == study.patient_id,
        STUDIES.c.study_date.between(*days),
        JOBS.c.rule == rule.name,
        JOBS.c.outcome == ANSWERED,
        JOBS.c.state.in_(("sending", "done")),
        or_(JOBS.c.model_hash == model[1], JOBS.c.model_hash.in_(_replaced_hashes(model[0]))),
    )
    newest = STUDIES.c.study_date.desc(), JOBS.c.created_at.desc()
    job = connection.execute(select(JOBS.c.job).select_from(joined).where(answered).order_by(*newest)).scalar()
    return None if job is None else {"job": job}


def _replaced_hashes(model: str) -> Any:
    """The hashes of packages that a change plan has put in force for a model, one after the other."""
    return select(DEPLOYMENTS.c.hash).where(
        DEPLOYMENTS.c.model == model, DEPLOYMENTS.c.began.is_not(None), DEPLOYMENTS.c.is_taken_back.is_(False)
    )


def days_before(study_date: str | None, prior: PriorSection) -> tuple[str, str] | None:
    """(first, last) day on which an earlier study may have been, as DICOM writes them; None of an unknown date."""
    try:
        day = datetime.strptime(study_date or "", DAY)
    except ValueError:
        return None
    first, last = ((day - timedelta(days=days)).strftime(DAY) for days in (prior.within_days, prior.least_days))
    return first, last


def later_studies(connection: Connection, study: str, prior: PriorSection) -> ColumnElement[bool] | None:
    """Studies of the same patient whose answers a new answer of this one may be compared with; None without any."""
    row = connection.execute(select(STUDIES).where(STUDIES.c.study == study)).one()
    try:
        day = datetime.strptime(row.study_date or "", DAY)
    except ValueError:
        return None
    last = (day + timedelta(days=prior.within_days)).strftime(DAY)
    return and_(
        STUDIES.c.patient == row.patient, STUDIES.c.study != study, STUDIES.c.study_date.between(row.study_date, last)
    )
