"""Routes of incidents: what went wrong with results, and what became of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy import select

from isocenter.documents import KINDS
from isocenter.service.records.alerts import Incidents
from isocenter.service.records.tables import studies
from isocenter.service.web.access import KEEPING, ROLES, WORKING, Who, roles
from isocenter.service.web.shapes import IncidentShape, Listing
from isocenter.service.web.web_node import MOST_ROWS, UID, Limit, Node, WebError, WebNode, study_key

router = APIRouter(prefix="/api/incidents", tags=["incidents"])
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


@router.get("", dependencies=[roles(*ROLES)])
def list_incidents(node: Node, limit: Limit = 100) -> Listing[IncidentShape]:
    """Incidents, the newest first."""
    return Listing[IncidentShape](schema="isocenter.incidents", rows=_shapes(node, limit))


@router.post("", status_code=201, responses={201: {"description": "Created"}}, dependencies=[roles(*WORKING)])
def add_incident(node: Node, who: Who, new: NewIncident) -> IncidentShape:
    """State an incident."""
    stated = _stated(new)
    if new.study is not None:
        stated["study"] = study_key(new.study)
        with node.database.read() as connection:
            if connection.execute(select(studies).where(studies.c.study == stated["study"])).first() is None:
                raise WebError(404, "there is no such study", new.study, "See /api/studies, or leave it out")
    return _shown(node, Incidents(node.database).add(stated, who))


@router.put("/{n}", dependencies=[roles(*KEEPING)])
def change_incident(
    node: Node, who: Who, n: Annotated[int, Path(ge=1, lt=2**31)], change: IncidentChange
) -> IncidentShape:
    """State more of an incident, such as its cause, the action and its check."""
    if not Incidents(node.database).change(n, _stated(change), who):
        raise WebError(404, "there is no such incident", str(n), "See /api/incidents")
    return _shown(node, n)


def _stated(incident_change: IncidentChange) -> dict[str, str]:
    day = incident_change.known_on
    # Somewhere it may be tomorrow already.
    if day is not None and day > datetime.now(UTC).date() + timedelta(days=1):
        raise WebError(422, "the day lies in the future", day.isoformat(), "Give the day on which it became known")
    return {
        name: str(value) for name, value in incident_change.model_dump(exclude={"study"}).items() if value is not None
    }


def _shown(node: WebNode, number: int) -> IncidentShape:
    return next(row for row in _shapes(node, MOST_ROWS) if row.incident == number)


def _shapes(node: WebNode, most: int) -> list[IncidentShape]:
    return [IncidentShape.model_validate(row._mapping) for row in Incidents(node.database).rows(most)]
