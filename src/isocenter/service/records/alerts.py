"""Alerts of monitoring: one row a cause, open until a person has closed it or three windows were quiet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, insert, select, update

from isocenter.service.records.actor import NODE, Actor
from isocenter.service.records.audit import record
from isocenter.service.records.database import Clock
from isocenter.service.records.tables import alerts
from isocenter.service.settings import SEVERITIES

if TYPE_CHECKING:
    from isocenter.monitoring import Alert

OPEN, ACKNOWLEDGED, CLOSED, CLEARED = "open", "acknowledged", "closed", "cleared"
# Those whose cause still stands.
STANDING = (OPEN, ACKNOWLEDGED)
# Of audited figures below a bound, each of which is a cause of its own.
PERFORMANCE = "performance"


def standing(connection: Connection, version: str | None = None) -> Sequence[Row[Any]]:
    """Alerts whose cause still stands, of a version of a model or of all."""
    wanted = select(alerts).where(alerts.c.state.in_(STANDING)).order_by(alerts.c.n)
    return connection.execute(wanted if version is None else wanted.where(alerts.c.model_hash == version)).all()


def last_end(connection: Connection, version: str) -> float:
    """When the last alert of a version was closed or cleared (s since 1970); 0 for none. Watches begin again there."""
    ended = select(func.max(alerts.c.ended_at)).where(alerts.c.model_hash == version)
    return float(connection.execute(ended).scalar() or 0.0)


def raised(connection: Connection, model: str, version: str, alert: Alert) -> Row[Any] | None:
    """Write an alert; its row where it is new or has become more severe, None where it was known as it is."""
    known = next((one for one in standing(connection, version) if _is_same_cause(one, alert)), None)
    stated = {name: getattr(alert, name) for name in ("watch", "kind", "scope", "because", "action")}
    if known is None:
        own = {"model": model, "model_hash": version, "severity": alert.severity, "state": OPEN}
        times = {"at": _seconds(alert.at), "since": _seconds(alert.since), "looked_at": _seconds(alert.at)}
        made = insert(alerts).values(**own, **times, **stated).returning(alerts.c.n)
        n = connection.execute(made).scalar_one()
    else:
        n, is_worse = known.n, SEVERITIES.index(alert.severity) > SEVERITIES.index(known.severity)
        if alert.scope or not known.scope:  # a watch that has begun again may not know yet where it is
            severity = alert.severity if is_worse else known.severity
            connection.execute(update(alerts).where(alerts.c.n == n).values(severity=severity, **stated))
        if not is_worse:
            return None
    row = connection.execute(select(alerts).where(alerts.c.n == n)).one()
    detail = {name: getattr(row, name) for name in ("model", "severity", "kind", "watch", "scope", "because")}
    record(connection, "alert", str(n), detail=detail)
    return row


def settled(connection: Connection, n: int, state: str, reason: str, who: Actor = NODE) -> bool:
    """Have an alert that stands acknowledged, closed or cleared; False where none of this number stands."""
    values: dict[str, Any] = {"state": state, "actor": who.account, "reason": reason}
    values |= {} if state == ACKNOWLEDGED else {"ended_at": Clock()}
    known = update(alerts).where(alerts.c.n == n, alerts.c.state.in_(STANDING)).values(values)
    if connection.execute(known).rowcount != 1:
        return False
    record(connection, f"alert {state}", str(n), actor=who, detail={"reason": reason})
    return True


def looked(connection: Connection, n: int, *, is_quiet: bool, until: float) -> int:
    """Note a window after an alert; how many were quiet in a row. until: the time of its last case (s since 1970)."""
    quiet = alerts.c.quiet + 1 if is_quiet else 0
    noted = update(alerts).where(alerts.c.n == n).values(quiet=quiet, looked_at=until)
    return int(connection.execute(noted.returning(alerts.c.quiet)).scalar_one())


def _is_same_cause(row: Row[Any], alert: Alert) -> bool:
    """One kind is one cause, and so is a watch whose outcomes tell another kind by and by."""
    if PERFORMANCE in (row.kind, alert.kind):
        return (row.kind, row.watch) == (alert.kind, alert.watch)
    return row.kind == alert.kind or row.watch == alert.watch


def _seconds(at: str) -> float:
    """Seconds of a time in ISO 8601, or a day, in UTC."""
    stated = datetime.fromisoformat(at)
    return (stated if stated.tzinfo else stated.replace(tzinfo=UTC)).timestamp()
