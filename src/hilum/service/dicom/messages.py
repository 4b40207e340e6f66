"""Messages of DICOM as bytes: protocol data units and their socket, commands of DIMSE, and the services they belong to.

PS3.8 9.3, PS3.7 6.3 and E.1, PS3.4 B.5 and PS3.6 A. What peers send is parsed strictly, what we send is made; the
socket is read exactly, and never for longer than a peer may be silent.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
HEAD = struct.Struct(">BxI")
LARGEST_DATA = 131072  # bytes behind the head of a P-DATA PDU; the most that DCMTK sends
LARGEST_REQUEST = 1 << 18  # 128 presentation contexts of a dozen syntaxes come to 60 kB
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION, VERSION = "2.25.130625409065433704775461766601554907340", "HILUM"
# Result, source, reason: PS3.8 9.3.4
CONGESTION, CALLING_UNKNOWN, CALLED_UNKNOWN, CONTEXT_UNKNOWN = (2, 3, 1), (1, 1, 3), (1, 1, 7), (1, 1, 2)
NO_SYNTAX = 4
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


class ProtocolError(Exception):
    """A peer that does not keep to the protocol; the text names nothing that it sent."""


@dataclass(frozen=True)
class PresentationContext:
    """A presentation context: a number, a class and the syntaxes in which its objects can be sent."""

    number: int
    sop_class: str
    syntaxes: tuple[str, ...]

    @property
    def preferred_syntax(self) -> str | None:
        """The syntax to send in: one without compression where there is one, as no coder then loses anything."""
        native = [syntax for syntax in (EXPLICIT, IMPLICIT) if syntax in self.syntaxes]
        return next(iter([*native, *self.syntaxes]), None)


@dataclass(frozen=True)
class AssociationRequest:
    """An A-ASSOCIATE-RQ. body: all behind the PDU's head; is_known: whether its application context is DICOM's."""

    body: bytes
    called: str
    calling: str
    is_known: bool
    proposals: tuple[PresentationContext, ...]


def parse_request(body: bytes) -> AssociationRequest:
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
    return AssociationRequest(body, called, calling, application.rstrip(b"\0") == APPLICATION_CONTEXT, tuple(proposals))


def acceptance_pdu(request: AssociationRequest) -> bytes:
    """The A-ASSOCIATE-AC: every context is taken that names a syntax."""
    contexts = b"".join(
        _item(
            0x21,
            struct.pack(">BxBx", proposal.number, 0 if proposal.preferred_syntax else NO_SYNTAX)
            + _item(0x40, (proposal.preferred_syntax or IMPLICIT).encode()),
        )
        for proposal in request.proposals
    )
    # Titles and what is reserved go back as they came.
    return encode_pdu(ASSOCIATE_AC, b"\0\1" + request.body[2:68] + _association_items(contexts))


def association_pdu(calling: str, called: str, proposals: Sequence[PresentationContext]) -> bytes:
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
    return encode_pdu(ASSOCIATE_RQ, b"\0\1\0\0" + titles + bytes(32) + _association_items(contexts))


def parse_acceptance(body: bytes) -> tuple[set[int], int]:
    """(numbers of the contexts that are taken, bytes of a P-DATA PDU that the peer takes). Raises ProtocolError."""
    taken, most = set(), 0
    for kind, item in _items(body, 68):
        if kind == 0x21 and item[2:3] == b"\0":
            taken.add(item[0])
        elif kind == 0x50:
            most = next((struct.unpack(">I", value)[0] for kind, value in _items(item, 0) if kind == 0x51), 0)
    return taken, most


def rejection_pdu(because: tuple[int, int, int]) -> bytes:
    """The A-ASSOCIATE-RJ with result, source and reason."""
    return encode_pdu(ASSOCIATE_RJ, bytes([0, *because]))


def abort_pdu() -> bytes:
    """The A-ABORT of a provider that gives no reason."""
    return encode_pdu(ABORT, b"\0\0\2\0")


def encode_pdu(kind: int, body: bytes) -> bytes:
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


def _proposal(item: bytes) -> PresentationContext:
    parts = list(_items(item, 4))
    classes = [value for kind, value in parts if kind == 0x30]
    syntaxes = [value for kind, value in parts if kind == 0x40]
    if len(classes) != 1 or not item[0] & 1:
        raise ProtocolError("a context without a class")
    return PresentationContext(item[0], _uid(classes[0]), tuple(map(_uid, syntaxes)))


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


VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
_STANDARD = "1.2.840.10008."
_STORAGE = (
    f"{_STANDARD}5.1.4.1.1.",
    # Storage classes that stand among others: stored prints and hardcopies, deliveries of radiation, objects without a
    # patient.
    *(f"{_STANDARD}5.1.1.{n}" for n in ("27", "29", "30")),
    *(f"{_STANDARD}5.1.4.{n}" for n in ("34.7", "34.10", "38.1", "39.1", "43.1", "44.1", "45.1")),
)


def is_storage(sop_class: str) -> bool:
    """Whether a class is of objects: what the standard lists as such, and whatever is not of the standard."""
    return not sop_class.startswith(_STANDARD) or sop_class.startswith(_STORAGE[0]) or sop_class in _STORAGE


C_STORE, C_ECHO, C_CANCEL, ANSWER = 0x0001, 0x0030, 0x0FFF, 0x8000
# Elements of group 0
SOP_CLASS, COMMAND, MESSAGE, ANSWERS = 0x0002, 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET, STATUS, COMMENT, INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
NO_DATA_SET = 0x0101
# PS3.7 C and PS3.4 B.2.3
SUCCESS, UNKNOWN_OPERATION, OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0x0000, 0x0211, 0xA700, 0xC000
COERCED = 0xB000  # a warning: the object is kept, and what is found under its UID is not as it was sent
CLASS_NOT_SUPPORTED, NOT_AUTHORISED = 0x0122, 0x0124
LONGEST_COMMENT = 64
LAST_DATA, WHOLE_COMMAND = 2, 3  # bits of a data value, PS3.8 E.2
VALUE_HEAD = 6  # bytes: length, context, bits


def parse_command(data: bytes) -> Mapping[int, bytes]:
    """{element: value} of group 0, implicit VR little endian. Raises ProtocolError."""
    elements, at = {}, 0
    try:
        while at < len(data):
            group, element, length = struct.unpack_from("<HHI", data, at)
            at += 8 + length
            if group != 0 or at > len(data):
                raise ProtocolError("a command that is malformed")
            elements[element] = data[at - length : at]
    except struct.error as error:
        raise ProtocolError("a command that is cut short") from error
    return elements


def command_number(command: Mapping[int, bytes], element: int) -> int:
    """A number of a command. Raises ProtocolError where it is absent."""
    value = command.get(element, b"")
    if len(value) != 2:
        raise ProtocolError("a command without a number that it needs")
    return int.from_bytes(value, "little")


def response_pdu(command: Mapping[int, bytes], context: int, status: int, comment: str = "") -> bytes:
    """The P-DATA PDU that answers a command."""
    elements = {
        SOP_CLASS: command.get(SOP_CLASS),
        COMMAND: _short(command_number(command, COMMAND) | ANSWER),
        ANSWERS: command[MESSAGE],
        DATA_SET: _short(NO_DATA_SET),
        STATUS: _short(status),
        COMMENT: _even(comment.encode("ascii", "replace")[:LONGEST_COMMENT], b" ") or None,
        INSTANCE: command.get(INSTANCE),
    }
    return _command(elements, context)


def command_pdu(kind: int, context: int, sop_class: str, instance: str = "") -> bytes:
    """The P-DATA PDU of a command of ours; one about an instance has a data set."""
    return _command(
        {
            SOP_CLASS: _even(sop_class.encode(), b"\0"),
            COMMAND: _short(kind),
            MESSAGE: _short(1),  # one at a time
            PRIORITY: _short(0) if instance else None,
            DATA_SET: _short(0 if instance else NO_DATA_SET),
            INSTANCE: _even(instance.encode(), b"\0") or None,
        },
        context,
    )


def data_pdu(data: bytes, context: int, bits: int) -> bytes:
    """The P-DATA PDU with one data value."""
    return HEAD.pack(P_DATA, len(data) + VALUE_HEAD) + struct.pack(">IBB", len(data) + 2, context, bits) + data


def file_head(sop_class: bytes, instance: bytes, syntax: str) -> bytes:
    """Preamble and group 2 of a file, PS3.10 7.1."""
    texts = {0x0002: sop_class, 0x0003: instance, 0x0010: syntax.encode(), 0x0012: IMPLEMENTATION.encode()}
    meta = struct.pack("<HH2sxxI2s", 2, 1, b"OB", 2, b"\0\1")
    meta += b"".join(_meta(element, b"UI", _even(value, b"\0")) for element, value in texts.items())
    meta += _meta(0x0013, b"SH", _even(VERSION.encode(), b" "))
    return bytes(128) + b"DICM" + _meta(0, b"UL", struct.pack("<I", len(meta))) + meta


def _command(elements: Mapping[int, bytes | None], context: int) -> bytes:
    body = b"".join(_element(element, value) for element, value in elements.items() if value is not None)
    return data_pdu(_element(0, struct.pack("<I", len(body))) + body, context, WHOLE_COMMAND)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def _even(value: bytes, filler: bytes) -> bytes:
    return value + filler * (len(value) % 2)
