"""Effects of alerts and urgent answers: alerts hold models until a person undoes it, and people get notices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from hilum.errors import HilumError
from hilum.files.storage import hashing
from hilum.runtime import record_files
from hilum.service import model_facts
from hilum.service.configuration import PRIORITIES, NodeSettings, NoticeRecipient, SafetyRule
from hilum.service.model_facts import Urgency
from hilum.service.records import alert_records, audit_records, deployments
from hilum.service.records.actor import MACHINE, NODE, Actor
from hilum.service.records.alert_records import NOTICE, Notice
from hilum.service.records.audit_records import FAILURE, SUCCESS
from hilum.service.records.job_queue import Job, JobOutcome, ResultFile
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.tables import ANSWERS, DELIVERIES, HOLDS
from hilum.work_state import log

WARN, ABSTAIN, ROLLBACK, STOP, HALT = "warn", "abstain", "rollback", "stop", "halt"
# The most severe first: one of them decides what becomes of a job.
ACTIONS = (HALT, STOP, ABSTAIN, ROLLBACK, WARN)


def apply_safety_rules(connection: Connection, listed: Sequence[SafetyRule], alert: Row[Any]) -> list[str]:
    """Do what the settings say of an alert, each action once; which were done.

    What a person has undone is not done again for the same alert.
    """
    query = select(HOLDS.c.action).where(HOLDS.c.alert == alert.n, HOLDS.c.model == alert.model)
    before, done = set(connection.execute(query).scalars()), list[str]()
    for rule in listed:
        if rule.model != alert.model or rule.then in before or not rule.when.holds(alert.kind, alert.severity):
            continue
        because = f"alert {alert.n} ({alert.severity}): {alert.watch}{f', {alert.scope}' if alert.scope else ''}"
        columns = {
            "model": alert.model,
            "action": rule.then,
            "alert": alert.n,
            "because": because,
            "since": DatabaseClock(),
        }
        connection.execute(insert(HOLDS).values(columns))
        detail = {
            "because": because,
            **(_rolled_back(connection, alert.model, because) if rule.then == ROLLBACK else {}),
        }
        outcome = FAILURE if "problem" in detail else SUCCESS
        audit_records.record_event(connection, f"safety {rule.then}", alert.model, outcome=outcome, detail=detail)
        before.add(rule.then)
        done.append(rule.then)
    return done


def _rolled_back(connection: Connection, model: str, because: str) -> dict[str, str]:
    try:
        return {"done": deployments.roll_back(connection, model, NODE, because)}
    except HilumError as error:  # there is no package to go back to: people have to act
        log.error("model %s is not rolled back: %s", model, error.problem)
        return {"problem": error.problem}


def hold_of(connection: Connection, model: str) -> Row[Any] | None:
    """Hold on a model now, the most severe; None where there is none."""
    found = connection.execute(select(HOLDS).where(HOLDS.c.model == model, HOLDS.c.undone_at.is_(None))).all()
    return min(found, key=lambda row: (ACTIONS.index(row.action), row.n), default=None)


def undo_model_hold(connection: Connection, n: int, who: Actor, reason: str) -> bool:
    """Let a model go on as before; False where no such hold stands, or who asks may not end it.

    What halts a model ends once a second person with an account agrees; its alert is then closed, and later cases are
    looked at anew.
    """
    standing = (HOLDS.c.n == n, HOLDS.c.undone_at.is_(None))
    row = connection.execute(select(HOLDS).where(*standing).with_for_update()).first()
    is_person = bool(who.account) and not who.account.startswith(MACHINE)
    if row is None or (row.action == HALT and (not is_person or row.undone_by == who.account)):
        return False
    detail, is_first = {"because": row.because, "reason": reason}, row.action == HALT and row.undone_by is None
    people = who.account if row.undone_by is None else f"{row.undone_by}, {who.account}"
    values = {"undone_by": people, **({} if is_first else {"undone_at": DatabaseClock()})}
    connection.execute(update(HOLDS).where(*standing).values(values))
    word = "agreed to undo" if is_first else "undone"
    audit_records.record_event(connection, f"safety {row.action} {word}", row.model, actor=who, detail=detail)
    if row.action == HALT and not is_first:
        alert_records.settle_alert(connection, row.alert, alert_records.CLOSED, reason, who)
    return True


def notify_of_alert(connection: Connection, settings: NodeSettings, alert: Row[Any]) -> int:
    """Tell those of `[[notify]]` who want to know of such alerts, one after the other until it is acknowledged."""
    severities = {"urgent": ("monitor:urgent", "monitor:warning"), "warning": ("monitor:warning",)}
    due = recipient_delays(one for one in settings.notify if one.when in severities[alert.severity])
    if not due:
        return 0
    key = alert_notice_key(alert.n, alert.severity)
    path = settings.folder / "results" / key / NOTICE
    path.parent.mkdir(parents=True, exist_ok=True)
    where = f" ({alert.scope})" if alert.scope else ""
    notice = {"notice": key, "alert": alert.n, "model": alert.model, "priority": alert.severity}
    notice |= {"finding": f"monitoring of {alert.model}: {alert.watch}{where}", "because": alert.because}
    record_files.write_json(path, "hilum.notice", {**notice, "link": f"{settings.http.public_address}/monitor"})
    file = {"name": NOTICE, "kind": "notice", "bytes": path.stat().st_size, "sha256": hashing.file_hash(path)}
    connection.execute(insert(ANSWERS).values(job=key, **file))
    for peer, after in due.items():
        times = {"next_at": DatabaseClock() + after, "created_at": DatabaseClock()}
        connection.execute(insert(DELIVERIES).values(job=key, name=NOTICE, peer=peer, state="waiting", **times))
    return len(due)


def end_notices(connection: Connection, n: int) -> None:
    """Somebody has taken an alert up: it goes to nobody else."""
    keys = [alert_notice_key(n, severity) for severity in ("warning", "urgent")]
    left = update(DELIVERIES).where(DELIVERIES.c.job.in_(keys), DELIVERIES.c.state == "waiting")
    connection.execute(left.values(state="aside", reason="it was acknowledged"))


def alert_notice_key(n: int, severity: str) -> str:
    """The key of an alert's notice: made again it is the same, so that a recipient knows a repeat."""
    return hashlib.sha256(f"alert\0{n}\0{severity}".encode()).hexdigest()[:32]


def with_urgency(outcome: JobOutcome, job: Job, study: str, settings: NodeSettings, room: Path) -> JobOutcome:
    """The outcome with the priority that its findings give, and with `notice.json` where somebody is to know.

    study: its UID, all that a notice says of whom it is about
    """
    urgency = model_facts.most_urgent(outcome.findings, settings.urgent)
    outcome = replace(outcome, urgency=urgency)
    due = {} if urgency is None else recipient_delays(one for one in settings.notify if _wants(one, urgency))
    if urgency is None or not due:
        return outcome
    notice = Notice(alert_records.notice_key(job.job), urgency.finding, urgency.priority, due)
    link = f"{settings.http.public_address}/api/jobs/{job.job}"
    columns = {"notice": notice.notice, "study": study, "job": job.job, "outcome": outcome.outcome}
    columns |= {"model": job.model, "model_version": job.model_version}
    columns |= {"finding": notice.finding, "priority": notice.priority, "link": link}
    path = room / NOTICE
    record_files.write_json(path, "hilum.notice", columns)
    file = ResultFile(NOTICE, "notice", path.stat().st_size, hashing.file_hash(path))
    return replace(outcome, notice=notice, answers=[*outcome.answers, file])


def _wants(notify: NoticeRecipient, urgency: Urgency) -> bool:
    return not notify.of_alerts and urgency.rank <= PRIORITIES.index(notify.when)


def recipient_delays(listed: Iterable[NoticeRecipient]) -> dict[str, float]:
    """{recipient: s after which a notice goes there}, in the order of the list."""
    due, after = dict[str, float](), 0.0
    for notify in listed:
        due.setdefault(notify.recipient, after)
        after += 60 * notify.after_min
    return due
