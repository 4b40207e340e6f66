"""The audit over HTTP: its route, and an event for each refusal for want of a right, before its answer goes out."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from sqlalchemy import select
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isocenter.errors import IsocenterError
from isocenter.service.records.actor import Actor
from isocenter.service.records.audit import COLUMNS, REFUSED
from isocenter.service.records.tables import audit
from isocenter.service.web.access import ACTOR, ADMINISTRATORS, Who, roles
from isocenter.service.web.shapes import EventShape, Listing, problem_of
from isocenter.service.web.web_node import Limit, Node, WebNode

router = APIRouter(prefix="/api/audit", tags=["audit"])
Word = Annotated[str | None, Query(max_length=64)]


@router.get("", dependencies=[roles(ADMINISTRATORS)])
def list_audit(
    node: Node,
    who: Who,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=1)] = None,
    action: Word = None,
    account: Word = None,
) -> Listing[EventShape]:
    """Sealed events, the newest first. after: the sequence behind which older ones follow."""
    filters = {"action": action, "account": account, "after": after}
    node.record("audit read", "/api/audit", who, detail={name: value for name, value in filters.items() if value})
    of_these = [audit.c.sequence.is_not(None) if after is None else audit.c.sequence < after]
    of_these += [] if action is None else [audit.c.action == action]
    of_these += [] if account is None else [audit.c.actor == account]
    rows = select(*(audit.c[name] for name in COLUMNS)).where(*of_these).order_by(audit.c.sequence.desc())
    with node.database.read() as connection:
        events = [EventShape.model_validate(row._mapping) for row in connection.execute(rows.limit(limit))]
    return Listing[EventShape](schema="isocenter.audit", rows=events)


STATUSES = (401, 403)
LOGIN = "/api/login"  # whoever fails there has an event of their own
DOTTED = re.compile(r"\d+(\.\d+)+")  # as UIDs are, of which the audit has none
AGAIN = {"Retry-After": "30"}  # s


class Refusals:
    """Writes every answer 401 and 403 of an application into the audit; without that the answer is 503."""

    def __init__(self, app: ASGIApp, node: WebNode) -> None:
        self.app, self.node = app, node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        is_replaced = False

        async def sent(message: Message) -> None:
            nonlocal is_replaced
            is_refusal = message["type"] == "http.response.start" and message["status"] in STATUSES
            if is_refusal and not scope["path"].startswith(LOGIN):
                try:
                    await to_thread.run_sync(partial(self._record, scope, message["status"]))
                except IsocenterError as error:
                    is_replaced = True
                    body = problem_of(scope["path"], error.problem, "the request", "Send it again later")
                    await JSONResponse(body, 503, AGAIN)(scope, receive, send)
            if not is_replaced:
                await send(message)

        await self.app(scope, receive, sent)

    def _record(self, scope: Scope, status: int) -> None:
        nobody = Actor("", "", (scope.get("client") or ("",))[0])
        who = scope.get("state", {}).get(ACTOR, nobody)
        thing = f"{scope['method']} {DOTTED.sub('{uid}', scope['path'])}"
        self.node.record("refusal", thing, who, outcome=REFUSED, detail={"status": status})
