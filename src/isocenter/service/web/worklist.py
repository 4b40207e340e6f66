"""The route of the worklist: studies to be read, the most urgent first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection, Row, and_, func, select

from isocenter.service.records.database import Clock
from isocenter.service.records.jobs import OPEN, SETTLED
from isocenter.service.records.tables import jobs, studies
from isocenter.service.routing.urgency import ROUTINE
from isocenter.service.settings import PRIORITIES
from isocenter.service.web.access import ROLES, roles
from isocenter.service.web.shapes import Listing, WorklistShape
from isocenter.service.web.web_node import Limit, Node

router = APIRouter(prefix="/api/worklist", tags=["worklist"])
UNANSWERED = frozenset(OPEN) - {"sending"}  # what is being sent is answered
COUNTED = and_(jobs.c.study == studies.c.study, jobs.c.state.not_in(("superseded", "cancelled")))
# A job without an urgent finding is routine: a study is put back only where no model of it objects.
RANK = func.coalesce(func.min(func.coalesce(jobs.c.urgency, ROUTINE)), ROUTINE)


@router.get("", dependencies=[roles(*ROLES)])
def list_worklist(
    node: Node, limit: Limit = 100, hours: Annotated[float, Query(gt=0, le=24 * 366)] = 24
) -> Listing[WorklistShape]:
    """Studies of the last hours by the priority that their findings give, then by age."""
    columns = (studies.c.study, studies.c.uid, studies.c.state, studies.c.received_at)
    wanted = select(*columns, RANK.label("rank")).select_from(studies.outerjoin(jobs, COUNTED))
    recent = wanted.where(studies.c.received_at > Clock() - 3600 * hours).group_by(*columns)
    with node.database.read() as connection:
        rows = connection.execute(recent.order_by(RANK, studies.c.received_at, studies.c.study).limit(limit)).all()
        reasons = _reasons(connection, {row.study: row for row in rows})
    shapes = [
        WorklistShape(
            study=row.uid,
            priority=PRIORITIES[row.rank],
            because=reasons[row.study],
            received_at=row.received_at,
            state=row.state,
        )
        for row in rows
    ]
    return Listing[WorklistShape](schema="isocenter.worklist", rows=shapes)


def _reasons(connection: Connection, rows: Mapping[str, Row[*tuple[Any, ...]]]) -> dict[str, str]:
    """{study: why it has the rank of its row}."""
    of_these = select(jobs.c.study, jobs.c.state, jobs.c.urgency, jobs.c.because).select_from(
        studies.join(jobs, COUNTED)
    )
    ordered = of_these.where(jobs.c.study.in_(rows)).order_by(jobs.c.created_at, jobs.c.job)
    stated, states = dict[str, str](), dict[str, list[str]]()
    for row in connection.execute(ordered):
        states.setdefault(row.study, []).append(row.state)
        if row.urgency == rows[row.study].rank:
            stated.setdefault(row.study, row.because)
    return {key: stated.get(key) or _unstated(row.state, states.get(key, [])) for key, row in rows.items()}


def _unstated(state: str, of_jobs: Sequence[str]) -> str:
    """Why no finding gives a study of this state its priority."""
    if not UNANSWERED.isdisjoint(of_jobs) or (not of_jobs and state not in SETTLED):
        return "no answer yet"
    return "no finding that a rule of [[urgent]] names" if of_jobs else "no rule takes a series of it"
