"""Routes of studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy import Connection, Row, select

from isocenter.service.records.tables import jobs, studies
from isocenter.service.routing.answers import study_answers
from isocenter.service.routing.facts import SeriesFacts
from isocenter.service.routing.rules import rules_of, study_routing
from isocenter.service.web.access import ROLES, WORKING, Who, roles
from isocenter.service.web.blind import TO_BE_READ, hidden_studies, refuse_hidden
from isocenter.service.web.jobs import job_shapes
from isocenter.service.web.shapes import JobShape, Listing, RoutedShape, StudyShape
from isocenter.service.web.web_node import Node, Page, StudyName, WebError, WebNode, page_of, study_key

router = APIRouter(prefix="/api/studies", tags=["studies"])


class StudyPage(Page):
    """A page of studies."""

    state: Literal["receiving", "complete", "done", "aside"] | None = None


@router.get("", dependencies=[roles(*ROLES)])
def list_studies(node: Node, who: Who, page: Annotated[StudyPage, Query()]) -> Listing[StudyShape]:
    """Studies, in the order in which their first objects came."""
    hidden = hidden_studies(node, who)
    with node.database.read() as connection:
        rows = page_of(connection, studies, (studies.c.received_at, studies.c.study), page)
        return Listing[StudyShape](schema="isocenter.studies", rows=_shapes(connection, rows, hidden))


@router.get("/{study}", dependencies=[roles(*ROLES)])
def get_study(node: Node, who: Who, study: StudyName) -> StudyShape:
    """One study, with its jobs and their answers."""
    hidden = hidden_studies(node, who, study_key(study))
    with node.database.read() as connection:
        return _shapes(connection, [_row(connection, study)], hidden)[0]


@router.get("/{study}/route", dependencies=[roles(*ROLES)])
def route_study(node: Node, who: Who, study: StudyName) -> Listing[RoutedShape]:
    """Every rule on every series of a complete study: whether it is taken, and why."""
    with node.database.read() as connection:
        row = _row(connection, study)
    if row.complete_at is None:
        raise WebError(
            409, "the study is not complete yet, and its series are not read", study, "Wait, or use complete"
        )
    refuse_hidden(node, who, row.study)  # what one rule asks of another one's answer tells that answer
    models = node.models_of(row)
    rules, found = rules_of(node.settings, models), node.index.series_of(row.study)
    contents = {one.series: one.inputs_hash for one in found}
    answers, _ = study_answers(node.database, row.study, rules, models, contents)
    routing = study_routing(rules, models, [SeriesFacts.of_row(one) for one in found], answers)
    rows = [RoutedShape.model_validate({**asdict(one), "series": one.uid}) for one in routing.rows]
    return Listing[RoutedShape](schema="isocenter.route", rows=rows)


@router.post("/{study}/complete", dependencies=[roles(*WORKING)])
def complete_study(node: Node, who: Who, study: StudyName) -> StudyShape:
    """Count a study as complete now, whatever time its last object came."""
    _ask(
        node, study, node.index.hurry(study_key(study), who=who), "is complete already", "To route it anew, use reroute"
    )
    return get_study(node, who, study)


@router.post("/{study}/reroute", dependencies=[roles(*WORKING)])
def reroute_study(node: Node, who: Who, study: StudyName) -> StudyShape:
    """Have the rules look at a complete study again."""
    _ask(node, study, node.index.reroute(study_key(study), who=who), "is not complete yet", "Wait, or use complete")
    return get_study(node, who, study)


def _ask(node: WebNode, study: str, done: bool, problem: str, remedy: str) -> None:
    """Refuse what was not done: because there is no such study, or because of its state."""
    with node.database.read() as connection:
        _row(connection, study)
    if not done:
        raise WebError(409, f"the study {problem}", study, remedy)


def _row(connection: Connection, study: str) -> Row[Any]:
    row = connection.execute(select(studies).where(studies.c.study == study_key(study))).first()
    if row is None:
        raise WebError(404, "there is no such study", study, "See /api/studies")
    return row


def _shapes(connection: Connection, rows: Sequence[Row[Any]], hidden: Collection[str]) -> list[StudyShape]:
    keys = [row.study for row in rows]
    of_these = select(jobs).where(jobs.c.study.in_(keys)).order_by(jobs.c.created_at, jobs.c.job)
    made = defaultdict[str, list[JobShape]](list)
    uids = {row.study: row.uid for row in rows}
    for shape in job_shapes(connection, connection.execute(of_these).all(), hidden):
        made[shape.study].append(shape)
    columns = StudyShape.model_fields.keys() - {"study", "jobs"}
    untold = {"outcome": None, "reason": TO_BE_READ}
    return [
        StudyShape(
            study=row.uid,
            jobs=made[uids[row.study]],
            **{**{name: row._mapping[name] for name in columns}, **(untold if row.study in hidden else {})},
        )
        for row in rows
    ]
