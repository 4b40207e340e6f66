"""Ports for servers that tests start by number."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nobody listens on, and that the system gives to nobody for a minute but to who names it.

    A connection that has just ended keeps it for so long.
    """
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()):
        door.accept()[0].close()
        return int(door.getsockname()[1])
