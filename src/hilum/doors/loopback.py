"""One port of this machine for one server, and who may not speak to it: other hosts, and pages of other origins."""

from __future__ import annotations

import logging
import socket

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hilum.errors import UsageError

HOST = "127.0.0.1"
OWN_NAMES = frozenset({HOST, "localhost"})


def listen(port: int) -> socket.socket:
    """A socket of this machine alone. UsageError for a port that is taken."""
    try:
        return socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        problem = f"cannot be listened on: {error.strerror}"
        raise UsageError(problem, f"{HOST}:{port}", "Choose another --port, or 0 for any") from error


def serve(application: ASGIApp, listener: socket.socket) -> None:
    """Answer until Ctrl-C."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        application, ws="none", log_config=None, access_log=False, proxy_headers=False, server_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


class LocalOnly:
    """Refuses requests under a foreign name (DNS rebinding), and those that a page of another origin sends."""

    def __init__(self, application: ASGIApp) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "http":
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            host, origin = headers.get("host", ""), headers.get("origin", "")
            is_foreign = host.rpartition(":")[0] not in OWN_NAMES or (origin and origin != f"http://{host}")
            if is_foreign or headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
                await PlainTextResponse("This address is for this machine alone.", 421)(scope, receive, send)
                return
        await self.application(scope, receive, send)
