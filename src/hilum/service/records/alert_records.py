"""Alerts of monitoring, incidents with results, and notices of urgent findings.

There is one alert for each kind of change and each bound; it is open until a person has closed it or three windows
were quiet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, select, update

from hilum.service.configuration import SEVERITIES
from hilum.service.records import audit_records
from hilum.service.records.actor import NODE, Actor
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import ALERTS, DELIVERIES, INCIDENTS, JOBS, NOTICES, STUDIES, RowValues
from hilum.values.plain_values import PlainValue

if TYPE_CHECKING:
    from hilum.monitoring.alerting import Alert


OPEN, ACKNOWLEDGED, CLOSED, CLEARED = "open", "acknowledged", "closed", "cleared"
# Those whose cause still stands.
STANDING = (OPEN, ACKNOWLEDGED)
# Of audited figures below a bound, each of which is a cause of its own.
PERFORMANCE = "performance"


def standing_alerts(connection: Connection, version: str | None = None) -> Sequence[Row[Any]]:
    """Alerts whose cause still stands, of a version of a model or of all."""
    query = select(ALERTS).where(ALERTS.c.state.in_(STANDING)).order_by(ALERTS.c.n)
    return connection.execute(query if version is None else query.where(ALERTS.c.model_hash == version)).all()


def last_end(connection: Connection, version: str) -> float:
    """When the last alert of a version was closed or cleared (s since 1970); 0 for none. Watches begin again there."""
    ended = select(func.max(ALERTS.c.ended_at)).where(ALERTS.c.model_hash == version)
    return float(connection.execute(ended).scalar() or 0.0)


def raise_alert(connection: Connection, model: str, version: str, alert: Alert) -> Row[Any] | None:
    """Write an alert; its row where it is new or has become more severe, None where it was known as it is."""
    earlier = next((one for one in standing_alerts(connection, version) if _is_same_cause(one, alert)), None)
    alert_columns = {name: getattr(alert, name) for name in ("watch", "kind", "scope", "because", "action")}
    if earlier is None:
        model_columns = {"model": model, "model_hash": version, "severity": alert.severity, "state": OPEN}
        times = {"at": _seconds(alert.at), "since": _seconds(alert.since), "looked_at": _seconds(alert.at)}
        insertion = insert(ALERTS).values(**model_columns, **times, **alert_columns).returning(ALERTS.c.n)
        n = connection.execute(insertion).scalar_one()
    else:
        n, is_worse = earlier.n, SEVERITIES.index(alert.severity) > SEVERITIES.index(earlier.severity)
        if alert.scope or not earlier.scope:  # a watch that has begun again may not know yet where it is
            severity = alert.severity if is_worse else earlier.severity
            connection.execute(update(ALERTS).where(ALERTS.c.n == n).values(severity=severity, **alert_columns))
        if not is_worse:
            return None
    row = connection.execute(select(ALERTS).where(ALERTS.c.n == n)).one()
    detail = {name: getattr(row, name) for name in ("model", "severity", "kind", "watch", "scope", "because")}
    audit_records.record_event(connection, "alert", str(n), detail=detail)
    return row


def settle_alert(connection: Connection, n: int, state: str, reason: str, who: Actor = NODE) -> bool:
    """Have an alert that stands acknowledged, closed or cleared; False where none of this number stands."""
    values: RowValues = {"state": state, "actor": who.account, "reason": reason}
    values |= {} if state == ACKNOWLEDGED else {"ended_at": DatabaseClock()}
    change = update(ALERTS).where(ALERTS.c.n == n, ALERTS.c.state.in_(STANDING)).values(values)
    if connection.execute(change).rowcount != 1:
        return False
    audit_records.record_event(connection, f"alert {state}", str(n), actor=who, detail={"reason": reason})
    return True


def note_quiet_window(connection: Connection, n: int, *, is_quiet: bool, until: float) -> int:
    """Note a window after an alert; return the number of quiet ones in a row. until: its last case (s since 1970)."""
    quiet = ALERTS.c.quiet + 1 if is_quiet else 0
    noted = update(ALERTS).where(ALERTS.c.n == n).values(quiet=quiet, looked_at=until)
    return int(connection.execute(noted.returning(ALERTS.c.quiet)).scalar_one())


def _is_same_cause(row: Row[Any], alert: Alert) -> bool:
    """One kind is one cause, and so is a watch whose outcomes tell another kind by and by."""
    if PERFORMANCE in (row.kind, alert.kind):
        return (row.kind, row.watch) == (alert.kind, alert.watch)
    return cast(bool, row.kind == alert.kind or row.watch == alert.watch)


def _seconds(at: str) -> float:
    """Seconds of a time in ISO 8601, or a day, in UTC."""
    moment = datetime.fromisoformat(at)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, eq=False)
class Incidents:
    """The table of incidents."""

    database: Database

    def rows(self, most: int) -> Sequence[Row[*tuple[Any, ...]]]:
        """Incidents with the UID of their study, the newest first."""
        joined = INCIDENTS.outerjoin(STUDIES, INCIDENTS.c.study == STUDIES.c.study)
        columns = [column for column in INCIDENTS.c if column.name != "study"]
        query = select(*columns, STUDIES.c.uid.label("study")).select_from(joined)
        return self.database.rows(query.order_by(INCIDENTS.c.incident.desc()).limit(most))

    def add(self, columns: Mapping[str, PlainValue], who: Actor) -> int:
        """Keep a new incident; its number."""
        with self.database.write() as connection:
            row = {**columns, "account": who.account, "at": DatabaseClock()}
            [number] = connection.execute(insert(INCIDENTS).values(row)).inserted_primary_key or (0,)
            detail: dict[str, PlainValue] = {
                "kind": columns["kind"],
                "stated": sorted(name for name, value in columns.items() if value),
            }
            audit_records.record_event(
                connection,
                "incident",
                str(number),
                actor=who,
                study=cast("str | None", columns.get("study")),
                detail=detail,
            )
        return int(number)

    def change(self, number: int, columns: Mapping[str, PlainValue], who: Actor) -> bool:
        """State more of an incident, or something else; False where there is no such incident.

        The audit names what was changed, and not its words, which may name a person.
        """
        here = INCIDENTS.c.incident == number
        with self.database.write() as connection:
            row = connection.execute(select(INCIDENTS).where(here)).first()
            if row is None:
                return False
            changed = {name: value for name, value in columns.items() if value != row._mapping[name]}
            if changed:
                values = {**changed, "account": who.account, "at": DatabaseClock()}
                connection.execute(update(INCIDENTS).where(here).values(values))
                detail = {"changed": sorted(changed)}
                audit_records.record_event(
                    connection, "incident", str(number), actor=who, study=row.study, detail=detail
                )
        return True


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


def record_notice(connection: Connection, job: str, notice: Notice) -> Mapping[str, float]:
    """Note a job's notice; its recipients, or none where somebody has acknowledged it before."""
    here = NOTICES.c.notice == notice.notice
    earlier = connection.execute(select(NOTICES.c.acknowledged_at).where(here)).first()
    columns = {"finding": notice.finding, "priority": notice.priority}
    if earlier is None:
        connection.execute(insert(NOTICES).values(notice=notice.notice, job=job, created_at=DatabaseClock(), **columns))
    else:
        connection.execute(update(NOTICES).where(here).values(columns))
    return notice.recipients if earlier is None or earlier.acknowledged_at is None else {}


@dataclass(frozen=True, eq=False)
class Notices:
    """The table of notices."""

    database: Database

    def newest(self, most: int, *where: ColumnElement[bool]) -> Sequence[Row[Any]]:
        """Notices with the UID of their study, the newest first."""
        joined = NOTICES.join(JOBS, NOTICES.c.job == JOBS.c.job).join(STUDIES, JOBS.c.study == STUDIES.c.study)
        query = select(NOTICES, STUDIES.c.uid.label("study")).select_from(joined)
        return self.database.rows(
            query.where(*where).order_by(NOTICES.c.created_at.desc(), NOTICES.c.notice).limit(most)
        )

    def acknowledge(self, notice: str, *, who: Actor = NODE) -> bool:
        """Somebody has taken it up: it goes to nobody else; False where there is no such notice."""
        here = NOTICES.c.notice == notice
        with self.database.write() as connection:
            row = connection.execute(select(NOTICES).where(here)).first()
            if row is None:
                return False
            if row.acknowledged_at is None:
                connection.execute(update(NOTICES).where(here).values(acknowledged_at=DatabaseClock()))
                study = connection.execute(select(JOBS.c.study).where(JOBS.c.job == row.job)).scalar()
                audit_records.record_event(connection, "notice acknowledged", notice, actor=who, study=study)
            left = and_(DELIVERIES.c.job == row.job, DELIVERIES.c.name == NOTICE, DELIVERIES.c.state == "waiting")
            connection.execute(update(DELIVERIES).where(left).values(state="aside", reason="it was acknowledged"))
        return True
