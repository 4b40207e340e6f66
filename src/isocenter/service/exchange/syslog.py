"""Messages to a server of syslog: RFC 5424 over TCP, framed by their length (RFC 6587 3.4.1)."""

from __future__ import annotations

import os
import platform
import socket
from datetime import UTC, datetime

from isocenter.errors import ResourceError

# Facility 13, log audit, at severity 6, informational: RFC 5424 6.2.1
PRIORITY = 13 * 8 + 6
APPLICATION = "isocenter"
CONNECT_S = 5.0


def syslog_message(kind: str, text: str, at: datetime) -> bytes:
    """A message. kind: its MSGID."""
    time = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = platform.node().encode("ascii", "ignore").decode() or "-"
    return f"<{PRIORITY}>1 {time} {host} {APPLICATION} {os.getpid()} {kind} - {text}".encode()


def send_syslog(to: str, message: bytes) -> None:
    """Send a message to host:port. Raises ResourceError where nobody takes it."""
    host, _, port = to.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S) as connection:
            connection.sendall(b"%d " % len(message) + message)
            # A server that has gone away resets the connection; one that is there closes its side after ours.
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
    except TimeoutError:  # it took the bytes and keeps the connection
        return
    except OSError as error:
        problem = f"the server of syslog takes nothing: {error.strerror or type(error).__name__}"
        raise ResourceError(problem, to, "Is it running, and does [audit] syslog name it?") from error
