"""Routes of jobs, their answers, and what a person may do with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, Response
from sqlalchemy import Connection, Row, func, select

from isocenter.errors import FormatError
from isocenter.service.exchange.fhir import Version, bundle, checked
from isocenter.service.exchange.fhir_server import JSON
from isocenter.service.exchange.report import report_of
from isocenter.service.records.tables import answers, corrections, deliveries, jobs, series, studies
from isocenter.service.web.access import ROLES, WORKING, Who, roles
from isocenter.service.web.blind import TO_BE_READ, hidden_studies, refuse_hidden
from isocenter.service.web.shapes import AnswerShape, DeliveryShape, JobShape, Listing
from isocenter.service.web.web_node import JobName, Node, Page, WebError, WebNode, page_of

router = APIRouter(prefix="/api/jobs", tags=["jobs"])
AnswerName = Annotated[str, Path(pattern=r"^[^/\x00]{1,128}$")]  # no text of PostgreSQL holds a zero
TYPES = {
    ".dcm": "application/dicom",
    ".json": "application/json",
    ".csv": "text/csv",
    ".png": "image/png",
    ".gz": "application/gzip",
}
# Of a job whose study waits to be read blind by whoever asks.
HIDDEN: dict[str, Any] = {"outcome": None, "reason": TO_BE_READ, "answers": []}


class JobPage(Page):
    """A page of jobs."""

    state: Literal["waiting", "running", "sending", "done", "aside", "cancelled", "superseded"] | None = None


@router.get("", dependencies=[roles(*ROLES)])
def list_jobs(node: Node, who: Who, page: Annotated[JobPage, Query()]) -> Listing[JobShape]:
    """Jobs, oldest first."""
    hidden = hidden_studies(node, who)
    with node.database.read() as connection:
        rows = page_of(connection, jobs, (jobs.c.created_at, jobs.c.job), page)
        return Listing[JobShape](schema="isocenter.jobs", rows=job_shapes(connection, rows, hidden))


@router.get("/{job}", dependencies=[roles(*ROLES)])
def get_job(node: Node, who: Who, job: JobName) -> JobShape:
    """One job."""
    hidden = hidden_studies(node, who)
    with node.database.read() as connection:
        rows = connection.execute(select(jobs).where(jobs.c.job == job)).all()
        if not rows:
            raise _unknown(job)
        return job_shapes(connection, rows, hidden)[0]


@router.get(
    "/{job}/answers/{name}", response_class=FileResponse, responses={206: {}, 416: {}}, dependencies=[roles(*ROLES)]
)
def get_answer(node: Node, who: Who, job: JobName, name: AnswerName) -> FileResponse:
    """A file of a result, or of a correction by its key."""
    with node.database.read() as connection:
        owned = answers.outerjoin(jobs, jobs.c.job == answers.c.job)
        owned = owned.outerjoin(corrections, corrections.c.correction == answers.c.job)
        study = func.coalesce(jobs.c.study, corrections.c.study).label("study")
        wanted = select(answers, study).select_from(owned)
        row = connection.execute(wanted.where(answers.c.job == job, answers.c.name == name)).first()
    # Both parts of the path come from the records: a name that no job has written finds nothing.
    path = None if row is None else node.folder / "results" / row.job / row.name
    if row is None or path is None or not path.is_file():
        raise WebError(404, "the job has no such answer", name, "See the job's answers")
    refuse_hidden(node, who, row.study)
    node.record("export", f"{row.job}/{row.name}", who, study=row.study)
    return FileResponse(path, media_type=TYPES.get(path.suffix, "application/octet-stream"), filename=path.name)


@router.get(
    "/{job}/fhir", response_class=Response, responses={200: {"content": {JSON: {}}}}, dependencies=[roles(*ROLES)]
)
def get_fhir(node: Node, who: Who, job: JobName, version: Version = "R5") -> Response:
    """The findings of a job as a FHIR Bundle."""
    with node.database.read() as connection:
        study = connection.execute(select(jobs.c.study).where(jobs.c.job == job)).scalar()
    if study is not None:
        refuse_hidden(node, who, study)
    try:
        made = checked(bundle(report_of(node.settings, node.database, job), version), version)
    except FormatError as error:
        raise WebError(404, error.problem, job, error.remedy) from error
    node.record("export", f"{job}/fhir", who, study=study)
    return Response(made, media_type=JSON)


@router.post("/{job}/retry", dependencies=[roles(*WORKING)])
def retry_job(node: Node, who: Who, job: JobName) -> JobShape:
    """Have a job that has ended, or was set aside, done again."""
    if not node.jobs.retry(job, who=who):
        raise _refused(node, job, "is not at its end, or newer images have replaced it")
    return get_job(node, who, job)


@router.post("/{job}/cancel", dependencies=[roles(*WORKING)])
def cancel_job(node: Node, who: Who, job: JobName) -> JobShape:
    """End a job; nothing of it is sent any more."""
    if not node.jobs.cancel(job, who=who):
        raise _refused(node, job, "has ended")
    return get_job(node, who, job)


def job_shapes(connection: Connection, rows: Sequence[Row[Any]], hidden: Collection[str]) -> list[JobShape]:
    """Jobs with their answers, deliveries and UIDs. hidden: keys of studies of which nothing is told"""
    keys = [row.job for row in rows]
    sent = defaultdict[tuple[str, str], list[DeliveryShape]](list)
    for row in connection.execute(select(deliveries).where(deliveries.c.job.in_(keys)).order_by(deliveries.c.peer)):
        sent[row.job, row.name].append(DeliveryShape.model_validate(row._mapping))
    files = defaultdict[str, list[AnswerShape]](list)
    for row in connection.execute(select(answers).where(answers.c.job.in_(keys)).order_by(answers.c.name)):
        answer = AnswerShape(**_named(row, AnswerShape), deliveries=sent[row.job, row.name])
        files[row.job].append(answer)
    mine = {row.study for row in rows}
    of_studies = select(studies.c.study, studies.c.uid).where(studies.c.study.in_(mine))
    uids = {row.study: row.uid for row in connection.execute(of_studies)}
    of_series = select(series.c.study, series.c.series, series.c.uid).where(series.c.study.in_(mine))
    known = {(row.study, row.series): row.uid for row in connection.execute(of_series)}
    return [
        JobShape(
            **{
                **_named(row, JobShape),
                "study": uids[row.study],
                "answers": files[row.job],
                **(HIDDEN if row.study in hidden else {}),
            },
            series=[known.get((row.study, key), key) for _, key in sorted(row.inputs["series"].items())],
        )
        for row in rows
    ]


def _named(row: Row[Any], shape: type[AnswerShape] | type[JobShape]) -> dict[str, Any]:
    """The columns that a shape has."""
    return {name: value for name, value in row._mapping.items() if name in shape.model_fields}


def _unknown(job: str) -> WebError:
    return WebError(404, "there is no such job", job, "See /api/jobs")


def _refused(node: WebNode, job: str, problem: str) -> WebError:
    with node.database.read() as connection:
        row = connection.execute(select(jobs.c.state).where(jobs.c.job == job)).first()
    return _unknown(job) if row is None else WebError(409, f"the job is {row.state}: it {problem}", job, "Leave it")
