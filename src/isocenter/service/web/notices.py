"""Routes of notices: which went out, and that somebody has taken one up."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import ColumnElement, select

from isocenter.service.records.notices import NOTICE, Notices
from isocenter.service.records.tables import deliveries, notices
from isocenter.service.web.access import ROLES, WORKING, Who, roles
from isocenter.service.web.blind import TO_BE_READ, reads_for
from isocenter.service.web.shapes import DeliveryShape, Listing, NoticeShape
from isocenter.service.web.web_node import KEY, Limit, Node, WebError, WebNode

router = APIRouter(prefix="/api/notices", tags=["notices"])


@router.get("", dependencies=[roles(*ROLES)])
def list_notices(node: Node, who: Who, limit: Limit = 100, unacknowledged: bool = False) -> Listing[NoticeShape]:
    """Notices, the newest first; unacknowledged: those alone that nobody has taken up.

    Of one that somebody has taken up the finding is hidden as long as its study waits to be read blind.
    """
    conditions = [notices.c.acknowledged_at.is_(None)] if unacknowledged else []
    hidden = {one.row.uid for one in reads_for(node, who)}
    rows = [
        row.model_copy(update={"finding": TO_BE_READ}) if row.study in hidden and row.acknowledged_at else row
        for row in _shapes(node, limit, *conditions)
    ]
    return Listing[NoticeShape](schema="isocenter.notices", rows=rows)


@router.post("/{n}/acknowledge", dependencies=[roles(*WORKING)])
def acknowledge_notice(node: Node, who: Who, n: Annotated[str, Path(pattern=KEY)]) -> NoticeShape:
    """Take a notice up: it goes to no further recipient."""
    if not Notices(node.database).acknowledge(n, who=who):
        raise WebError(404, "there is no such notice", n, "See /api/notices")
    return _shapes(node, 1, notices.c.notice == n)[0]


def _shapes(node: WebNode, most: int, *where: ColumnElement[bool]) -> list[NoticeShape]:
    rows = Notices(node.database).newest(most, *where)
    sent = defaultdict[str, list[DeliveryShape]](list)
    mine = (deliveries.c.name == NOTICE, deliveries.c.job.in_([row.job for row in rows]))
    with node.database.read() as connection:
        for row in connection.execute(select(deliveries).where(*mine).order_by(deliveries.c.next_at)):
            sent[row.job].append(DeliveryShape.model_validate(row._mapping))
    return [NoticeShape.model_validate({**row._mapping, "deliveries": sent[row.job]}) for row in rows]
