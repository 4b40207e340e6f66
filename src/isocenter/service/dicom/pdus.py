"""Protocol data units of the upper layer, PS3.8 9.3: what peers send is parsed strictly, what we send is made."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
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
