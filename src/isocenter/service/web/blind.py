"""Routes of blind reads, and what stays hidden until a study is read."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import select

from isocenter.service.monitoring.outcomes import Questions
from isocenter.service.reading.blind import BLIND_EXPORT, BLIND_VIEW, EXPORT, VIEW, BlindRead, blind_reads, keep_read
from isocenter.service.reading.worded import shown_date, words_of
from isocenter.service.records.actor import READERS, Actor
from isocenter.service.records.tables import blind, jobs
from isocenter.service.stored import stored_models
from isocenter.service.web.access import Who, roles
from isocenter.service.web.shapes import Listing, Problem, Time
from isocenter.service.web.web_node import JobName, Node, WebError, WebNode

TO_BE_READ = "to be read blind"
router = APIRouter(prefix="/api/blind", tags=["reading"], dependencies=[roles(*READERS)])
Number = Annotated[float, Field(allow_inf_nan=False)]


class BlindShape(BaseModel):
    """A study to be read blind, and what is asked.

    labels: each present (1) or absent (0); exclusive: one of them is present; numbers: each is a number
    """

    job: str
    study: str
    date: str
    description: str
    drawn_at: Time
    labels: list[str]
    exclusive: bool
    numbers: bool


class ReadShape(BaseModel):
    """A blind read that is kept."""

    job: str
    values: dict[str, float]


@router.get("")
def list_blind(node: Node, who: Who) -> Listing[BlindShape]:
    """Studies that wait to be read blind by whoever asks."""
    return Listing[BlindShape](schema="isocenter.blind", rows=blind_shapes(reads_for(node, who)))


@router.post("/{job}", responses={409: {"model": Problem}})
def read_blind(node: Node, who: Who, job: JobName, values: dict[str, Number]) -> ReadShape:
    """Say what is true of a study, before its answer is shown: {label: 1 present, 0 absent, or a number}."""
    read = next((one for one in reads_for(node, who) if one.job == job), None)
    if read is None:
        problem = "the study does not wait to be read blind by you: it was read, or you have seen its answer"
        raise WebError(409, problem, job, "See /api/blind")
    _check(values, read.questions)
    with node.database.write() as connection:
        if not keep_read(connection, read, values, who):
            raise WebError(409, "somebody else has read the study blind", job, "See /api/blind")
    return ReadShape(job=job, values=values)


def reads_for(node: WebNode, who: Actor, study: str | None = None) -> list[BlindRead]:
    """The blind reads that wait for a person. study: key of the only one that is asked about"""
    waiting = select(blind.c.job).join(jobs, jobs.c.job == blind.c.job).where(blind.c.state == "waiting")
    if study is not None:
        waiting = waiting.where(jobs.c.study == study)
    with node.database.read() as connection:
        # Every slice of a study asks: where nothing waits, no file is read.
        if connection.execute(waiting.limit(1)).first() is None:
            return []
        return blind_reads(connection, stored_models(node.folder), who, study)


def hidden_studies(node: WebNode, who: Actor, study: str | None = None) -> set[str]:
    """Keys of the studies whose answers are hidden from a person. study: key of the only one that is asked about"""
    return {one.row.study for one in reads_for(node, who, study)}


def blind_shapes(reads: list[BlindRead]) -> list[BlindShape]:
    """Reads as the API states them."""
    return [
        BlindShape(
            job=one.job,
            study=one.row.uid,
            date=shown_date((one.row.attributes or {}).get("StudyDate")),
            description=words_of((one.row.attributes or {}).get("StudyDescription")),
            drawn_at=one.row.drawn_at,
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
    action = BLIND_EXPORT if hidden_studies(node, who, study) else EXPORT
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
    if hidden_studies(node, who, study):
        raise hidden_error(study)


def hidden_error(where: str) -> WebError:
    """Error for a person who asks for a hidden answer."""
    return WebError(409, "the answer is hidden until you have read the study blind", where, "Read it at /blind")


def _check(values: dict[str, Any], asked: Questions) -> None:
    """Raise WebError for values that do not answer what is asked."""
    if set(values) != set(asked.labels):
        raise WebError(422, "the values do not answer each label", "values", f"Give {', '.join(asked.labels)}")
    if asked.are_numbers:
        return
    if not set(values.values()) <= {0.0, 1.0}:
        raise WebError(422, "a value is neither 0 nor 1", "values", "Give 1 for present, 0 for absent")
    if asked.is_exclusive and sum(values.values()) != 1:
        raise WebError(422, "the labels exclude each other", "values", "Give 1 for one of them, 0 for the others")
