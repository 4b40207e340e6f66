"""Routes of what is to be read: the worklist, the most urgent study first, and blind reads."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, and_, case, func, select

from hilum.service import node_folder
from hilum.service.configuration import PRIORITIES
from hilum.service.model_facts import ROUTINE
from hilum.service.monitoring.outcomes import OutcomeQuestions
from hilum.service.reading import blind_reading
from hilum.service.reading.blind_reading import BLIND_EXPORT, BLIND_VIEW, EXPORT, VIEW, BlindRead
from hilum.service.records import job_queue
from hilum.service.records.actor import READERS, Actor
from hilum.service.records.job_queue import OPEN, SETTLED
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.tables import (
    BLIND_READS,
    CORRECTIONS,
    FEEDBACK,
    FINDING_ROWS,
    JOBS,
    SERIES_ROWS,
    STUDIES,
    RowValues,
)
from hilum.service.routing.routing_rules import NO_IMAGES
from hilum.service.web import access, response_shapes
from hilum.service.web.access import ROLES, Who
from hilum.service.web.response_shapes import Listing, Problem, Time, WorklistShape
from hilum.service.web.web_node import MOST_ROWS, JobName, Limit, Node, WebError, WebNode
from hilum.values import ANSWERED, grouping

TO_BE_READ = "to be read blind"
blind_router = APIRouter(prefix="/api/blind", tags=["reading"], dependencies=[access.require_roles(READERS)])
Number = Annotated[float, Field(allow_inf_nan=False)]


class BlindShape(BaseModel):
    """A study to be read blind, and what is asked.

    labels: each present (1) or absent (0); exclusive: one of them is present; numbers: each is a number
    """

    job: str
    study: str
    date: str
    description: str
    sampled_at: Time
    labels: list[str]
    exclusive: bool
    numbers: bool


class ReadShape(BaseModel):
    """A blind read that is kept."""

    job: str
    values: dict[str, float]


@blind_router.get("")
def list_blind(node: Node, who: Who) -> Listing[BlindShape]:
    """Studies that wait to be read blind by whoever asks."""
    return Listing[BlindShape](schema="hilum.blind", rows=blind_shapes(reads_for(node, who)))


@blind_router.post("/{job}", responses={409: {"model": Problem}})
def read_blind(node: Node, who: Who, job: JobName, values: dict[str, Number]) -> ReadShape:
    """Say what is true of a study, before its answer is shown: {label: 1 present, 0 absent, or a number}."""
    read = next((one for one in reads_for(node, who) if one.job == job), None)
    if read is None:
        problem = "the study does not wait to be read blind by you: it was read, or you have seen its answer"
        raise WebError(409, problem, job, "See /api/blind")
    _check(values, read.questions)
    with node.database.write() as connection:
        if not blind_reading.keep_read(connection, read, values, who):
            raise WebError(409, "somebody else has read the study blind", job, "See /api/blind")
    return ReadShape(job=job, values=values)


def reads_for(node: WebNode, who: Actor, study: str | None = None) -> list[BlindRead]:
    """The blind reads that wait for a person. study: key of the only one that is asked about"""
    waiting = (
        select(BLIND_READS.c.job).join(JOBS, JOBS.c.job == BLIND_READS.c.job).where(BLIND_READS.c.state == "waiting")
    )
    if study is not None:
        waiting = waiting.where(JOBS.c.study == study)
    with node.database.read() as connection:
        # Every slice of a study asks: where nothing waits, no file is read.
        if connection.execute(waiting.limit(1)).first() is None:
            return []
        return blind_reading.blind_reads(connection, node_folder.stored_models(node.folder), who, study)


def studies_with_hidden_answers(node: WebNode, who: Actor, study: str | None = None) -> set[str]:
    """Keys of the studies whose answers are hidden from a person. study: key of the only one that is asked about"""
    return {one.row.study for one in reads_for(node, who, study)}


def blind_shapes(reads: list[BlindRead]) -> list[BlindShape]:
    """Reads as the API states them."""
    return [
        BlindShape(
            job=one.job,
            study=one.row.uid,
            date=response_shapes.shown_date((one.row.attributes or {}).get("StudyDate")),
            description=response_shapes.attribute_text((one.row.attributes or {}).get("StudyDescription")),
            sampled_at=one.row.sampled_at,
            labels=list(one.questions.labels),
            exclusive=one.questions.is_exclusive,
            numbers=one.questions.are_numbers,
        )
        for one in reads
    ]


def record_export(node: WebNode, who: Actor, study: str, thing: str | None = None) -> None:
    """Note that a person gets objects of a study, and whether its answers are left out.

    study: its key; thing: key of what is got, where that is not the first of many requests about the study
    """
    action = BLIND_EXPORT if studies_with_hidden_answers(node, who, study) else EXPORT
    if thing is None:
        node.record_opening(action, study, who)
    else:
        node.record(action, thing, who, study=study)


def record_view(node: WebNode, who: Actor, study: str) -> list[BlindRead]:
    """Note that a person opens a study, and whether its answers are hidden from them: the reads that wait.

    study: its key
    """
    reads = reads_for(node, who, study)
    node.record_opening(BLIND_VIEW if reads else VIEW, study, who)
    return reads


def refuse_hidden(node: WebNode, who: Actor, study: str) -> None:
    """Raise WebError where the answers of a study are hidden from a person. study: its key"""
    if studies_with_hidden_answers(node, who, study):
        raise hidden_error(study)


def hidden_error(where: str) -> WebError:
    """Error for a person who asks for a hidden answer."""
    return WebError(409, "the answer is hidden until you have read the study blind", where, "Read it at /blind")


def _check(values: Mapping[str, float], asked: OutcomeQuestions) -> None:
    """Raise WebError for values that do not answer what is asked."""
    if set(values) != set(asked.labels):
        raise WebError(422, "the values do not answer each label", "values", f"Give {', '.join(asked.labels)}")
    if asked.are_numbers:
        return
    if not set(values.values()) <= {0.0, 1.0}:
        raise WebError(422, "a value is neither 0 nor 1", "values", "Give 1 for present, 0 for absent")
    if asked.is_exclusive and sum(values.values()) != 1:
        raise WebError(422, "the labels exclude each other", "values", "Give 1 for one of them, 0 for the others")


router = APIRouter(prefix="/api/worklist", tags=["worklist"])
Hours = Annotated[float, Query(gt=0, le=24 * 366)]
HOURS = 24.0
# Of a study that waits to be read blind; its place in the list and its priority are those of any other.
HIDDEN: Mapping[str, str | bool | None] = {
    "finding": "",
    "because": TO_BE_READ,
    "job": None,
    "verdict": None,
    "outcome": None,
    "reason": "",
    "is_corrected": False,
}
NO_FINDING, NOTHING_FOUND = (None, "", False), "nothing found"
EVENT_STREAM = "text/event-stream"
# Between two looks at the list, and for a stop of the node (s); after which a client hears something, and asks anew.
LOOK_S, STOP_S, COMMENT_S, LONGEST_S = 1.0, 0.25, 15.0, 600.0
UNANSWERED = frozenset(OPEN) - {"sending"}  # what is being sent is answered
COUNTED = and_(JOBS.c.study == STUDIES.c.study, JOBS.c.state.not_in(("superseded", "cancelled")))
# A job without an urgent finding is routine: a study is put back only where no model of it objects.
RANK = func.coalesce(func.min(func.coalesce(JOBS.c.urgency, ROUTINE)), ROUTINE)


@router.get("", dependencies=[access.require_roles(ROLES)])
def list_worklist(node: Node, who: Who, limit: Limit = 100, hours: Hours = HOURS) -> Listing[WorklistShape]:
    """Studies of the last hours by the priority that their findings give, then by age."""
    hidden = {one.row.study: one.row.uid for one in reads_for(node, who)}
    rows = worklist_rows(node, limit, hours, hidden)
    rows = [row.model_copy(update=HIDDEN) if row.study in hidden.values() else row for row in rows]
    return Listing[WorklistShape](schema="hilum.worklist", rows=rows)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENT_STREAM: {}}}},
    dependencies=[access.require_roles(ROLES)],
)
async def worklist_events(node: Node) -> StreamingResponse:
    """An event whenever the worklist has changed, as EventSource reads them."""
    return StreamingResponse(_events(node), media_type=EVENT_STREAM)


async def _events(node: WebNode) -> AsyncIterator[str]:
    """An event at once and at each change, a comment while nothing happens; after a while the client asks anew."""
    last_digest, last_at, until = "", time.monotonic(), time.monotonic() + LONGEST_S
    while not node.stopping.is_set() and time.monotonic() < until:
        digest = await run_in_threadpool(node.changes.digest, lambda: str(worklist_rows(node, MOST_ROWS, HOURS)))
        if digest != last_digest:
            last_digest, last_at = digest, time.monotonic()
            yield "event: worklist\ndata:\n\n"
        elif time.monotonic() - last_at > COMMENT_S:
            last_at = time.monotonic()
            yield ": nothing new\n\n"
        for _ in range(round(LOOK_S / STOP_S)):
            if not node.stopping.is_set():
                await asyncio.sleep(STOP_S)


def worklist_rows(node: WebNode, limit: int, hours: float, hidden: Collection[str] = ()) -> list[WorklistShape]:
    """The worklist. hidden: keys of studies whose findings give no priority"""
    place = case((STUDIES.c.study.in_(hidden), ROUTINE), else_=RANK)
    columns = (*(STUDIES.c[name] for name in ("study", "uid", "state", "received_at", "outcome", "reason")),)
    query = select(*columns, place.label("rank")).select_from(STUDIES.outerjoin(JOBS, COUNTED))
    recent = query.where(STUDIES.c.received_at > DatabaseClock() - 3600 * hours).group_by(*columns)
    with node.database.read() as connection:
        rows = connection.execute(recent.order_by(place, STUDIES.c.received_at, STUDIES.c.study).limit(limit)).all()
        keys = [row.study for row in rows]
        reasons = _reasons(connection, {row.study: row for row in rows})
        outcomes = _outcomes(connection, rows)
        attributes, modalities = _study_facts(connection, keys)
        found, verdicts = _leading_findings(connection, keys), _verdicts(connection, keys)
    return [
        WorklistShape(
            study=row.uid,
            priority=PRIORITIES[row.rank],
            because=reasons[row.study],
            received_at=row.received_at,
            state=row.state,
            patient=response_shapes.shown_name(attributes[row.study].get("PatientName")),
            modality=", ".join(modalities.get(row.study, [])),
            description=response_shapes.attribute_text(attributes[row.study].get("StudyDescription")),
            finding=found.get(row.study, NO_FINDING)[1],
            job=found.get(row.study, NO_FINDING)[0],
            verdict=verdicts.get(row.study),
            outcome=outcomes[row.study][0],
            reason=outcomes[row.study][1] or "",
            is_corrected=found.get(row.study, NO_FINDING)[2],
        )
        for row in rows
    ]


def _study_facts(
    connection: Connection, keys: Sequence[str]
) -> tuple[Mapping[str, RowValues], Mapping[str, Sequence[str]]]:
    """({study: attributes}, {study: modalities of its images})."""
    query = select(STUDIES.c.study, STUDIES.c.attributes).where(STUDIES.c.study.in_(keys))
    attributes = {row.study: row.attributes or {} for row in connection.execute(query)}
    modalities_query = select(SERIES_ROWS.c.study, SERIES_ROWS.c.modality).where(
        SERIES_ROWS.c.study.in_(keys), SERIES_ROWS.c.modality.is_not(None)
    )
    modalities_known = connection.execute(modalities_query.distinct().order_by(SERIES_ROWS.c.modality)).tuples()
    modalities = grouping.by_key((study, own) for study, own in modalities_known if own and own not in NO_IMAGES)
    return attributes, modalities


def _outcomes(
    connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]
) -> dict[str, tuple[str | None, str | None]]:
    """{study: (outcome, reason)} of its jobs as they stand, else that with which it was settled."""
    columns = (JOBS.c.study, JOBS.c.outcome, JOBS.c.is_empty, JOBS.c.reason)
    query = select(*columns).select_from(STUDIES.join(JOBS, COUNTED)).order_by(JOBS.c.created_at, JOBS.c.job)
    here = query.where(JOBS.c.study.in_([row.study for row in rows]))
    jobs_of = grouping.by_key((job.study, job) for job in connection.execute(here))
    settled = {row.study: job_queue.best_job(jobs_of[row.study]) or row for row in rows}
    return {study: (row.outcome, row.reason) for study, row in settled.items()}


def _leading_findings(connection: Connection, keys: Sequence[str]) -> dict[str, tuple[str | None, str, bool]]:
    """{study: (job, what it states first, whether that is corrected)} of each study's most urgent result, or oldest."""
    order = (func.coalesce(JOBS.c.urgency, ROUTINE), JOBS.c.created_at, JOBS.c.job, FINDING_ROWS.c.number)
    joined = STUDIES.join(JOBS, COUNTED).outerjoin(FINDING_ROWS, FINDING_ROWS.c.job == JOBS.c.job)
    query = select(JOBS.c.study, JOBS.c.job, JOBS.c.because, JOBS.c.is_empty, FINDING_ROWS.c.row).select_from(joined)
    answered = and_(JOBS.c.study.in_(keys), JOBS.c.outcome == ANSWERED)
    of_these = select(CORRECTIONS.c.judged, CORRECTIONS.c.findings).where(CORRECTIONS.c.study.in_(keys))
    corrected = {row.judged: row.findings for row in connection.execute(of_these.order_by(CORRECTIONS.c.revision))}
    found = dict[str, tuple[str | None, str, bool]]()
    for row in connection.execute(query.where(answered).order_by(*order)):
        job, words, _ = found.get(row.study, (row.job, "", False))
        if job == row.job and not words:
            stated = corrected.get(job, [] if row.row is None else [row.row])
            urgent, is_corrected = (row.because or "").partition(";")[0], job in corrected
            words = urgent or next(filter(None, map(response_shapes.shown_finding, stated)), "")
            is_nothing = not words and (row.is_empty or is_corrected)
            found[row.study] = (job, NOTHING_FOUND if is_nothing else words, is_corrected)
    return found


def _verdicts(connection: Connection, keys: Sequence[str]) -> dict[str, str]:
    """{study: the verdict that was given last in it}."""
    newest = select(func.max(FEEDBACK.c.feedback)).where(FEEDBACK.c.study.in_(keys)).group_by(FEEDBACK.c.study)
    query = select(FEEDBACK.c.study, FEEDBACK.c.verdict).where(FEEDBACK.c.feedback.in_(newest))
    return {row.study: row.verdict for row in connection.execute(query)}


def _reasons(connection: Connection, rows: Mapping[str, Row[*tuple[Any, ...]]]) -> dict[str, str]:
    """{study: why it has the rank of its row}."""
    columns = (JOBS.c.study, JOBS.c.state, JOBS.c.outcome, JOBS.c.urgency, JOBS.c.because)
    of_these = select(*columns).select_from(STUDIES.join(JOBS, COUNTED))
    ordered = of_these.where(JOBS.c.study.in_(rows)).order_by(JOBS.c.created_at, JOBS.c.job)
    reasons, jobs_of = dict[str, str](), defaultdict[str, list[Row[*tuple[Any, ...]]]](list)
    for row in connection.execute(ordered):
        jobs_of[row.study].append(row)
        if row.urgency == rows[row.study].rank:
            reasons.setdefault(row.study, row.because)
    return {key: reasons.get(key) or _no_priority_words(row.state, jobs_of[key]) for key, row in rows.items()}


def _no_priority_words(state: str, of_jobs: Sequence[Row[*tuple[Any, ...]]]) -> str:
    """Why no finding gives a study of this state its priority."""
    if not UNANSWERED.isdisjoint(one.state for one in of_jobs) or (not of_jobs and state not in SETTLED):
        return "no answer yet"
    if of_jobs and not any(one.outcome == ANSWERED for one in of_jobs):
        return "no model answers"
    return "no finding makes it urgent" if of_jobs else "no rule takes a series of it"
