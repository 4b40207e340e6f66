"""The route of the audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select

from isocenter.service.records.chain import COLUMNS
from isocenter.service.records.tables import audit
from isocenter.service.web.access import Who, roles
from isocenter.service.web.shapes import EventShape, Listing
from isocenter.service.web.web_node import Limit, Node

router = APIRouter(prefix="/api/audit", tags=["audit"])
Word = Annotated[str | None, Query(max_length=64)]


@router.get("", dependencies=[roles("administrator")])
def list_audit(
    node: Node,
    who: Who,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=1)] = None,
    action: Word = None,
    account: Word = None,
) -> Listing[EventShape]:
    """Sealed events, the newest first. after: the sequence behind which older ones follow."""
    wanted = {"action": action, "account": account, "after": after}
    node.record("audit read", "/api/audit", who, detail={name: value for name, value in wanted.items() if value})
    of_these = [audit.c.sequence.is_not(None) if after is None else audit.c.sequence < after]
    of_these += [] if action is None else [audit.c.action == action]
    of_these += [] if account is None else [audit.c.actor == account]
    rows = select(*(audit.c[name] for name in COLUMNS)).where(*of_these).order_by(audit.c.sequence.desc())
    with node.database.read() as connection:
        events = [EventShape.model_validate(row._mapping) for row in connection.execute(rows.limit(limit))]
    return Listing[EventShape](schema="isocenter.audit", rows=events)
