"""A socket that is read exactly, and never for longer than a peer may be silent."""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from contextlib import suppress

from isocenter.service.dicom.pdus import HEAD, LARGEST_REQUEST, ProtocolError

HEAD_SIZE = HEAD.size


class Connection:
    """One end of an association's transport, under TLS or not. idle_s: s for what is asked for to come, or to go."""

    def __init__(self, plain: socket.socket, idle_s: float) -> None:
        self.socket, self.idle_s = plain, idle_s
        self.address = str(plain.getpeername()[0])
        self._is_secured = isinstance(plain, ssl.SSLSocket)
        self._flags = 0 if self._is_secured else socket.MSG_WAITALL
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._is_secured:
            plain.settimeout(idle_s)
        else:
            # The kernel waits for all of a PDU at once: one call, where a timeout of Python's would poll for each part.
            plain.settimeout(None)
            limit = struct.pack("@ll", int(idle_s), int(idle_s % 1 * 1e6))
            for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                plain.setsockopt(socket.SOL_SOCKET, side, limit)

    def fill(self, view: memoryview) -> None:
        """Read exactly as much as the view takes. Raises EOFError where it ends, and TimeoutError."""
        until = 0.0
        try:
            while (count := self.socket.recv_into(view, 0, self._flags)) < len(view):
                if count == 0:
                    raise EOFError
                view = view[count:]
                # A byte now and then does not keep it open.
                now = time.monotonic()
                until = until or now + self.idle_s
                if now > until:
                    raise TimeoutError
        except BlockingIOError as error:  # how the kernel says that the time is up
            raise TimeoutError from error

    def ready(self, other: socket.socket) -> list[socket.socket]:
        """Sockets, of this and another, that can be read; none where both are silent for too long."""
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return [self.socket]
        with selectors.DefaultSelector() as selector:
            for reading in (self.socket, other):
                selector.register(reading, selectors.EVENT_READ, reading)
            return [key.data for key, _ in selector.select(self.idle_s)]

    def some(self, view: memoryview) -> int:
        """Read what is there, and wait for the first of it; 0 at the end. Raises TimeoutError."""
        try:
            return self.socket.recv_into(view)
        except BlockingIOError as error:
            raise TimeoutError from error

    def first(self) -> tuple[int, bytes]:
        """(kind, body) of a PDU that opens or ends an association. Raises ProtocolError, and as `fill`."""
        kind, length = self.head(memoryview(bytearray(HEAD_SIZE)), LARGEST_REQUEST)
        body = bytearray(length)
        self.fill(memoryview(body))
        return kind, bytes(body)

    def head(self, buffer: memoryview, largest: int) -> tuple[int, int]:
        """(kind, length of the rest) of the next PDU. Raises ProtocolError for one that is too long, and as `fill`."""
        self.fill(buffer[:HEAD_SIZE])
        kind, length = HEAD.unpack_from(buffer)
        if length > largest:
            raise ProtocolError("a PDU longer than was agreed")
        return kind, length

    def send(self, data: bytes) -> None:
        """Send all. Raises TimeoutError for a peer that takes nothing."""
        try:
            self.socket.sendall(data)
        except BlockingIOError as error:
            raise TimeoutError from error
        # A sender with Nagle's algorithm holds its last segment back until the one before is acknowledged, and a kernel
        # that has just sent delays that.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def stop_reading(self) -> None:
        """Whoever waits for bytes gets EOFError."""
        with suppress(OSError):  # the peer was first
            self.socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """End it, whatever the other side does."""
        self.socket.close()
