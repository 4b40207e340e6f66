"""Effects of alerts and urgent answers: alerts hold models until a person undoes it, and people get notices."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from isocenter.errors import IsocenterError
from isocenter.files import file_hash
from isocenter.runtime import write_json
from isocenter.service.records.actor import NODE, Actor
from isocenter.service.records.alerts import NOTICE, Notice, notice_key
from isocenter.service.records.audit import FAILURE, SUCCESS, record
from isocenter.service.records.database import Clock
from isocenter.service.records.deployments import roll_back
from isocenter.service.records.jobs import Answer, Job, Outcome
from isocenter.service.records.tables import answers, deliveries, holds
from isocenter.service.routing.facts import Urgency, most_urgent
from isocenter.service.settings import PRIORITIES, Notify, Safety, Settings

log = logging.getLogger("isocenter")

WARN, ABSTAIN, ROLLBACK, STOP = "warn", "abstain", "rollback", "stop"
# The most severe first: one of them decides what becomes of a job.
ACTIONS = (STOP, ABSTAIN, ROLLBACK, WARN)


def held(connection: Connection, listed: Sequence[Safety], alert: Row[Any]) -> list[str]:
    """Do what the settings say of an alert, each action once; which were done.

    What a person has undone is not done again for the same alert.
    """
    query = select(holds.c.action).where(holds.c.alert == alert.n, holds.c.model == alert.model)
    before, done = set(connection.execute(query).scalars()), list[str]()
    for rule in listed:
        if rule.model != alert.model or rule.then in before or not rule.when.holds(alert.kind, alert.severity):
            continue
        because = f"alert {alert.n} ({alert.severity}): {alert.watch}{f', {alert.scope}' if alert.scope else ''}"
        columns = {"model": alert.model, "action": rule.then, "alert": alert.n, "because": because, "since": Clock()}
        connection.execute(insert(holds).values(columns))
        detail = {
            "because": because,
            **(_rolled_back(connection, alert.model, because) if rule.then == ROLLBACK else {}),
        }
        outcome = FAILURE if "problem" in detail else SUCCESS
        record(connection, f"safety {rule.then}", alert.model, outcome=outcome, detail=detail)
        before.add(rule.then)
        done.append(rule.then)
    return done


def _rolled_back(connection: Connection, model: str, because: str) -> dict[str, str]:
    try:
        return {"done": roll_back(connection, model, NODE, because)}
    except IsocenterError as error:  # there is no package to go back to: people have to act
        log.error("model %s is not rolled back: %s", model, error.problem)
        return {"problem": error.problem}


def hold_of(connection: Connection, model: str) -> Row[Any] | None:
    """Hold on a model now, the most severe; None where there is none."""
    found = connection.execute(select(holds).where(holds.c.model == model, holds.c.undone_at.is_(None))).all()
    return min(found, key=lambda row: (ACTIONS.index(row.action), row.n), default=None)


def undone(connection: Connection, n: int, who: Actor, reason: str) -> bool:
    """Let a model go on as before; False where no such hold stands."""
    values = {"undone_at": Clock(), "undone_by": who.account}
    standing = update(holds).where(holds.c.n == n, holds.c.undone_at.is_(None)).values(values)
    row = connection.execute(standing.returning(holds.c.model, holds.c.action, holds.c.because)).first()
    if row is None:
        return False
    detail = {"because": row.because, "reason": reason}
    record(connection, f"safety {row.action} undone", row.model, actor=who, detail=detail)
    return True


def notified(connection: Connection, settings: Settings, alert: Row[Any]) -> int:
    """Tell those of `[[notify]]` who want to know of such alerts, one after the other until it is acknowledged."""
    severities = {"urgent": ("monitor:urgent", "monitor:warning"), "warning": ("monitor:warning",)}
    due = recipients(one for one in settings.notify if one.when in severities[alert.severity])
    if not due:
        return 0
    key = alert_notice_key(alert.n, alert.severity)
    path = settings.folder / "results" / key / NOTICE
    path.parent.mkdir(parents=True, exist_ok=True)
    where = f" ({alert.scope})" if alert.scope else ""
    notice = {"notice": key, "alert": alert.n, "model": alert.model, "priority": alert.severity}
    notice |= {"finding": f"monitoring of {alert.model}: {alert.watch}{where}", "because": alert.because}
    write_json(path, "isocenter.notice", {**notice, "link": f"{settings.http.reached}/monitor"})
    file = {"name": NOTICE, "kind": "notice", "bytes": path.stat().st_size, "sha256": file_hash(path)}
    connection.execute(insert(answers).values(job=key, **file))
    for peer, after in due.items():
        times = {"next_at": Clock() + after, "created_at": Clock()}
        connection.execute(insert(deliveries).values(job=key, name=NOTICE, peer=peer, state="waiting", **times))
    return len(due)


def end_notices(connection: Connection, n: int) -> None:
    """Somebody has taken an alert up: it goes to nobody else."""
    keys = [alert_notice_key(n, severity) for severity in ("warning", "urgent")]
    left = update(deliveries).where(deliveries.c.job.in_(keys), deliveries.c.state == "waiting")
    connection.execute(left.values(state="aside", reason="it was acknowledged"))


def alert_notice_key(n: int, severity: str) -> str:
    """The key of an alert's notice: made again it is the same, so that a recipient knows a repeat."""
    return hashlib.sha256(f"alert\0{n}\0{severity}".encode()).hexdigest()[:32]


def with_urgency(outcome: Outcome, job: Job, study: str, settings: Settings, room: Path) -> Outcome:
    """The outcome with the priority that its findings give, and with `notice.json` where somebody is to know.

    study: its UID, all that a notice says of whom it is about
    """
    urgency = most_urgent(outcome.findings, settings.urgent)
    outcome = replace(outcome, urgency=urgency)
    due = {} if urgency is None else recipients(one for one in settings.notify if _wants(one, urgency))
    if urgency is None or not due:
        return outcome
    notice = Notice(notice_key(job.job), urgency.finding, urgency.priority, due)
    link = f"{settings.http.reached}/api/jobs/{job.job}"
    columns = {"notice": notice.notice, "study": study, "job": job.job, "outcome": outcome.outcome}
    columns |= {"model": job.model, "model_version": job.model_version}
    columns |= {"finding": notice.finding, "priority": notice.priority, "link": link}
    path = room / NOTICE
    write_json(path, "isocenter.notice", columns)
    file = Answer(NOTICE, "notice", path.stat().st_size, file_hash(path))
    return replace(outcome, notice=notice, answers=[*outcome.answers, file])


def _wants(notify: Notify, urgency: Urgency) -> bool:
    return not notify.of_alerts and urgency.rank <= PRIORITIES.index(notify.when)


def recipients(listed: Iterable[Notify]) -> dict[str, float]:
    """{recipient: s after which a notice goes there}, in the order of the list."""
    due, after = dict[str, float](), 0.0
    for notify in listed:
        due.setdefault(notify.recipient, after)
        after += 60 * notify.after_min
    return due
