"""The application: its routes, what stands before every request, and how it says what went wrong."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isocenter.errors import IsocenterError, ResourceError
from isocenter.service.settings import MOST_CONNECTIONS
from isocenter.service.web import (
    audit,
    blind,
    changes,
    correcting,
    health,
    incidents,
    login,
    monitor,
    node,
    notices,
    pages,
    reading,
    series,
    studies,
    worklist,
)
from isocenter.service.web.access import ROLES, enter, open_routes, roles
from isocenter.service.web.audit import Refusals
from isocenter.service.web.dicomweb.retrieve import router as retrieve_router
from isocenter.service.web.dicomweb.search import router as search_router
from isocenter.service.web.dicomweb.store import router as store_router
from isocenter.service.web.dicomweb.workitems import router as workitems_router
from isocenter.service.web.identity import EVENTS, HEALTH, Identity
from isocenter.service.web.inference.routes import router as inference_router
from isocenter.service.web.shapes import Problem, problem_of
from isocenter.service.web.web_node import WebError, WebNode

RETRY_AFTER_S = 30  # when the disk is full, or the database away
SEE_OPENAPI = "See /openapi.json"
DICOMWEB = (store_router, workitems_router, search_router, retrieve_router)
log = logging.getLogger("isocenter")


def web_app(web_node: WebNode) -> ASGIApp:
    """The application of a node."""
    app, described = _app(web_node), APIRouter(dependencies=[roles(*ROLES)])
    described.add_api_route("/openapi.json", lambda: JSONResponse(app.openapi()), include_in_schema=False)
    routers = [
        described,
        health.router,
        login.router,
        login.accounts_router,
        health.metrics_router,
        monitor.router,
        node.router,
        studies.router,
        studies.jobs_router,
        worklist.router,
        notices.router,
        incidents.router,
        studies.aside_router,
        audit.router,
        changes.router,
        series.router,
        reading.router,
        blind.router,
        correcting.router,
        pages.router,
        inference_router,
        *DICOMWEB,
    ]
    return _guarded(app, web_node, routers)


def viewer_app(web_node: WebNode) -> ASGIApp:
    """The OHIF viewer, and DICOMweb beside it, for whoever has logged in at the page of the node."""
    return _guarded(_app(web_node), web_node, [*DICOMWEB, pages.viewer_router], for_browsers=True)


def _guarded(app: FastAPI, web_node: WebNode, routers: Sequence[APIRouter], *, for_browsers: bool = False) -> ASGIApp:
    """The application with these routes, each asked for by whoever has a role that it states."""
    opened = open_routes(routers)
    for router in routers:
        app.include_router(router)
    identity = Identity(web_node.settings, web_node.accounts, opened=opened, for_browsers=for_browsers)
    return Refusals(Guard(app, identity, web_node.settings.http.max_requests), web_node)


def _app(web_node: WebNode) -> FastAPI:
    """An application without routes, which says what went wrong."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (401, 403, 404, 409, 422, 503)
    }
    own_version = version("isocenter")
    # Its own route for what it states would not say who may ask for it.
    app = FastAPI(
        title="Isocenter", version=own_version, responses=responses, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.state.node = web_node
    app.add_exception_handler(IsocenterError, _of_ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_values)
    app.add_exception_handler(ClientDisconnect, _of_time)
    app.add_exception_handler(Exception, _of_a_fault)
    return app


def _problem(request: Request, status: int, problem: str, remedy: str, where: str = "", **headers: str) -> JSONResponse:
    headers |= {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    path = request.url.path
    return JSONResponse(problem_of(path, problem, where or path, remedy), status, headers)


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, WebError):
        return _problem(request, error.status, error.problem, error.remedy, error.where, **error.headers)
    if not isinstance(error, IsocenterError):
        raise error
    # Where names a path of this machine, which is none of the client's business.
    status = 503 if isinstance(error, ResourceError) else 422
    return _problem(request, status, error.problem, error.remedy)


def _of_http(request: Request, error: Exception) -> JSONResponse:
    status, problem = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    return _problem(request, status, str(problem).lower(), SEE_OPENAPI)


def _of_values(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": ""}
    return _problem(request, 422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}", SEE_OPENAPI)


def _of_time(request: Request, error: Exception) -> JSONResponse:
    return _problem(request, 408, "the request stood still, or broke off", "Send it again")


def _of_a_fault(request: Request, error: Exception) -> JSONResponse:
    """Log an error's kind and place alone: its words, or the path, may hold a UID or a name."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    log.error("a request failed: %s in %s, line %s", type(error).__name__, frame.filename, frame.lineno)
    return _problem(request, 500, "the node has a fault", "Look into its log, and report it")


MOST_HEAD_BYTES = 1 << 16  # names and values of all headers, and the path with its query
CONNECTIONS = "connections"  # the server's open ones, in the state of a request
BUSY_RETRY_S = 5  # when too many ask at once: most answers take less
AGAIN = {"Retry-After": str(BUSY_RETRY_S)}
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
        return _no(scope["path"], 503, "too many requests at once", f"Send it again in {BUSY_RETRY_S} s", AGAIN)

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
            names = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in HEADERS if one[0] not in names)]
        await send(message)

    return sent
