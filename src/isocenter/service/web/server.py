"""The web process of a node: one listener, time limits for slow clients, a log without identity."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from isocenter.errors import UsageError
from isocenter.service.dicom.listening import server_context
from isocenter.service.objects.store import ObjectStore
from isocenter.service.records.accounts import refuse_open_address
from isocenter.service.records.database import opened
from isocenter.service.settings import HttpTls, Settings
from isocenter.service.web.app import CONNECTIONS, viewer_app, web_app
from isocenter.service.web.web_node import WebNode

HEADERS_S = 10.0  # for the whole head of a request, from the connection or the answer before it
IDLE_S = 30.0  # in which a client that does not read has to begin again
DRAIN_S = 10  # for answers that are on their way when the node stops
LOOK_S = 0.05  # how often a stop is looked for


def web_listeners(settings: Settings) -> list[socket.socket]:
    """The sockets on which the node is served over HTTP: its API, and OHIF where it is served.

    Raises UsageError for a port in use, for an address that others reach where nothing asks who they are, and for TLS
    by files that are no certificate and its key.
    """
    http = settings.http
    refuse_open_address(settings)
    if http.tls is not None:
        server_context(http.tls.certificate, http.tls.key)
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


def run_web(settings: Settings, stop: threading.Event, bound: Callable[[int], None] | None = None) -> None:
    """Serve the node over HTTP until `stop` is set; what is being answered then is answered first.

    bound: called with the port of the API once requests are answered
    Raises UsageError as `web_listeners`, and ResourceError where the database does not answer.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it writes what failed, with the words of the error
    with ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in web_listeners(settings)]
        database = opened(settings.database_url)
        store = ObjectStore(settings.folder, "web", sync=settings.dicom.sync, min_free_gb=settings.node.min_free_gb)
        node = WebNode(settings, database, store, stopping=stop)
        try:
            node.accounts.exist()
            apps = [web_app(node), *([] if settings.ohif is None else [viewer_app(node)])]
            servers = [_server(app, settings.http.tls) for app in apps]
            asyncio.run(_served(list(zip(servers, listeners, strict=True)), stop, bound))
        finally:
            node.computing.close()
            node.volumes.close()
            store.close()
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


async def _served(
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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
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
