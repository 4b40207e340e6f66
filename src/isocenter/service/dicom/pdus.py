"""Protocol data units of the upper layer, PS3.8 9.3, and the socket that they come from.

What peers send is parsed strictly, what we send is made; the socket is read exactly, and never for longer than a peer
may be silent.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
HEAD = struct.Struct(">BxI")
LARGEST_DATA = 131072  # bytes behind the head of a P-DATA PDU; the most that DCMTK sends
LARGEST_REQUEST = 1 << 18  # 128 presentation contexts of a dozen syntaxes come to 60 kB
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION, VERSION = "2.25.130625409065433704775461766601554907340", "ISOCENTER"
# Result, source, reason: PS3.8 9.3.4
CONGESTION, CALLING_UNKNOWN, CALLED_UNKNOWN, CONTEXT_UNKNOWN = (2, 3, 1), (1, 1, 3), (1, 1, 7), (1, 1, 2)
NO_SYNTAX = 4
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


class ProtocolError(Exception):
    """A peer that does not keep to the protocol; the text names nothing that it sent."""


@dataclass(frozen=True)
class Proposal:
    """A presentation context: a number, a class and the syntaxes in which its objects can be sent."""

    number: int
    sop_class: str
    syntaxes: tuple[str, ...]

    @property
    def chosen(self) -> str | None:
        """The syntax to send in: one without compression where there is one, as no coder then loses anything."""
        native = [syntax for syntax in (EXPLICIT, IMPLICIT) if syntax in self.syntaxes]
        return next(iter([*native, *self.syntaxes]), None)


@dataclass(frozen=True)
class Request:
    """An A-ASSOCIATE-RQ. body: all behind the PDU's head; is_known: whether its application context is DICOM's."""

    body: bytes
    called: str
    calling: str
    is_known: bool
    proposals: tuple[Proposal, ...]


def parse_request(body: bytes) -> Request:
    """The request behind its head. Raises ProtocolError."""
    try:
        version, called, calling = struct.unpack_from(">H2x16s16s", body)
        application, proposals = b"", []
        for kind, item in _items(body, 68):
            if kind == 0x10:
                application = item
            elif kind == 0x20:
                proposals.append(_proposal(item))
        called, calling = (title.decode("ascii").strip(" \0") for title in (called, calling))
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError("a request that is malformed") from error
    if not f"{called}{calling}".isprintable():  # PS3.5 6.2; a database may not even hold it
        raise ProtocolError("a request with control characters in its titles")
    numbers = {proposal.number for proposal in proposals}
    if not version & 1 or not proposals or len(numbers) < len(proposals):
        raise ProtocolError("a request of another version, or without contexts of its own numbers")
    return Request(body, called, calling, application.rstrip(b"\0") == APPLICATION_CONTEXT, tuple(proposals))


def acceptance(request: Request) -> bytes:
    """The A-ASSOCIATE-AC: every context is taken that names a syntax."""
    contexts = b"".join(
        _item(
            0x21,
            struct.pack(">BxBx", proposal.number, 0 if proposal.chosen else NO_SYNTAX)
            + _item(0x40, (proposal.chosen or IMPLICIT).encode()),
        )
        for proposal in request.proposals
    )
    # Titles and what is reserved go back as they came.
    return pdu(ASSOCIATE_AC, b"\0\1" + request.body[2:68] + _association_items(contexts))


def associate(calling: str, called: str, proposals: Sequence[Proposal]) -> bytes:
    """The A-ASSOCIATE-RQ for these contexts."""
    contexts = b"".join(
        _item(
            0x20,
            struct.pack(">Bxxx", proposal.number)
            + _item(0x30, proposal.sop_class.encode())
            + b"".join(_item(0x40, syntax.encode()) for syntax in proposal.syntaxes),
        )
        for proposal in proposals
    )
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    return pdu(ASSOCIATE_RQ, b"\0\1\0\0" + titles + bytes(32) + _association_items(contexts))


def parse_acceptance(body: bytes) -> tuple[set[int], int]:
    """(numbers of the contexts that are taken, bytes of a P-DATA PDU that the peer takes). Raises ProtocolError."""
    taken, most = set(), 0
    for kind, item in _items(body, 68):
        if kind == 0x21 and item[2:3] == b"\0":
            taken.add(item[0])
        elif kind == 0x50:
            most = next((struct.unpack(">I", value)[0] for kind, value in _items(item, 0) if kind == 0x51), 0)
    return taken, most


def rejection(because: tuple[int, int, int]) -> bytes:
    """The A-ASSOCIATE-RJ with result, source and reason."""
    return pdu(ASSOCIATE_RJ, bytes([0, *because]))


def abort() -> bytes:
    """The A-ABORT of a provider that gives no reason."""
    return pdu(ABORT, b"\0\0\2\0")


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU with its head."""
    return HEAD.pack(kind, len(body)) + body


def _association_items(contexts: bytes) -> bytes:
    user = _item(0x51, struct.pack(">I", LARGEST_DATA)) + _item(0x52, IMPLEMENTATION.encode())
    return _item(0x10, APPLICATION_CONTEXT) + contexts + _item(0x50, user + _item(0x55, VERSION.encode()))


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of items that fill the bytes exactly."""
    while at < len(data):
        kind, length = struct.unpack_from(">BxH", data, at)
        at += 4 + length
        if at > len(data):
            raise ProtocolError("an item that is longer than its request")
        yield kind, data[at - length : at]


def _proposal(item: bytes) -> Proposal:
    parts = list(_items(item, 4))
    classes = [value for kind, value in parts if kind == 0x30]
    syntaxes = [value for kind, value in parts if kind == 0x40]
    if len(classes) != 1 or not item[0] & 1:
        raise ProtocolError("a context without a class")
    return Proposal(item[0], _uid(classes[0]), tuple(map(_uid, syntaxes)))


def _uid(value: bytes) -> str:
    return value.decode("ascii").rstrip(" \0")


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
