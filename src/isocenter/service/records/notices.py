"""Notices of urgent findings: each goes to its recipients one after the other, until somebody acknowledges it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, select, update

from isocenter.service.records.actor import NODE, Actor
from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock, Database
from isocenter.service.records.tables import deliveries, jobs, notices, studies

# The answer of a job that its recipients get.
NOTICE = "notice.json"


@dataclass(frozen=True)
class Notice:
    """A notice of a job. recipients: {name: s after which it goes there, unless it is acknowledged}."""

    notice: str
    finding: str
    priority: str
    recipients: Mapping[str, float]


def notice_key(job: str) -> str:
    """The key of a job's notice: made again it is the same, so that a recipient knows a repeat."""
    return hashlib.sha256(f"notice\0{job}".encode()).hexdigest()[:32]


def noticed(connection: Connection, job: str, notice: Notice) -> Mapping[str, float]:
    """Note a job's notice; its recipients, or none where somebody has acknowledged it before."""
    here = notices.c.notice == notice.notice
    earlier = connection.execute(select(notices.c.acknowledged_at).where(here)).first()
    columns = {"finding": notice.finding, "priority": notice.priority}
    if earlier is None:
        connection.execute(insert(notices).values(notice=notice.notice, job=job, created_at=Clock(), **columns))
    else:
        connection.execute(update(notices).where(here).values(columns))
    return notice.recipients if earlier is None or earlier.acknowledged_at is None else {}


@dataclass(frozen=True, eq=False)
class Notices:
    """The table of notices."""

    database: Database

    def newest(self, most: int, *where: ColumnElement[bool]) -> Sequence[Row[Any]]:
        """Notices with the UID of their study, the newest first."""
        joined = notices.join(jobs, notices.c.job == jobs.c.job).join(studies, jobs.c.study == studies.c.study)
        query = select(notices, studies.c.uid.label("study")).select_from(joined)
        with self.database.read() as connection:
            order = (notices.c.created_at.desc(), notices.c.notice)
            return connection.execute(query.where(*where).order_by(*order).limit(most)).all()

    def acknowledge(self, notice: str, *, who: Actor = NODE) -> bool:
        """Somebody has taken it up: it goes to nobody else; False where there is no such notice."""
        here = notices.c.notice == notice
        with self.database.write() as connection:
            row = connection.execute(select(notices).where(here)).first()
            if row is None:
                return False
            if row.acknowledged_at is None:
                connection.execute(update(notices).where(here).values(acknowledged_at=Clock()))
                study = connection.execute(select(jobs.c.study).where(jobs.c.job == row.job)).scalar()
                record(connection, "notice acknowledged", notice, actor=who, study=study)
            left = and_(deliveries.c.job == row.job, deliveries.c.name == NOTICE, deliveries.c.state == "waiting")
            connection.execute(update(deliveries).where(left).values(state="aside", reason="it was acknowledged"))
        return True
