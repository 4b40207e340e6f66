"""Routes of changes: which packages answer or are to, who approved them, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Connection

from isocenter.errors import IntegrityError
from isocenter.service.monitoring.changes import change_rows
from isocenter.service.records.deployments import ChangeError, UnknownChangeError, approve, end_change
from isocenter.service.records.tables import deployments
from isocenter.service.web.access import ROLES, Who, roles
from isocenter.service.web.shapes import ChangeShape, Listing
from isocenter.service.web.web_node import Node, WebError

router = APIRouter(prefix="/api/changes", tags=["changes"])
CHANGING = ("radiologist", "administrator")
Number = Annotated[int, Path(ge=0, le=2**31)]


class Ending(BaseModel):
    """Why a change is ended."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


@router.get("", dependencies=[roles(*ROLES)])
def list_changes(node: Node) -> Listing[ChangeShape]:
    """Every package that answered, is to, or answers in shadow, oldest first."""
    with node.database.read() as connection:
        return Listing[ChangeShape](schema="isocenter.changes", rows=_shapes(connection))


@router.post("/{n}/approve", dependencies=[roles(*CHANGING)])
def post_approval(node: Node, who: Who, n: Number) -> ChangeShape:
    """Approve a change that waits: with two persons, one of them a radiologist, it begins."""
    with _refusals(), node.database.write() as connection:
        approve(connection, n, who)
        return _shapes(connection, deployments.c.n == n)[0]


@router.post("/{n}/end", dependencies=[roles(*CHANGING)])
def post_end(node: Node, who: Who, n: Number, ending: Ending) -> ChangeShape:
    """End a shadow, a split, or a change that waits; of a live package the one before answers again."""
    with _refusals(), node.database.write() as connection:
        end_change(connection, n, who, ending.reason)
        return _shapes(connection, deployments.c.n == n)[0]


def _shapes(connection: Connection, *where: ColumnElement[bool]) -> list[ChangeShape]:
    return [ChangeShape.model_validate(row) for row in change_rows(connection, *where)]


@contextmanager
def _refusals() -> Iterator[None]:
    """Refuse what cannot be done as things stand as a conflict, not as a wrong request."""
    try:
        yield
    except (ChangeError, IntegrityError) as error:
        status = 404 if isinstance(error, UnknownChangeError) else 409
        raise WebError(status, error.problem, error.where, error.remedy) from error
