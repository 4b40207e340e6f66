"""Routes of monitoring: alerts, the last round, baselines, holds, notices, incidents and changes of models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Connection, and_, select

from hilum import errors
from hilum.documents.reporting_days import KINDS
from hilum.errors import IntegrityError
from hilum.monitoring import alerting
from hilum.monitoring.alerting import BoundState
from hilum.service import node_folder
from hilum.service.monitoring import change_comparison, monitored_cases, safety
from hilum.service.node_monitor_record import WatchedVersionRecord
from hilum.service.records import alert_records, deployments
from hilum.service.records.actor import Actor
from hilum.service.records.alert_records import ACKNOWLEDGED, CLOSED, NOTICE, Incidents, Notices
from hilum.service.records.deployments import ChangeError, UnknownChangeError
from hilum.service.records.tables import ALERTS, CORRECTIONS, DELIVERIES, DEPLOYMENTS, HOLDS, JOBS, NOTICES, STUDIES
from hilum.service.web import access, web_node, worklist_routes
from hilum.service.web.access import ADMINISTRATORS, KEEPING, ROLES, WORKING, Who
from hilum.service.web.response_shapes import (
    AlertShape,
    BaselineShape,
    ChangeShape,
    DeliveryShape,
    HoldShape,
    IncidentShape,
    Listing,
    MonitorShape,
    NoticeShape,
    WatchedShape,
)
from hilum.service.web.web_node import KEY, MOST_ROWS, UID, Limit, Node, WebError, WebNode
from hilum.service.web.worklist_routes import TO_BE_READ
from hilum.values import record_schema

router = APIRouter(prefix="/api", tags=["monitor"])
PEOPLE = ("radiologist", "administrator")
N = Annotated[int, Path(ge=1, le=2**31 - 1)]


class Reason(BaseModel):
    """Why somebody does it."""

    reason: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class Frozen(BaseModel):
    """The model whose newest cases become its baseline."""

    model: Annotated[str, Field(min_length=1, max_length=64)]


@router.get("/alerts", dependencies=[access.require_roles(ROLES)])
def list_alerts(
    node: Node, state: Literal["open", "acknowledged", "closed", "cleared"] | None = None, limit: Limit = 100
) -> Listing[AlertShape]:
    """Alerts, the newest first."""
    query = select(ALERTS).order_by(ALERTS.c.n.desc()).limit(limit)
    rows = node.database.rows(query if state is None else query.where(ALERTS.c.state == state))
    return Listing[AlertShape](schema="hilum.alerts", rows=[AlertShape.model_validate(row._mapping) for row in rows])


@router.post("/alerts/{n}/acknowledge", dependencies=[access.require_roles(PEOPLE)])
def acknowledge_alert(node: Node, who: Who, n: N, reason: Reason) -> AlertShape:
    """Take an alert up: it is sent to no further recipient, and stays until it is closed or its cause is gone."""
    return _settle(node, who, n, ACKNOWLEDGED, reason.reason)


@router.post("/alerts/{n}/close", dependencies=[access.require_roles(PEOPLE)])
def close_alert(node: Node, who: Who, n: N, reason: Reason) -> AlertShape:
    """Close an alert: the watches of its model begin again. What holds the model is undone by itself."""
    return _settle(node, who, n, CLOSED, reason.reason)


@router.get("/monitor", dependencies=[access.require_roles(ROLES)])
def get_monitor(node: Node) -> MonitorShape:
    """Get the result of the last round of monitoring, within the last minute or so."""
    look, wanted = node_folder.last_monitoring_round(node.folder), node.settings.monitor.baseline_cases
    seen = {row["version"]: row for row in look["rows"]}
    models = list[WatchedShape]()
    with node.database.read() as connection:
        open_now = alert_records.standing_alerts(connection)
        model_versions = select(JOBS.c.model_hash, JOBS.c.model_version).distinct()
        stated = {row.model_hash: row.model_version for row in connection.execute(model_versions)}
        for model, version in monitored_cases.answering_versions(connection):
            row = seen.get(version, cast("WatchedVersionRecord", {}))
            frozen = monitored_cases.baseline_of(connection, version)
            cases = min(monitored_cases.count_cases(connection, version), wanted) if frozen is None else frozen.cases
            state = "frozen" if frozen is not None else "proposed" if cases >= wanted else "collecting"
            own = [one for one in open_now if one.model_hash == version]
            named = "; ".join(f"{one.severity}: {one.watch}{f' ({one.scope})' if one.scope else ''}" for one in own)
            baseline = BaselineShape(
                state=state,
                cases=cases,
                wanted=wanted,
                frozen_at=frozen and frozen.frozen_at,
                frozen_by=frozen and frozen.frozen_by,
            )
            watched = row if frozen is not None else cast("WatchedVersionRecord", {})
            bounds = watched.get("bounds", [])
            words = [named or "no alert", *alerting.reported_bounds_words([BoundState(**one) for one in bounds])]
            models.append(
                WatchedShape(
                    model=model,
                    version=version,
                    model_version=stated.get(version, ""),
                    verdict="; ".join(words) if frozen is not None else f"not watched: {cases} of {wanted} cases",
                    baseline=baseline,
                    cases=watched.get("cases", 0),
                    run_length=watched.get("run_length", 0.0),
                    problem=watched.get("problem", ""),
                    drift=record_schema.plain(watched.get("drift", [])),
                    performance=record_schema.plain(watched.get("performance", [])),
                    site_verdict=watched.get("site_verdict", ""),
                    site=record_schema.plain(watched.get("site", [])),
                    bounds=record_schema.plain(bounds),
                    changes=watched.get("changes", {}),
                )
            )
        held = connection.execute(select(HOLDS).where(HOLDS.c.undone_at.is_(None)).order_by(HOLDS.c.n)).all()
    return MonitorShape(
        verdict=errors.count_phrase(len(open_now), "alert stands", "alerts stand") if open_now else "no alert stands",
        at=cast("datetime | None", look["at"]),
        models=models,
        holds=[HoldShape.model_validate(row._mapping) for row in held],
    )


@router.post("/monitor/baseline", dependencies=[access.require_roles(ADMINISTRATORS)])
def freeze_baseline(node: Node, who: Who, request: Frozen) -> MonitorShape:
    """Have the newest cases of the version of a model that has answered last be its baseline."""
    baseline_cases = node.settings.monitor.baseline_cases
    with node.database.write() as connection:
        version = dict(monitored_cases.answering_versions(connection)).get(request.model)
        if version is None:
            raise WebError(404, "no such model has answered yet", request.model, "See /api/monitor")
        if not monitored_cases.freeze_newest_cases(connection, request.model, version, baseline_cases, who):
            problem = f"{monitored_cases.count_cases(connection, version)} of {baseline_cases} cases were answered"
            raise WebError(409, problem, request.model, "Wait for more, or lower baseline_cases in [monitor]")
    return get_monitor(node)


@router.post("/monitor/holds/{n}/undo", dependencies=[access.require_roles(PEOPLE)])
def undo_hold(node: Node, who: Who, n: N, reason: Reason) -> HoldShape:
    """Let a model go on as before an alert; a package that was rolled back stays so."""
    with node.database.write() as connection:
        is_undone = safety.undo_model_hold(connection, n, who, reason.reason)
        row = connection.execute(select(HOLDS).where(HOLDS.c.n == n)).first()
    if row is None:
        raise WebError(404, "there is no such hold", str(n), "See /api/monitor")
    if not is_undone and row.undone_at is None:
        raise WebError(409, "two persons with accounts have to agree, each once", str(n), "Ask another person")
    if not is_undone:
        raise WebError(409, "it was undone before", str(n), "Leave it")
    return HoldShape.model_validate(row._mapping)


def _settle(node: WebNode, who: Actor, n: int, state: str, reason: str) -> AlertShape:
    with node.database.write() as connection:
        is_settled = alert_records.settle_alert(connection, n, state, reason, who)
        if is_settled:
            safety.end_notices(connection, n)
        row = connection.execute(select(ALERTS).where(ALERTS.c.n == n)).first()
    if row is None:
        raise WebError(404, "there is no such alert", str(n), "See /api/alerts")
    if not is_settled:
        raise WebError(409, f"the alert is {row.state}", str(n), "Leave it")
    return AlertShape.model_validate(row._mapping)


notices_router = APIRouter(prefix="/api/notices", tags=["notices"])


@notices_router.get("", dependencies=[access.require_roles(ROLES)])
def list_notices(node: Node, who: Who, limit: Limit = 100, unacknowledged: bool = False) -> Listing[NoticeShape]:
    """Notices, the newest first; unacknowledged: those alone that nobody has taken up.

    Of one that somebody has taken up the finding is hidden as long as its study waits to be read blind.
    """
    conditions = [NOTICES.c.acknowledged_at.is_(None)] if unacknowledged else []
    hidden = {one.row.uid for one in worklist_routes.reads_for(node, who)}
    rows = [
        row.model_copy(update={"finding": TO_BE_READ}) if row.study in hidden and row.acknowledged_at else row
        for row in _notice_shapes(node, limit, *conditions)
    ]
    return Listing[NoticeShape](schema="hilum.notices", rows=rows)


@notices_router.post("/{n}/acknowledge", dependencies=[access.require_roles(WORKING)])
def acknowledge_notice(node: Node, who: Who, n: Annotated[str, Path(pattern=KEY)]) -> NoticeShape:
    """Take a notice up: it goes to no further recipient."""
    if not Notices(node.database).acknowledge(n, who=who):
        raise WebError(404, "there is no such notice", n, "See /api/notices")
    return _notice_shapes(node, 1, NOTICES.c.notice == n)[0]


def _notice_shapes(node: WebNode, most: int, *where: ColumnElement[bool]) -> list[NoticeShape]:
    rows = Notices(node.database).newest(most, *where)
    sent = defaultdict[str, list[DeliveryShape]](list)
    mine = and_(DELIVERIES.c.name == NOTICE, DELIVERIES.c.job.in_([row.job for row in rows]))
    with node.database.read() as connection:
        for row in connection.execute(select(DELIVERIES).where(mine).order_by(DELIVERIES.c.next_at)):
            sent[row.job].append(DeliveryShape.model_validate(row._mapping))
        of_these = select(CORRECTIONS.c.judged).where(CORRECTIONS.c.judged.in_([row.job for row in rows]))
        changed = set(connection.execute(of_these).scalars())
    return [
        NoticeShape.model_validate({**row._mapping, "deliveries": sent[row.job], "is_corrected": row.job in changed})
        for row in rows
    ]


incidents_router = APIRouter(prefix="/api/incidents", tags=["incidents"])
Words = Annotated[str, Field(max_length=10_000)]
Kind = Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]


class IncidentChange(BaseModel):
    """Statement on an incident; it is open until cause, action and the check of the action are stated."""

    kind: Kind | None = None
    harm: Annotated[Words, Field(min_length=1)] | None = None
    version: Words | None = None
    known_on: date | None = None
    cause: Words | None = None
    action: Words | None = None
    checked: Words | None = None


class NewIncident(IncidentChange):
    """An incident: its kind of harm, what happened, and since when it is known. study: as UID, if it is of one"""

    kind: Kind
    harm: Annotated[Words, Field(min_length=1)]
    known_on: date
    version: Words = ""
    cause: Words = ""
    action: Words = ""
    checked: Words = ""
    study: Annotated[str, Field(pattern=UID)] | None = None


@incidents_router.get("", dependencies=[access.require_roles(ROLES)])
def list_incidents(node: Node, limit: Limit = 100) -> Listing[IncidentShape]:
    """Incidents, the newest first."""
    return Listing[IncidentShape](schema="hilum.incidents", rows=_incident_shapes(node, limit))


@incidents_router.post(
    "", status_code=201, responses={201: {"description": "Created"}}, dependencies=[access.require_roles(WORKING)]
)
def add_incident(node: Node, who: Who, new: NewIncident) -> IncidentShape:
    """State an incident."""
    columns = _incident_columns(new)
    if new.study is not None:
        columns["study"] = web_node.study_key(new.study)
        with node.database.read() as connection:
            if connection.execute(select(STUDIES).where(STUDIES.c.study == columns["study"])).first() is None:
                raise WebError(404, "there is no such study", new.study, "See /api/studies, or leave it out")
    return _incident_shape(node, Incidents(node.database).add(columns, who))


@incidents_router.put("/{n}", dependencies=[access.require_roles(KEEPING)])
def change_incident(
    node: Node, who: Who, n: Annotated[int, Path(ge=1, lt=2**31)], change: IncidentChange
) -> IncidentShape:
    """State more of an incident, such as its cause, the action and its check."""
    if not Incidents(node.database).change(n, _incident_columns(change), who):
        raise WebError(404, "there is no such incident", str(n), "See /api/incidents")
    return _incident_shape(node, n)


def _incident_columns(incident_change: IncidentChange) -> dict[str, str]:
    day = incident_change.known_on
    # Somewhere it may be tomorrow already.
    if day is not None and day > datetime.now(UTC).date() + timedelta(days=1):
        raise WebError(422, "the day lies in the future", day.isoformat(), "Give the day on which it became known")
    return {
        name: str(value) for name, value in incident_change.model_dump(exclude={"study"}).items() if value is not None
    }


def _incident_shape(node: WebNode, number: int) -> IncidentShape:
    return next(row for row in _incident_shapes(node, MOST_ROWS) if row.incident == number)


def _incident_shapes(node: WebNode, most: int) -> list[IncidentShape]:
    return [IncidentShape.model_validate(row._mapping) for row in Incidents(node.database).rows(most)]


changes_router = APIRouter(prefix="/api/changes", tags=["changes"])
CHANGING = ("radiologist", "administrator")
Number = Annotated[int, Path(ge=0, le=2**31)]


class Ending(BaseModel):
    """Why a change is ended."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


@changes_router.get("", dependencies=[access.require_roles(ROLES)])
def list_changes(node: Node) -> Listing[ChangeShape]:
    """Every package that answered, is to, or answers in shadow, oldest first."""
    with node.database.read() as connection:
        return Listing[ChangeShape](schema="hilum.changes", rows=_change_shapes(connection))


@changes_router.post("/{n}/approve", dependencies=[access.require_roles(CHANGING)])
def post_approval(node: Node, who: Who, n: Number) -> ChangeShape:
    """Approve a change that waits: with two persons, one of them a radiologist, it begins."""
    with _refusals(), node.database.write() as connection:
        deployments.approve_change(connection, n, who)
        return _change_shapes(connection, DEPLOYMENTS.c.n == n)[0]


@changes_router.post("/{n}/end", dependencies=[access.require_roles(CHANGING)])
def post_end(node: Node, who: Who, n: Number, ending: Ending) -> ChangeShape:
    """End a shadow, a split, or a change that waits; of a live package the one before answers again."""
    with _refusals(), node.database.write() as connection:
        deployments.end_change(connection, n, who, ending.reason)
        return _change_shapes(connection, DEPLOYMENTS.c.n == n)[0]


def _change_shapes(connection: Connection, *where: ColumnElement[bool]) -> list[ChangeShape]:
    return [ChangeShape.model_validate(row) for row in change_comparison.change_rows(connection, *where)]


@contextmanager
def _refusals() -> Iterator[None]:
    """Refuse what cannot be done as things stand as a conflict, not as a wrong request."""
    try:
        yield
    except (ChangeError, IntegrityError) as error:
        status = 404 if isinstance(error, UnknownChangeError) else 409
        raise WebError(status, error.problem, error.where, error.remedy) from error
