"""A node's database in figures: how much it was used, by which models, and how the work ended. No identity is read."""

from __future__ import annotations

import statistics
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, Connection, func, select
from typing_extensions import TypedDict

from hilum.documents import reporting_days
from hilum.documents.subjects import DATABASE
from hilum.errors import IntegrityError, ResourceError
from hilum.evaluation import intervals
from hilum.service.records import record_database
from hilum.service.records.tables import (
    ALERTS,
    AUDIT,
    DELIVERIES,
    DEPLOYMENTS,
    FEEDBACK,
    INCIDENTS,
    JOBS,
    NOTICES,
    OUTCOME_ROWS,
    SERIES_ROWS,
    STUDIES,
)
from hilum.values.record_schema import RecordSchema

# Days are stated as 2026-11-30, and shares with their exact interval.
Exposure = TypedDict(
    "Exposure",
    {
        "studies": int,
        "jobs": int,
        "outcomes": dict[str, int],
        "failed": int,
        "from": str | None,
        "to": str | None,
        "median_seconds": float | None,
    },
)
AnsweringModel = TypedDict(
    "AnsweringModel", {"model": str, "sha256": str, "jobs": int, "from": str | None, "to": str | None}
)
DeployedVersion = TypedDict(
    "DeployedVersion",
    {"model": str, "mode": str, "sha256": str, "from": str | None, "to": str | None, "because": str | None},
)


class ModelFigures(TypedDict):
    """The versions of models that have answered, and how often one followed another."""

    models: list[AnsweringModel]
    changes: int


class ImageCounts(TypedDict):
    """Series by modality, by manufacturer and by model of the scanner."""

    modalities: dict[str, int]
    manufacturers: dict[str, int]
    scanners: dict[str, int]


class NoticeCounts(TypedDict):
    """Notices that were sent, and those that somebody acknowledged."""

    sent: int
    acknowledged: int


class SentFigures(TypedDict):
    """Deliveries by their state, and notices."""

    deliveries: dict[str, int]
    notices: NoticeCounts


class AuditCounts(TypedDict):
    """Rows of the audit, those that are sealed, and the outcomes of each action."""

    rows: int
    sealed: int
    actions: dict[str, dict[str, int]]


class Agreement(TypedDict):
    """The last verdicts of persons on results, by model too, and the reasons of corrections and rejections."""

    judged: int
    accepted: int
    corrected: int
    rejected: int
    share: float
    by_model: dict[str, dict[str, int]]
    reasons: dict[str, int]


class ReadingTime(TypedDict):
    """The median of the seconds for which a person looked at a result."""

    seconds: float


class OpinionFigures(TypedDict, total=False):
    """What persons thought of results; absent before the first verdict."""

    agreement: Agreement
    reading: ReadingTime


class NodeAlert(TypedDict):
    """An alert of the monitoring of the node."""

    at: str | None
    severity: str
    watch: str
    scope: str
    state: str
    because: str


class AlertFigures(TypedDict):
    """Alerts, and those that nobody ended."""

    total: int
    open: int
    rows: list[NodeAlert]


class MonitoringFigures(TypedDict):
    """Alerts, outcomes by their source, and the packages that answered for models."""

    alerts: AlertFigures
    known_outcomes: dict[str, int]
    deployments: list[DeployedVersion]


class Rate(TypedDict):
    """A share with its interval."""

    value: float
    low: float | None
    high: float | None
    n: int


class IncidentRow(TypedDict):
    """An incident with the days on which reports are due; open until cause, action and its check are stated."""

    incident: int
    known_on: str
    kind: str
    harm: str
    version: str
    cause: str
    action: str
    checked: str
    open: bool
    due: dict[str, str]


class IncidentFigures(TypedDict):
    """Incidents, and those that are open."""

    total: int
    open: int
    rows: list[IncidentRow]


class NodeRecord(ModelFigures, ImageCounts, SentFigures, OpinionFigures, MonitoringFigures):
    """The figures of a node, of all its time until now."""

    exposure: Exposure
    rates: dict[str, Rate]
    incidents: IncidentFigures
    audit: AuditCounts


NODE_SCHEMA = RecordSchema("hilum.node", NodeRecord)


def record_of_folder(folder: Path) -> NodeRecord:
    """The figures of the node in a folder, whose database is a file there, which is only read, or a server.

    Raises IntegrityError for a file that is no node's database.
    """
    path = folder / DATABASE
    database = record_database.open_to_read(path) if path.is_file() else record_database.node_database(folder)
    try:
        with database.read() as connection:
            return node_record(connection)
    except ResourceError as error:
        if not path.is_file():
            raise
        problem = f"is no database of a node ({error.problem})"
        raise IntegrityError(problem, str(path), "Give the node's folder") from error
    finally:
        database.close()


def node_record(connection: Connection) -> NodeRecord:
    """The figures of a node, of all its time until now."""
    exposure, opinions = _exposure(connection), _opinions(connection)
    record = {
        "exposure": exposure,
        "rates": _rates(exposure, opinions),
        **_models(connection),
        **_images(connection),
        **_sent(connection),
        **opinions,
        "incidents": _incidents(connection),
        **_monitoring(connection),
        "audit": _audit(connection),
    }
    return cast("NodeRecord", record)


def _counts(
    connection: Connection, column: Column[Any], *conditions: ColumnElement[bool], absent: str = ""
) -> dict[str, int]:
    """{value of a column: how many rows have it}; absent: what rows without a value are counted as."""
    asked = select(column, func.count()).where(*conditions).group_by(column)
    return dict(sorted((absent if value is None else value, count) for value, count in connection.execute(asked)))


def _exposure(connection: Connection) -> Exposure:
    """Studies and jobs, how these ended, and how long they took."""
    first, last = connection.execute(select(func.min(JOBS.c.created_at), func.max(JOBS.c.created_at))).one()
    ends = _counts(connection, JOBS.c.outcome, absent="open")
    times = select(JOBS.c.done_at - JOBS.c.started_at).where(JOBS.c.outcome == "answered")
    seconds = [one for one in connection.execute(times).scalars() if one is not None]
    return {
        "studies": connection.execute(select(func.count()).select_from(STUDIES)).scalar_one(),
        "jobs": sum(ends.values()),
        "outcomes": ends,
        "failed": ends.get("failed", 0),
        "from": _day(first),
        "to": _day(last),
        "median_seconds": round(statistics.median(seconds), 3) if seconds else None,
    }


def _models(connection: Connection) -> ModelFigures:
    """Each version of each model with its jobs and days, and how often a model was followed by another version."""
    version, first = (JOBS.c.model, JOBS.c.model_hash), func.min(JOBS.c.created_at)
    asked = select(*version, func.count(), first, func.max(JOBS.c.created_at)).group_by(*version)
    models: list[AnsweringModel] = [
        {"model": model, "sha256": sha256, "jobs": count, "from": _day(since), "to": _day(last)}
        for model, sha256, count, since, last in connection.execute(asked.order_by(JOBS.c.model, first))
    ]
    return {"models": models, "changes": len(models) - len({one["model"] for one in models})}


def _images(connection: Connection) -> ImageCounts:
    columns = {
        "modalities": SERIES_ROWS.c.modality,
        "manufacturers": SERIES_ROWS.c.manufacturer,
        "scanners": SERIES_ROWS.c.model,
    }
    counts = {name: _counts(connection, column, absent="not stated") for name, column in columns.items()}
    return cast("ImageCounts", counts)


def _sent(connection: Connection) -> SentFigures:
    sent, acknowledged = connection.execute(select(func.count(), func.count(NOTICES.c.acknowledged_at))).one()
    states = _counts(connection, DELIVERIES.c.state)
    return {"deliveries": states, "notices": {"sent": sent, "acknowledged": acknowledged}}


def _audit(connection: Connection) -> AuditCounts:
    """Count each action in the audit, and the sealed rows; nothing is read of who acted."""
    columns, counts = (AUDIT.c.action, AUDIT.c.outcome), dict[str, dict[str, int]]()
    for action, outcome, count in connection.execute(
        select(*columns, func.count()).group_by(*columns).order_by(*columns)
    ):
        counts.setdefault(action, {})[outcome] = count
    rows, sealed = connection.execute(select(func.count(), func.count(AUDIT.c.hash))).one()
    return {"rows": rows, "sealed": sealed, "actions": counts}


def _opinions(connection: Connection) -> OpinionFigures:
    """Last verdicts on each result, by model too, and the time that people looked at it; nothing before the first."""
    every = FEEDBACK.alias()
    is_last = FEEDBACK.c.feedback.in_(select(func.max(every.c.feedback)).group_by(every.c.judged))
    verdicts = {"accepted": 0, "corrected": 0, "rejected": 0} | _counts(connection, FEEDBACK.c.verdict, is_last)
    judged = sum(verdicts.values())
    if not judged:
        return {}
    columns, by_model = (JOBS.c.model, FEEDBACK.c.verdict), dict[str, dict[str, int]]()
    asked = select(*columns, func.count()).where(FEEDBACK.c.judged == JOBS.c.job, is_last)
    for model, verdict, count in connection.execute(asked.group_by(*columns).order_by(*columns)):
        by_model.setdefault(model, {})[verdict] = count
    reasons = _counts(connection, FEEDBACK.c.reason, is_last, FEEDBACK.c.verdict != "accepted")
    times = connection.execute(select(FEEDBACK.c.seconds).where(FEEDBACK.c.seconds.is_not(None))).scalars().all()
    share = verdicts["accepted"] / judged
    agreement = {"judged": judged, **verdicts, "share": share, "by_model": by_model, "reasons": reasons}
    figures = OpinionFigures(agreement=cast("Agreement", agreement))
    if times:
        figures["reading"] = {"seconds": statistics.median(times)}
    return figures


def _monitoring(connection: Connection) -> MonitoringFigures:
    """Alerts of monitoring, outcomes by their source, and the packages that answered for models, each with its days."""
    columns = [ALERTS.c[name] for name in ("at", "severity", "watch", "scope", "state", "because")]
    rung = connection.execute(select(*columns).order_by(ALERTS.c.n)).mappings()
    rows = [cast("NodeAlert", {**row, "at": _day(row["at"])}) for row in rung]
    one = DEPLOYMENTS.c
    deployed = connection.execute(
        select(one.model, one.mode, one.hash, one.began, one.ended, one.because).order_by(one.n)
    )
    packages: list[DeployedVersion] = [
        {"model": model, "mode": mode, "sha256": sha256, "from": _day(began), "to": _day(ended), "because": because}
        for model, mode, sha256, began, ended, because in deployed
    ]
    is_open = [row["state"] in ("open", "acknowledged") for row in rows]
    return {
        "alerts": {"total": len(rows), "open": sum(is_open), "rows": rows},
        "known_outcomes": _counts(connection, OUTCOME_ROWS.c.source),
        "deployments": packages,
    }


def _rates(exposure: Exposure, opinions: OpinionFigures) -> dict[str, Rate]:
    """{what went wrong: its share among the jobs that ended, or among judged results, with its exact interval}."""
    ends = exposure["outcomes"]
    ended = sum(count for outcome, count in ends.items() if outcome != "open")
    counts = {name: (ends.get(name, 0), ended) for name in ("failed", "abstained", "refused")}
    if opinions:
        counts["rejected"] = opinions["agreement"]["rejected"], opinions["agreement"]["judged"]
    made = {name: intervals.clopper_pearson(count, n) for name, (count, n) in counts.items() if n}
    return {name: Rate(value=one.value, low=one.low, high=one.high, n=one.n) for name, one in made.items()}


def _incidents(connection: Connection) -> IncidentFigures:
    """Incidents, each with the days on which reports are due; open until cause, action and its check are stated."""
    names = ("incident", "known_on", "kind", "harm", "version", "cause", "action", "checked")
    asked = select(*(INCIDENTS.c[name] for name in names)).order_by(INCIDENTS.c.incident)
    rows = [cast("IncidentRow", dict(row)) for row in connection.execute(asked).mappings()]
    for row in rows:
        row["open"] = not (row["cause"] and row["action"] and row["checked"])
        row["due"] = reporting_days.due_days(row["kind"], date.fromisoformat(row["known_on"]))
    return {"total": len(rows), "open": sum(row["open"] for row in rows), "rows": rows}


def _day(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()
