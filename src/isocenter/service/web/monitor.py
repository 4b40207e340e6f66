"""Routes of monitoring: alerts, what the last round has said, baselines, and what holds models."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy import select

from isocenter.errors import counted
from isocenter.service.monitoring.cases import baseline_of, counted_cases, freeze, versions
from isocenter.service.monitoring.safety import end_notices, undone
from isocenter.service.records.actor import Actor
from isocenter.service.records.alerts import ACKNOWLEDGED, CLOSED, settled, standing
from isocenter.service.records.tables import alerts, holds
from isocenter.service.stored import last_look
from isocenter.service.web.access import ROLES, Who, roles
from isocenter.service.web.shapes import AlertShape, BaselineShape, HoldShape, Listing, MonitorShape, WatchedShape
from isocenter.service.web.web_node import Limit, Node, WebError, WebNode

router = APIRouter(prefix="/api", tags=["monitor"])
PEOPLE = ("radiologist", "administrator")
N = Annotated[int, Path(ge=1, le=2**31 - 1)]


class Reason(BaseModel):
    """Why somebody does it."""

    reason: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class Frozen(BaseModel):
    """The model whose newest cases become its baseline."""

    model: Annotated[str, Field(min_length=1, max_length=64)]


@router.get("/alerts", dependencies=[roles(*ROLES)])
def list_alerts(
    node: Node, state: Literal["open", "acknowledged", "closed", "cleared"] | None = None, limit: Limit = 100
) -> Listing[AlertShape]:
    """Alerts, the newest first."""
    query = select(alerts).order_by(alerts.c.n.desc()).limit(limit)
    with node.database.read() as connection:
        rows = connection.execute(query if state is None else query.where(alerts.c.state == state)).all()
    return Listing[AlertShape](
        schema="isocenter.alerts", rows=[AlertShape.model_validate(row._mapping) for row in rows]
    )


@router.post("/alerts/{n}/acknowledge", dependencies=[roles(*PEOPLE)])
def acknowledge_alert(node: Node, who: Who, n: N, reason: Reason) -> AlertShape:
    """Take an alert up: it is sent to no further recipient, and stays until it is closed or its cause is gone."""
    return _settled(node, who, n, ACKNOWLEDGED, reason.reason)


@router.post("/alerts/{n}/close", dependencies=[roles(*PEOPLE)])
def close_alert(node: Node, who: Who, n: N, reason: Reason) -> AlertShape:
    """Close an alert: the watches of its model begin again. What holds the model is undone by itself."""
    return _settled(node, who, n, CLOSED, reason.reason)


@router.get("/monitor", dependencies=[roles(*ROLES)])
def get_monitor(node: Node) -> MonitorShape:
    """Get the result of the last round of monitoring, within the last minute or so."""
    look, wanted = last_look(node.folder), node.settings.monitor.baseline_cases
    seen = {row["version"]: row for row in look["rows"]}
    models = list[WatchedShape]()
    with node.database.read() as connection:
        open_now = standing(connection)
        for model, version in versions(connection):
            row, frozen = seen.get(version, {}), baseline_of(connection, version)
            cases = min(counted_cases(connection, version), wanted) if frozen is None else frozen.cases
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
            watched = row if frozen is not None else {}
            models.append(
                WatchedShape(
                    model=model,
                    version=version,
                    verdict=named or ("no alert" if frozen is not None else f"not watched: {cases} of {wanted} cases"),
                    baseline=baseline,
                    cases=watched.get("cases", 0),
                    run_length=watched.get("run_length", 0.0),
                    problem=watched.get("problem", ""),
                    drift=watched.get("drift", []),
                    performance=watched.get("performance", []),
                    site_verdict=watched.get("site_verdict", ""),
                    site=watched.get("site", []),
                )
            )
        held = connection.execute(select(holds).where(holds.c.undone_at.is_(None)).order_by(holds.c.n)).all()
    return MonitorShape(
        verdict=counted(len(open_now), "alert stands", "alerts stand") if open_now else "no alert stands",
        at=look["at"],
        models=models,
        holds=[HoldShape.model_validate(row._mapping) for row in held],
    )


@router.post("/monitor/baseline", dependencies=[roles("administrator")])
def freeze_baseline(node: Node, who: Who, given: Frozen) -> MonitorShape:
    """Have the newest cases of the version of a model that has answered last be its baseline."""
    baseline_cases = node.settings.monitor.baseline_cases
    with node.database.write() as connection:
        version = dict(versions(connection)).get(given.model)
        if version is None:
            raise WebError(404, "no such model has answered yet", given.model, "See /api/monitor")
        if not freeze(connection, given.model, version, baseline_cases, who):
            problem = f"{counted_cases(connection, version)} of {baseline_cases} cases were answered"
            raise WebError(409, problem, given.model, "Wait for more, or lower baseline_cases in [monitor]")
    return get_monitor(node)


@router.post("/monitor/holds/{n}/undo", dependencies=[roles(*PEOPLE)])
def undo_hold(node: Node, who: Who, n: N, reason: Reason) -> HoldShape:
    """Let a model go on as before an alert; a package that was rolled back stays so."""
    with node.database.write() as connection:
        is_undone = undone(connection, n, who, reason.reason)
        row = connection.execute(select(holds).where(holds.c.n == n)).first()
    if row is None:
        raise WebError(404, "there is no such hold", str(n), "See /api/monitor")
    if not is_undone:
        raise WebError(409, "it was undone before", str(n), "Leave it")
    return HoldShape.model_validate(row._mapping)


def _settled(node: WebNode, who: Actor, n: int, state: str, reason: str) -> AlertShape:
    with node.database.write() as connection:
        is_settled = settled(connection, n, state, reason, who)
        if is_settled:
            end_notices(connection, n)
        row = connection.execute(select(alerts).where(alerts.c.n == n)).first()
    if row is None:
        raise WebError(404, "there is no such alert", str(n), "See /api/alerts")
    if not is_settled:
        raise WebError(409, f"the alert is {row.state}", str(n), "Leave it")
    return AlertShape.model_validate(row._mapping)
