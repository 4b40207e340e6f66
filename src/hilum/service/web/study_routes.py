"""Routes of studies, of the jobs on them, and of objects that were set aside because another came first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, Response
from sqlalchemy import Connection, Row, func, select

from hilum.errors import FormatError
from hilum.files.dicom import object_identity
from hilum.files.storage import hashing
from hilum.service.exchange import fhir_reports, findings_report
from hilum.service.exchange.fhir_reports import Version
from hilum.service.exchange.fhir_server import JSON
from hilum.service.objects import object_store
from hilum.service.objects.object_store import AsideObject
from hilum.service.records.job_queue import GONE
from hilum.service.records.tables import (
    ANSWERS,
    CORRECTIONS,
    DELIVERIES,
    INSTANCES,
    JOBS,
    SERIES_ROWS,
    STUDIES,
    RowValues,
)
from hilum.service.routing import routing_rules
from hilum.service.routing.routing_facts import SeriesFacts
from hilum.service.web import access, web_node, worklist_routes
from hilum.service.web.access import KEEPING, ROLES, WORKING, Who
from hilum.service.web.response_shapes import (
    AnswerShape,
    AsideShape,
    DeliveryShape,
    JobShape,
    Listing,
    RoutedShape,
    StudyShape,
)
from hilum.service.web.web_node import JobName, Limit, Node, PageRequest, StudyName, WebError, WebNode
from hilum.service.web.worklist_routes import TO_BE_READ

router = APIRouter(prefix="/api/studies", tags=["studies"])


class StudyPage(PageRequest):
    """A page of studies."""

    state: Literal["receiving", "complete", "done", "aside", "going", "gone"] | None = None


@router.get("", dependencies=[access.require_roles(ROLES)])
def list_studies(node: Node, who: Who, page: Annotated[StudyPage, Query()]) -> Listing[StudyShape]:
    """Studies, in the order in which their first objects came."""
    hidden = worklist_routes.studies_with_hidden_answers(node, who)
    with node.database.read() as connection:
        rows = web_node.page_rows(connection, STUDIES, (STUDIES.c.received_at, STUDIES.c.study), page)
        return Listing[StudyShape](schema="hilum.studies", rows=_shapes(connection, rows, hidden))


@router.get("/{study}", dependencies=[access.require_roles(ROLES)])
def get_study(node: Node, who: Who, study: StudyName) -> StudyShape:
    """One study, with its jobs and their answers."""
    hidden = worklist_routes.studies_with_hidden_answers(node, who, web_node.study_key(study))
    with node.database.read() as connection:
        return _shapes(connection, [_row(connection, study)], hidden)[0]


@router.get("/{study}/route", dependencies=[access.require_roles(ROLES)])
def route_study(node: Node, who: Who, study: StudyName) -> Listing[RoutedShape]:
    """Every rule on every series of a complete study: whether it is taken, and why."""
    with node.database.read() as connection:
        row = _row(connection, study)
    if row.complete_at is None:
        raise WebError(
            409, "the study is not complete yet, and its series are not read", study, "Wait, or use complete"
        )
    worklist_routes.refuse_hidden(node, who, row.study)  # what one rule asks of another one's answer tells that answer
    models = node.models_of(row)
    rules, found = routing_rules.rules_of(node.settings, models), node.index.series_of(row.study)
    contents = {one.series: one.inputs_hash for one in found}
    answers, _ = routing_rules.study_answers(node.database, row.study, rules, models, contents)
    routing = routing_rules.study_routing(rules, models, [SeriesFacts.of_row(one) for one in found], answers)
    rows = [RoutedShape.model_validate({**asdict(one), "series": one.uid}) for one in routing.rows]
    return Listing[RoutedShape](schema="hilum.route", rows=rows)


@router.post("/{study}/complete", dependencies=[access.require_roles(WORKING)])
def complete_study(node: Node, who: Who, study: StudyName) -> StudyShape:
    """Count a study as complete now, whatever time its last object came."""
    done = node.index.hurry(web_node.study_key(study), who=who)
    _ask(node, study, done, "is complete already", "To route it anew, use reroute")
    return get_study(node, who, study)


@router.post("/{study}/reroute", dependencies=[access.require_roles(WORKING)])
def reroute_study(node: Node, who: Who, study: StudyName) -> StudyShape:
    """Have the rules look at a complete study again."""
    done = node.index.reroute(web_node.study_key(study), who=who)
    _ask(node, study, done, "is not complete yet", "Wait, or use complete")
    return get_study(node, who, study)


@router.post("/{study}/lift", dependencies=[access.require_roles(KEEPING)])
def lift_rejection(node: Node, who: Who, study: StudyName) -> StudyShape:
    """Take images for good again that a note rejects and that came again; the study is done anew with them."""
    problem, remedy = "holds no rejected images that came again", "Have them sent again"
    _ask(node, study, node.index.lift(web_node.study_key(study), who=who), problem, remedy)
    return get_study(node, who, study)


def _ask(node: WebNode, study: str, done: bool, problem: str, remedy: str) -> None:
    """Refuse what was not done: because there is no such study, or because of its state."""
    with node.database.read() as connection:
        row = _row(connection, study)
    if not done:
        if row.state in GONE:
            raise WebError(409, "the images of the study were deleted by retention", study, "Have them sent again")
        raise WebError(409, f"the study {problem}", study, remedy)


def _row(connection: Connection, study: str) -> Row[Any]:
    row = connection.execute(select(STUDIES).where(STUDIES.c.study == web_node.study_key(study))).first()
    if row is None:
        raise WebError(404, "there is no such study", study, "See /api/studies")
    return row


def _shapes(connection: Connection, rows: Sequence[Row[Any]], hidden: Collection[str]) -> list[StudyShape]:
    keys = [row.study for row in rows]
    of_these = select(JOBS).where(JOBS.c.study.in_(keys)).order_by(JOBS.c.created_at, JOBS.c.job)
    jobs_of = defaultdict[str, list[JobShape]](list)
    uids = {row.study: row.uid for row in rows}
    for shape in job_shapes(connection, connection.execute(of_these).all(), hidden):
        jobs_of[shape.study].append(shape)
    columns = StudyShape.model_fields.keys() - {"study", "jobs"}
    untold = {"outcome": None, "reason": TO_BE_READ}
    return [
        StudyShape(
            study=row.uid,
            jobs=jobs_of[uids[row.study]],
            **{**{name: row._mapping[name] for name in columns}, **(untold if row.study in hidden else {})},
        )
        for row in rows
    ]


jobs_router = APIRouter(prefix="/api/jobs", tags=["jobs"])
AnswerName = Annotated[str, Path(pattern=r"^[^/\x00]{1,128}$")]  # no text of PostgreSQL holds a zero
TYPES = {
    ".dcm": "application/dicom",
    ".json": "application/json",
    ".csv": "text/csv",
    ".png": "image/png",
    ".gz": "application/gzip",
}
# Of a job whose study waits to be read blind by whoever asks.
HIDDEN: RowValues = {"outcome": None, "reason": TO_BE_READ, "answers": []}


class JobPage(PageRequest):
    """A page of jobs."""

    state: Literal["waiting", "running", "sending", "done", "aside", "cancelled", "superseded"] | None = None


@jobs_router.get("", dependencies=[access.require_roles(ROLES)])
def list_jobs(node: Node, who: Who, page: Annotated[JobPage, Query()]) -> Listing[JobShape]:
    """Jobs, oldest first."""
    hidden = worklist_routes.studies_with_hidden_answers(node, who)
    with node.database.read() as connection:
        rows = web_node.page_rows(connection, JOBS, (JOBS.c.created_at, JOBS.c.job), page)
        return Listing[JobShape](schema="hilum.jobs", rows=job_shapes(connection, rows, hidden))


@jobs_router.get("/{job}", dependencies=[access.require_roles(ROLES)])
def get_job(node: Node, who: Who, job: JobName) -> JobShape:
    """One job."""
    hidden = worklist_routes.studies_with_hidden_answers(node, who)
    with node.database.read() as connection:
        rows = connection.execute(select(JOBS).where(JOBS.c.job == job)).all()
        if not rows:
            raise _unknown(job)
        return job_shapes(connection, rows, hidden)[0]


@jobs_router.get(
    "/{job}/answers/{name}",
    response_class=FileResponse,
    responses={206: {}, 416: {}},
    dependencies=[access.require_roles(ROLES)],
)
def get_answer(node: Node, who: Who, job: JobName, name: AnswerName) -> FileResponse:
    """A file of a result, or of a correction by its key."""
    with node.database.read() as connection:
        owned = ANSWERS.outerjoin(JOBS, JOBS.c.job == ANSWERS.c.job)
        owned = owned.outerjoin(CORRECTIONS, CORRECTIONS.c.correction == ANSWERS.c.job)
        study = func.coalesce(JOBS.c.study, CORRECTIONS.c.study).label("study")
        query = select(ANSWERS, study).select_from(owned)
        row = connection.execute(query.where(ANSWERS.c.job == job, ANSWERS.c.name == name)).first()
    # Both parts of the path come from the records: a name that no job has written finds nothing.
    path = None if row is None else node.folder / "results" / row.job / row.name
    if row is not None:
        web_node.refuse_gone(node, row.study, name, results=True)
    if row is None or path is None or not path.is_file():
        raise WebError(404, "the job has no such answer", name, "See the job's answers")
    worklist_routes.refuse_hidden(node, who, row.study)
    node.record("export", f"{row.job}/{row.name}", who, study=row.study)
    return FileResponse(path, media_type=TYPES.get(path.suffix, "application/octet-stream"), filename=path.name)


@jobs_router.get(
    "/{job}/fhir",
    response_class=Response,
    responses={200: {"content": {JSON: {}}}},
    dependencies=[access.require_roles(ROLES)],
)
def get_fhir(node: Node, who: Who, job: JobName, version: Version = "R5") -> Response:
    """The findings of a job as a FHIR Bundle."""
    with node.database.read() as connection:
        study = connection.execute(select(JOBS.c.study).where(JOBS.c.job == job)).scalar()
    if study is not None:
        web_node.refuse_gone(node, study, job, results=True)
        worklist_routes.refuse_hidden(node, who, study)
    try:
        content = fhir_reports.encode_bundle(
            fhir_reports.report_bundle(findings_report.report_of_job(node.settings, node.database, job), version),
            version,
        )
    except FormatError as error:
        raise WebError(404, error.problem, job, error.remedy) from error
    node.record("export", f"{job}/fhir", who, study=study)
    return Response(content, media_type=JSON)


@jobs_router.post("/{job}/retry", dependencies=[access.require_roles(WORKING)])
def retry_job(node: Node, who: Who, job: JobName) -> JobShape:
    """Have a job that has ended, or was set aside, done again."""
    if not node.jobs.retry(job, who=who):
        raise _refusal(node, job, "is not at its end, or newer images have replaced it")
    return get_job(node, who, job)


@jobs_router.post("/{job}/cancel", dependencies=[access.require_roles(WORKING)])
def cancel_job(node: Node, who: Who, job: JobName) -> JobShape:
    """End a job; nothing of it is sent any more."""
    if not node.jobs.cancel(job, who=who):
        raise _refusal(node, job, "has ended")
    return get_job(node, who, job)


def job_shapes(connection: Connection, rows: Sequence[Row[Any]], hidden: Collection[str]) -> list[JobShape]:
    """Jobs with their answers, deliveries and UIDs. hidden: keys of studies of which nothing is told"""
    keys = [row.job for row in rows]
    sent = defaultdict[tuple[str, str], list[DeliveryShape]](list)
    for row in connection.execute(select(DELIVERIES).where(DELIVERIES.c.job.in_(keys)).order_by(DELIVERIES.c.peer)):
        sent[row.job, row.name].append(DeliveryShape.model_validate(row._mapping))
    files = defaultdict[str, list[AnswerShape]](list)
    for row in connection.execute(select(ANSWERS).where(ANSWERS.c.job.in_(keys)).order_by(ANSWERS.c.name)):
        answer = AnswerShape(**_shape_columns(row, AnswerShape), deliveries=sent[row.job, row.name])
        files[row.job].append(answer)
    mine = {row.study for row in rows}
    of_studies = select(STUDIES.c.study, STUDIES.c.uid).where(STUDIES.c.study.in_(mine))
    uids = {row.study: row.uid for row in connection.execute(of_studies)}
    of_series = select(SERIES_ROWS.c.study, SERIES_ROWS.c.series, SERIES_ROWS.c.uid).where(
        SERIES_ROWS.c.study.in_(mine)
    )
    series_uids = {(row.study, row.series): row.uid for row in connection.execute(of_series)}
    return [
        JobShape(
            **{
                **_shape_columns(row, JobShape),
                "study": uids[row.study],
                "answers": files[row.job],
                **(HIDDEN if row.study in hidden else {}),
            },
            series=[series_uids.get((row.study, key), key) for _, key in sorted(row.inputs["series"].items())],
        )
        for row in rows
    ]


def _shape_columns(row: Row[Any], shape: type[AnswerShape] | type[JobShape]) -> RowValues:
    """The columns that a shape has."""
    return {name: value for name, value in row._mapping.items() if name in shape.model_fields}


def _unknown(job: str) -> WebError:
    return WebError(404, "there is no such job", job, "See /api/jobs")


def _refusal(node: WebNode, job: str, problem: str) -> WebError:
    with node.database.read() as connection:
        both = JOBS.join(STUDIES, JOBS.c.study == STUDIES.c.study)
        asked = select(JOBS.c.state, STUDIES.c.state.label("study_state")).select_from(both)
        row = connection.execute(asked.where(JOBS.c.job == job)).first()
    if row is not None and row.study_state in GONE:
        return WebError(409, "the images of its study were deleted by retention", job, "Have them sent again")
    return _unknown(job) if row is None else WebError(409, f"the job is {row.state}: it {problem}", job, "Leave it")


aside_router = APIRouter(prefix="/api/aside", tags=["aside"])


@aside_router.get("", dependencies=[access.require_roles(ROLES)])
def list_aside(node: Node, limit: Limit = 100, after: Annotated[int, Query(ge=0)] = 0) -> Listing[AsideShape]:
    """List what was set aside, and why, oldest first."""
    asides = [one for one in object_store.read_asides(node.folder) if one.number > after]
    return Listing[AsideShape](schema="hilum.aside", rows=_aside_shapes(node, asides[:limit]))


@aside_router.post("/{n}/release", dependencies=[access.require_roles(KEEPING)])
def release_aside(node: Node, who: Who, n: Annotated[int, Path(ge=1, le=2**31)]) -> AsideShape:
    """Let an object take the place of the one that came first, which lies aside instead; its study is done anew."""
    aside = next((one for one in object_store.read_asides(node.folder) if one.number == n), None)
    if aside is None:
        raise WebError(404, "there is no such object set aside", str(n), "See /api/aside")
    try:
        identity = object_identity.read_identity(aside.path)
    except FormatError as error:
        raise WebError(409, f"the object {error.problem}", str(n), "Have it sent again") from error
    is_exchanged = aside.first is not None and node.index.replace(
        aside.first,
        syntax=identity.syntax,
        bytes=aside.path.stat().st_size,
        sha256=hashing.file_hash(aside.path),
        exchange=lambda: object_store.exchange_aside(node.folder, aside),
        who=who,
    )
    if not is_exchanged:
        raise WebError(409, "the records have no object that it could replace", str(n), "Have it sent again")
    return _aside_shapes(node, [aside])[0]


def _aside_shapes(node: WebNode, asides: Sequence[AsideObject]) -> list[AsideShape]:
    joined = INSTANCES.join(STUDIES, INSTANCES.c.study == STUDIES.c.study)
    of_these = INSTANCES.c.path.in_([one.first for one in asides if one.first is not None])
    query = select(INSTANCES.c.path, INSTANCES.c.uid, STUDIES.c.uid.label("study_uid")).select_from(joined)
    with node.database.read() as connection:
        firsts = {row.path: (row.study_uid, row.uid) for row in connection.execute(query.where(of_these))}
    shapes = []
    for aside in asides:
        study, instance = firsts.get(aside.first or "", (None, None))
        shapes.append(
            AsideShape.model_validate({**vars(aside), "n": aside.number, "study": study, "sop_instance_uid": instance})
        )
    return shapes
