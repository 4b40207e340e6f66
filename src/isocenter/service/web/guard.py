"""Access to the web service: a token, or this machine alone; so many at once, and none that lets a request hang."""

from __future__ import annotations

import asyncio
import hmac
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastapi.routing import APIRoute
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isocenter.service.records.actor import ANYONE, Actor
from isocenter.service.settings import MOST_CONNECTIONS, TOKEN, is_loopback
from isocenter.service.web.access import enter
from isocenter.service.web.shapes import INFERENCE, problem_of

HEALTH = ("/health/", f"{INFERENCE}/health/")
EVENTS = "/api/worklist/events"
MOST_HEAD_BYTES = 1 << 16  # names and values of all headers, and the path with its query
CONNECTIONS = "connections"  # the server's open ones, in the state of a request
RETRY_AFTER_S = 5  # when too many ask at once: most answers take less
IDLE_S = 30.0  # within which the next bytes of a request have to come
BASIC = 'Basic realm="Isocenter", charset="UTF-8"'
# Nobody between us and the client keeps what we say of patients, or guesses what it is.
HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Guard:
    """Finds out who asks; refuses who is unknown, and who asks when too many do; ends requests that stand still.

    token:        None where only this machine is served
    opened:       routes that may be asked for without logging in
    max_requests: how many are answered at once; those of health are not counted, nor refused for others, and neither
                  are pages that wait for changes
    for_browsers: whether a browser may give the token as a password (RFC 7617), for pages of this address alone
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        max_requests: int,
        *,
        opened: Sequence[APIRoute] = (),
        for_browsers: bool = False,
    ) -> None:
        self.app, self.token, self.max_requests, self.for_browsers = app, token, max_requests, for_browsers
        self.opened = [route.path_regex for route in opened]
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        is_uncounted = scope["path"].startswith(HEALTH) or scope["path"] == EVENTS
        refused = _too_long(scope) or self._refusal(scope, headers) or (None if is_uncounted else self._overload(scope))
        if refused is not None:
            await refused(scope, receive, send)
            return
        self._in_flight += not is_uncounted
        try:
            await self.app(scope, _impatient(receive), _marked(send))
        finally:
            self._in_flight -= not is_uncounted

    def _overload(self, scope: Scope) -> JSONResponse | None:
        """What refuses a request before any of it is read, where as many as may be are being answered."""
        connections = len(scope.get("state", {}).get(CONNECTIONS, ()))
        if self._in_flight < self.max_requests and connections <= MOST_CONNECTIONS:
            return None
        return _no(scope["path"], 503, "too many requests at once", f"Send it again in {RETRY_AFTER_S} s")

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> JSONResponse | None:
        """What refuses a request of somebody unknown; else the request knows who asks."""
        path, address = scope["path"], (scope.get("client") or ("",))[0]
        if self.token is None and not _is_local(headers):
            return _no(path, 403, "only this machine is served", f"Set {TOKEN} for others")
        actor = ANYONE if self.token is None else self._holder(self.token, headers)
        if actor is None and any(route.match(path) for route in self.opened):
            actor = Actor("", "")
        if actor is not None:
            enter(scope, replace(actor, address=address))
            return None
        if self.for_browsers:
            return _no(path, 401, "the token is missing or wrong", f"Give the node's {TOKEN} as the password", BASIC)
        return _no(path, 401, "the token is missing or wrong", f"Send Authorization: Bearer with the node's {TOKEN}")

    def _holder(self, token: str, headers: Mapping[str, str]) -> Actor | None:
        """The machine that gives the token."""
        given = headers.get("authorization", "").encode("latin-1")
        # A browser sends the password with every request, also with one that a page from elsewhere makes.
        may_be_password = self.for_browsers and _is_of_this_origin(headers)
        is_token = hmac.compare_digest(given, f"Bearer {token}".encode())
        is_password = may_be_password and hmac.compare_digest(_password(given), token.encode())
        return Actor(f"token {TOKEN}", "service") if is_token or is_password else None


def _too_long(scope: Scope) -> JSONResponse | None:
    """What refuses a head that is too long; the server bounds only one that comes in several pieces."""
    length = sum(len(name) + len(value) for name, value in scope["headers"])
    if length + len(scope["path"]) + len(scope.get("query_string", b"")) <= MOST_HEAD_BYTES:
        return None
    return _no(scope["path"], 431, "the headers are too long", f"Send at most {MOST_HEAD_BYTES} bytes of them")


def _is_local(headers: Mapping[str, str]) -> bool:
    """Whether a request names this machine; a page from elsewhere has another name for it, or another origin."""
    name = re.fullmatch(r"\[([0-9a-fA-F:]+)\](:\d+)?|([\w.-]+)(:\d+)?", headers.get("host", ""))
    if name is None or not is_loopback((name[1] or name[3]).lower()):
        return False
    return _is_of_this_origin(headers)


def _is_of_this_origin(headers: Mapping[str, str]) -> bool:
    """Whether no page from elsewhere makes a request."""
    host = headers.get("host", "")
    return headers.get("origin", f"http://{host}") in (f"http://{host}", f"https://{host}")


def _password(given: bytes) -> bytes:
    """The password of an Authorization header of the kind Basic; empty for any other."""
    kind, _, encoded = given.partition(b" ")
    try:
        return b64decode(encoded, validate=True).partition(b":")[2] if kind.lower() == b"basic" else b""
    except ValueError:
        return b""


def _no(path: str, status: int, problem: str, remedy: str, asks: str = "Bearer") -> JSONResponse:
    headers = {401: {"WWW-Authenticate": asks}, 503: {"Retry-After": str(RETRY_AFTER_S)}}.get(status, {})
    return JSONResponse(problem_of(path, problem, "the request", remedy), status, headers)


def _impatient(receive: Receive) -> Receive:
    """A client that sends nothing more of its request counts as gone."""
    is_whole = False

    async def received() -> Message:
        nonlocal is_whole
        if is_whole:  # who waits for an answer may take any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), IDLE_S)
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_whole = not message.get("more_body", False)
        return message

    return received


def _marked(send: Send) -> Send:
    """Answers with the headers that all have, unless an answer states its own."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            stated = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in HEADERS if one[0] not in stated)]
        await send(message)

    return sent
