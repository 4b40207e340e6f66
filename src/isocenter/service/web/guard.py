"""Guard before every request: who asks is known, only so many at once do, and none lets a request hang."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isocenter.errors import IsocenterError
from isocenter.service.settings import MOST_CONNECTIONS
from isocenter.service.web.access import enter
from isocenter.service.web.identity import EVENTS, HEALTH, Identity
from isocenter.service.web.shapes import problem_of
from isocenter.service.web.web_node import WebError

MOST_HEAD_BYTES = 1 << 16  # names and values of all headers, and the path with its query
CONNECTIONS = "connections"  # the server's open ones, in the state of a request
RETRY_AFTER_S = 5  # when too many ask at once: most answers take less
AGAIN = {"Retry-After": str(RETRY_AFTER_S)}
IDLE_S = 30.0  # within which the next bytes of a request have to come
# What the API takes is JSON of a page or a script; objects come by DICOMweb, and tensors by their own protocol.
API, MOST_BODY_BYTES = "/api/", 1 << 24
# Nobody between us and the client keeps what we say of patients, or guesses what it is.
HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Guard:
    """Finds out who asks; refuses who is unknown, and who asks when too many do; ends requests that stand still.

    max_requests: how many are answered at once; those of health are not counted, nor refused for others, and neither
                  are pages that wait for changes
    """

    def __init__(self, app: ASGIApp, identity: Identity, max_requests: int) -> None:
        self.app, self.identity, self.max_requests = app, identity, max_requests
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        is_uncounted = scope["path"].startswith(HEALTH) or scope["path"] == EVENTS
        refused = _too_long(scope, headers) or (None if is_uncounted else self._overload(scope))
        if refused is not None:
            await refused(scope, receive, send)
            return
        self._in_flight += not is_uncounted
        try:
            refused = await self._refusal(scope, headers)
            if refused is not None:
                await refused(scope, receive, _marked(send))
                return
            most = MOST_BODY_BYTES if scope["path"].startswith(API) else None
            await self.app(scope, _impatient(receive, most), _marked(send))
        finally:
            self._in_flight -= not is_uncounted

    def _overload(self, scope: Scope) -> JSONResponse | None:
        """Refuse a request before any of it is read, where as many as may be are being answered."""
        connections = len(scope.get("state", {}).get(CONNECTIONS, ()))
        if self._in_flight < self.max_requests and connections <= MOST_CONNECTIONS:
            return None
        return _no(scope["path"], 503, "too many requests at once", f"Send it again in {RETRY_AFTER_S} s", AGAIN)

    async def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> JSONResponse | None:
        """Refuse a request of somebody unknown; else the request knows who asks."""
        try:
            enter(scope, await self.identity.actor(scope, headers))
        except WebError as error:
            return _no(scope["path"], error.status, error.problem, error.remedy, error.headers)
        except IsocenterError as error:  # the database is away
            return _no(scope["path"], 503, "the records do not answer", error.remedy, AGAIN)
        return None


def _too_long(scope: Scope, headers: Mapping[str, str]) -> JSONResponse | None:
    """Refuse a head that is too long (the server bounds only one that comes in several pieces), or a body."""
    length = sum(len(name) + len(value) for name, value in scope["headers"])
    if length + len(scope["path"]) + len(scope.get("query_string", b"")) > MOST_HEAD_BYTES:
        return _no(scope["path"], 431, "the headers are too long", f"Send at most {MOST_HEAD_BYTES} bytes of them")
    announced = headers.get("content-length", "0")
    if scope["path"].startswith(API) and announced.isdecimal() and int(announced) > MOST_BODY_BYTES:
        return _no(scope["path"], 413, "the request is too large", f"Send at most {MOST_BODY_BYTES} bytes")
    return None


def _no(path: str, status: int, problem: str, remedy: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem_of(path, problem, "the request", remedy), status, headers)


def _impatient(receive: Receive, most: int | None) -> Receive:
    """A client that sends nothing more of its request, or more than so many bytes, counts as gone."""
    is_whole, length = False, 0

    async def received() -> Message:
        nonlocal is_whole, length
        if is_whole:  # who waits for an answer may take any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), IDLE_S)
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_whole = not message.get("more_body", False)
        length += len(message.get("body", b""))
        return message if most is None or length <= most else {"type": "http.disconnect"}

    return received


def _marked(send: Send) -> Send:
    """Answers with the headers that all have, unless an answer states its own."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            stated = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in HEADERS if one[0] not in stated)]
        await send(message)

    return sent
