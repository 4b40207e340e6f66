"""The route of the worklist: studies to be read, the most urgent first."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection, Row, and_, func, select

from isocenter.service.reading.worded import shown_finding, shown_name, words_of
from isocenter.service.records.database import Clock
from isocenter.service.records.jobs import NOTHING, OPEN, RESULT, SETTLED
from isocenter.service.records.tables import feedback, findings, jobs, series, studies
from isocenter.service.routing.rules import NO_IMAGES
from isocenter.service.routing.urgency import ROUTINE
from isocenter.service.settings import PRIORITIES
from isocenter.service.web.access import ROLES, Who, roles
from isocenter.service.web.blind import TO_BE_READ, reads_for
from isocenter.service.web.shapes import Listing, WorklistShape
from isocenter.service.web.web_node import MOST_ROWS, Limit, Node, WebNode

router = APIRouter(prefix="/api/worklist", tags=["worklist"])
Hours = Annotated[float, Query(gt=0, le=24 * 366)]
HOURS = 24.0
# Of a study that waits to be read blind; its priority stays, as nothing urgent may wait for that.
HIDDEN = {"finding": "", "because": TO_BE_READ, "job": None, "verdict": None}
EVENT_STREAM = "text/event-stream"
# Between two looks at the list, and for a stop of the node (s); after which a client hears something, and asks anew.
LOOK_S, STOP_S, COMMENT_S, LONGEST_S = 1.0, 0.25, 15.0, 600.0
UNANSWERED = frozenset(OPEN) - {"sending"}  # what is being sent is answered
COUNTED = and_(jobs.c.study == studies.c.study, jobs.c.state.not_in(("superseded", "cancelled")))
# A job without an urgent finding is routine: a study is put back only where no model of it objects.
RANK = func.coalesce(func.min(func.coalesce(jobs.c.urgency, ROUTINE)), ROUTINE)


@router.get("", dependencies=[roles(*ROLES)])
def list_worklist(node: Node, who: Who, limit: Limit = 100, hours: Hours = HOURS) -> Listing[WorklistShape]:
    """Studies of the last hours by the priority that their findings give, then by age."""
    hidden = {one.row.uid for one in reads_for(node, who)}
    rows = [row.model_copy(update=HIDDEN) if row.study in hidden else row for row in rows_of(node, limit, hours)]
    return Listing[WorklistShape](schema="isocenter.worklist", rows=rows)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENT_STREAM: {}}}},
    dependencies=[roles(*ROLES)],
)
async def worklist_events(node: Node) -> StreamingResponse:
    """An event whenever the worklist has changed, as EventSource reads them."""
    return StreamingResponse(_events(node), media_type=EVENT_STREAM)


async def _events(node: WebNode) -> AsyncIterator[str]:
    """An event at once and at each change, a comment while nothing happens; after a while the client asks anew."""
    last_digest, last_at, until = "", time.monotonic(), time.monotonic() + LONGEST_S
    while not node.stopping.is_set() and time.monotonic() < until:
        digest = await run_in_threadpool(node.changes.digest, lambda: str(rows_of(node, MOST_ROWS, HOURS)))
        if digest != last_digest:
            last_digest, last_at = digest, time.monotonic()
            yield "event: worklist\ndata:\n\n"
        elif time.monotonic() - last_at > COMMENT_S:
            last_at = time.monotonic()
            yield ": nothing new\n\n"
        for _ in range(round(LOOK_S / STOP_S)):
            if not node.stopping.is_set():
                await asyncio.sleep(STOP_S)


def rows_of(node: WebNode, limit: int, hours: float) -> list[WorklistShape]:
    """The worklist."""
    columns = (studies.c.study, studies.c.uid, studies.c.state, studies.c.received_at)
    query = select(*columns, RANK.label("rank")).select_from(studies.outerjoin(jobs, COUNTED))
    recent = query.where(studies.c.received_at > Clock() - 3600 * hours).group_by(*columns)
    with node.database.read() as connection:
        rows = connection.execute(recent.order_by(RANK, studies.c.received_at, studies.c.study).limit(limit)).all()
        keys = [row.study for row in rows]
        reasons = _reasons(connection, {row.study: row for row in rows})
        attributes, modalities = _stated(connection, keys)
        found, verdicts = _found(connection, keys), _verdicts(connection, keys)
    return [
        WorklistShape(
            study=row.uid,
            priority=PRIORITIES[row.rank],
            because=reasons[row.study],
            received_at=row.received_at,
            state=row.state,
            patient=shown_name(attributes[row.study].get("PatientName")),
            modality=", ".join(modalities.get(row.study, [])),
            description=words_of(attributes[row.study].get("StudyDescription")),
            finding=found.get(row.study, (None, ""))[1],
            job=found.get(row.study, (None, ""))[0],
            verdict=verdicts.get(row.study),
        )
        for row in rows
    ]


def _stated(
    connection: Connection, keys: Sequence[str]
) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Sequence[str]]]:
    """({study: attributes}, {study: modalities of its images})."""
    query = select(studies.c.study, studies.c.attributes).where(studies.c.study.in_(keys))
    attributes = {row.study: row.attributes or {} for row in connection.execute(query)}
    modalities_query = select(series.c.study, series.c.modality).where(
        series.c.study.in_(keys), series.c.modality.is_not(None)
    )
    modalities = defaultdict[str, list[str]](list)
    for row in connection.execute(modalities_query.distinct().order_by(series.c.modality)):
        if row.modality and row.modality not in NO_IMAGES:
            modalities[row.study].append(row.modality)
    return attributes, modalities


def _found(connection: Connection, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{study: (job, what it states first)} of the most urgent result of each study, else the oldest."""
    order = (func.coalesce(jobs.c.urgency, ROUTINE), jobs.c.created_at, jobs.c.job, findings.c.number)
    joined = studies.join(jobs, COUNTED).outerjoin(findings, findings.c.job == jobs.c.job)
    query = select(jobs.c.study, jobs.c.job, jobs.c.because, findings.c.row).select_from(joined)
    answered = (jobs.c.study.in_(keys), jobs.c.outcome.in_((RESULT, NOTHING)))
    found = dict[str, tuple[str, str]]()
    for row in connection.execute(query.where(*answered).order_by(*order)):
        job, words = found.get(row.study, (row.job, ""))
        if job == row.job and not words:
            urgent = (row.because or "").partition(";")[0]
            found[row.study] = (job, urgent or ("" if row.row is None else shown_finding(row.row)))
    return found


def _verdicts(connection: Connection, keys: Sequence[str]) -> dict[str, str]:
    """{study: the verdict that was given last in it}."""
    newest = select(func.max(feedback.c.feedback)).where(feedback.c.study.in_(keys)).group_by(feedback.c.study)
    query = select(feedback.c.study, feedback.c.verdict).where(feedback.c.feedback.in_(newest))
    return {row.study: row.verdict for row in connection.execute(query)}


def _reasons(connection: Connection, rows: Mapping[str, Row[*tuple[Any, ...]]]) -> dict[str, str]:
    """{study: why it has the rank of its row}."""
    of_these = select(jobs.c.study, jobs.c.state, jobs.c.urgency, jobs.c.because).select_from(
        studies.join(jobs, COUNTED)
    )
    ordered = of_these.where(jobs.c.study.in_(rows)).order_by(jobs.c.created_at, jobs.c.job)
    reasons, states = dict[str, str](), dict[str, list[str]]()
    for row in connection.execute(ordered):
        states.setdefault(row.study, []).append(row.state)
        if row.urgency == rows[row.study].rank:
            reasons.setdefault(row.study, row.because)
    return {key: reasons.get(key) or _unstated(row.state, states.get(key, [])) for key, row in rows.items()}


def _unstated(state: str, of_jobs: Sequence[str]) -> str:
    """Why no finding gives a study of this state its priority."""
    if not UNANSWERED.isdisjoint(of_jobs) or (not of_jobs and state not in SETTLED):
        return "no answer yet"
    return "no finding that a rule of [[urgent]] names" if of_jobs else "no rule takes a series of it"
