"""The web process of a node: its routes and what stands before each request, one listener, time limits, errors."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hilum import errors
from hilum.errors import HilumError, ResourceError, UsageError
from hilum.service.configuration import MOST_CONNECTIONS, HttpTls, NodeSettings
from hilum.service.dicom import dicom_listening
from hilum.service.objects.object_store import ObjectStore
from hilum.service.records import accounts, record_database
from hilum.service.web import (
    access,
    login_routes,
    monitor_routes,
    node_routes,
    page_routes,
    reading_routes,
    response_shapes,
    series_routes,
    study_routes,
    worklist_routes,
)
from hilum.service.web.access import EVENTS, HEALTH, ROLES, RequestIdentity
from hilum.service.web.dicomweb import retrieve, search, store, workitems
from hilum.service.web.inference import routes
from hilum.service.web.node_routes import Refusals
from hilum.service.web.response_shapes import Problem, Responses
from hilum.service.web.web_node import WebError, WebNode
from hilum.work_state import log

HEADERS_S = 10.0  # for the whole head of a request, from the connection or the answer before it
IDLE_S = 30.0  # in which a client that does not read has to begin again
DRAIN_S = 10  # for answers that are on their way when the node stops
LOOK_S = 0.05  # how often a stop is looked for


def web_listeners(settings: NodeSettings) -> list[socket.socket]:
    """The sockets on which the node is served over HTTP: its API, and OHIF where it is served.

    Raises UsageError for a port in use, for an address that others reach where nothing asks who they are, and for TLS
    by files that are no certificate and its key.
    """
    http = settings.http
    accounts.refuse_open_address(settings)
    if http.tls is not None:
        dicom_listening.server_context(http.tls.certificate, http.tls.key)
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listener(http.host, http.port, "http"))]
        if settings.ohif is not None:
            listeners.append(stack.enter_context(_listener(http.host, settings.ohif.port, "ohif")))
        stack.pop_all()
    return listeners


def _listener(host: str, port: int, section: str) -> socket.socket:
    """A socket on this address; section: of the settings, which states its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise UsageError(
            f"cannot be listened on: {error.strerror}", f"{section} {host}:{port}", f"Choose another {section}.port"
        ) from error
    # Connections inherit it; asyncio sets it only for sockets that name TCP, and without it an answer takes 44 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run_web(settings: NodeSettings, stop: threading.Event, bound: Callable[[int], None] | None = None) -> None:
    """Serve the node over HTTP until `stop` is set; what is being answered then is answered first.

    bound: called with the port of the API once requests are answered
    Raises UsageError as `web_listeners`, and ResourceError where the database does not answer.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it writes what failed, with the words of the error
    with ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in web_listeners(settings)]
        database = record_database.open_database(settings.database_url)
        object_store = ObjectStore(
            settings.folder, "web", sync=settings.dicom.sync, min_free_gb=settings.node.min_free_gb
        )
        node = WebNode(settings, database, object_store, stopping=stop)
        try:
            node.accounts.exist()
            apps = [web_app(node), *([] if settings.ohif is None else [viewer_app(node)])]
            servers = [_server(app, settings.http.tls) for app in apps]
            asyncio.run(_serve(list(zip(servers, listeners, strict=True)), stop, bound))
        finally:
            node.computing.close()
            node.volumes.close()
            object_store.close()
            database.close()


def _server(app: Any, tls: HttpTls | None) -> _Server:
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
    )
    return _Server(config)


async def _serve(
    servers: Sequence[tuple[_Server, socket.socket]], stop: threading.Event, bound: Callable[[int], None] | None
) -> None:
    """Let each server answer on its socket, until `stop` is set or one of them ends."""
    serving = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in servers]
    while not any(one.done() for one in serving) and not stop.is_set():
        if bound is not None and all(server.started for server, _ in servers):
            bound(servers[0][1].getsockname()[1])
            bound = None
        await asyncio.sleep(LOOK_S)
    for server, _ in servers:
        server.should_exit = True
    await asyncio.gather(*serving)


class _Server(uvicorn.Server):
    """One whose process keeps its own answer to signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class ImpatientProtocol(H11Protocol):
    """HTTP that breaks off where the next request does not come whole in HEADERS_S, or no byte is read in IDLE_S."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's takes this kind alone
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.app_state[CONNECTIONS] = self.connections  # each request's scope has it, for the guard to count
        self._end_in(HEADERS_S)

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a request is there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and not self.flow.write_paused:
            self._end_in(None)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._end_in(HEADERS_S)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._end_in(IDLE_S)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._end_in(None if self.cycle is not None and not self.cycle.response_complete else HEADERS_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._end_in(None)

    def _end_in(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


RETRY_AFTER_S = 30  # when the disk is full, or the database away
SEE_OPENAPI = "See /openapi.json"
DICOMWEB = (store.router, workitems.router, search.router, retrieve.router)


def web_app(web_node: WebNode) -> ASGIApp:
    """The application of a node."""
    app, described = _app(web_node), APIRouter(dependencies=[access.require_roles(ROLES)])
    described.add_api_route("/openapi.json", lambda: JSONResponse(app.openapi()), include_in_schema=False)
    routers = [
        described,
        node_routes.health_router,
        login_routes.router,
        login_routes.accounts_router,
        node_routes.metrics_router,
        monitor_routes.router,
        node_routes.router,
        study_routes.router,
        study_routes.jobs_router,
        worklist_routes.router,
        monitor_routes.notices_router,
        monitor_routes.incidents_router,
        study_routes.aside_router,
        node_routes.audit_router,
        monitor_routes.changes_router,
        series_routes.router,
        reading_routes.router,
        worklist_routes.blind_router,
        reading_routes.correcting_router,
        page_routes.router,
        routes.router,
        *DICOMWEB,
    ]
    return _guard(app, web_node, routers)


def viewer_app(web_node: WebNode) -> ASGIApp:
    """The OHIF viewer, and DICOMweb beside it, for whoever has logged in at the page of the node."""
    return _guard(_app(web_node), web_node, [*DICOMWEB, page_routes.viewer_router], for_browsers=True)


def _guard(app: FastAPI, web_node: WebNode, routers: Sequence[APIRouter], *, for_browsers: bool = False) -> ASGIApp:
    """The application with these routes, each asked for by whoever has a role that it states."""
    opened = access.open_routes(routers)
    for router in routers:
        app.include_router(router)
    identity = RequestIdentity(web_node.settings, web_node.accounts, opened=opened, for_browsers=for_browsers)
    return Refusals(RequestGuard(app, identity, web_node.settings.http.max_requests), web_node)


def _app(web_node: WebNode) -> FastAPI:
    """An application without routes, which says what went wrong."""
    responses: Responses = {status: {"model": Problem} for status in (401, 403, 404, 409, 410, 422, 503)}
    own_version = version("hilum")
    # Its own route for what it states would not say who may ask for it.
    app = FastAPI(
        title="Hilum", version=own_version, responses=responses, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.state.node = web_node
    app.add_exception_handler(HilumError, _of_ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_values)
    app.add_exception_handler(ClientDisconnect, _of_time)
    app.add_exception_handler(Exception, _of_a_fault)
    return app


def _problem(request: Request, status: int, problem: str, remedy: str, where: str = "", **headers: str) -> JSONResponse:
    headers |= {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    path = request.url.path
    return JSONResponse(response_shapes.problem_of(path, problem, where or path, remedy), status, headers)


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, WebError):
        return _problem(request, error.status, error.problem, error.remedy, error.where, **error.headers)
    if not isinstance(error, HilumError):
        raise error
    # Where names a path of this machine, which is none of the client's business.
    status = 503 if isinstance(error, ResourceError) else 422
    return _problem(request, status, error.problem, error.remedy)


def _of_http(request: Request, error: Exception) -> JSONResponse:
    status, problem = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    return _problem(request, status, str(problem).lower(), SEE_OPENAPI)


def _of_values(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": ""}
    is_search = request.url.path.startswith("/dicomweb/") and tuple(first["loc"]) in PAGE_OF_SEARCH
    status = 400 if is_search else 422  # PS3.18 8.3
    return _problem(request, status, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}", SEE_OPENAPI)


def _of_time(request: Request, error: Exception) -> JSONResponse:
    return _problem(request, 408, "the request stood still, or broke off", "Send it again")


def _of_a_fault(request: Request, error: Exception) -> JSONResponse:
    """Log an error's kind and place alone: its words, or the path, may hold a UID or a name."""
    log.error("a request failed: %s", errors.describe_fault(error))
    return _problem(request, 500, "the node has a fault", "Look into its log, and report it")


PAGE_OF_SEARCH = (("query", "limit"), ("query", "offset"))
MOST_HEAD_BYTES = 1 << 16  # names and values of all headers, and the path with its query
CONNECTIONS = "connections"  # the server's open ones, in the state of a request
BUSY_RETRY_S = 5  # when too many ask at once: most answers take less
AGAIN = {"Retry-After": str(BUSY_RETRY_S)}
NEXT_BYTES_S = 30.0  # within which the next bytes of a request have to come
# What the API takes is JSON of a page or a script; objects come by DICOMweb, and tensors by their own protocol.
API, MOST_BODY_BYTES = "/api/", 1 << 24
# Nobody between us and the client keeps what we say of patients, or guesses what it is.
HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class RequestGuard:
    """Finds out who asks; refuses who is unknown, and who asks when too many do; ends requests that stand still.

    max_requests: how many are answered at once; those of health are not counted, nor refused for others, and neither
                  are pages that wait for changes
    """

    def __init__(self, app: ASGIApp, identity: RequestIdentity, max_requests: int) -> None:
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
                await refused(scope, receive, _mark(send))
                return
            most = MOST_BODY_BYTES if scope["path"].startswith(API) else None
            await self.app(scope, _impatient(receive, most), _mark(send))
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
            access.enter_actor(scope, await self.identity.actor(scope, headers))
        except WebError as error:
            return _no(scope["path"], error.status, error.problem, error.remedy, error.headers)
        except HilumError as error:  # the database is away
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
    return JSONResponse(response_shapes.problem_of(path, problem, "the request", remedy), status, headers)


def _impatient(receive: Receive, most: int | None) -> Receive:
    """A client that sends nothing more of its request, or more than so many bytes, counts as gone."""
    is_whole, length = False, 0

    async def received() -> Message:
        nonlocal is_whole, length
        if is_whole:  # who waits for an answer may take any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), NEXT_BYTES_S)
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_whole = not message.get("more_body", False)
        length += len(message.get("body", b""))
        return message if most is None or length <= most else {"type": "http.disconnect"}

    return received


def _mark(send: Send) -> Send:
    """Answers with the headers that all have, unless an answer states its own."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in HEADERS if one[0] not in names)]
        await send(message)

    return sent
