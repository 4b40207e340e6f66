"""A peer that says whatever bytes a test wants."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from hilum.service.dicom import messages
from hilum.service.dicom.messages import EXPLICIT, HEAD, IMPLICIT, RELEASE_RQ

VERIFICATION = "1.2.840.10008.1.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PIECE = 131066  # bytes of a data value in the largest PDU


def item(kind: int, value: bytes) -> bytes:
    """An item of a request."""
    return struct.pack(">BxH", kind, len(value)) + value


def request(
    contexts: Sequence[tuple[str, str]] = ((CAPTURE, EXPLICIT), (VERIFICATION, IMPLICIT)),
    *,
    called: str = "HILUM",
    calling: str = "TEST",
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts have the numbers 1, 3, 5 and so on."""
    body = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for place, (sop_class, syntax) in enumerate(contexts):
        inside = item(0x30, sop_class.encode()) + item(0x40, syntax.encode())
        body += item(0x20, struct.pack(">BxBx", 2 * place + 1, 0) + inside)
    return messages.encode_pdu(1, body + item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")))


def values(context: int, bits: int, value: bytes) -> bytes:
    """A P-DATA PDU with one data value."""
    return messages.encode_pdu(4, struct.pack(">IBB", len(value) + 2, context, bits) + value)


def command(kind: int, *, sop_class: str, instance: str = "", has_data: bool = True, context: int = 1) -> bytes:
    """A command as a P-DATA PDU."""
    said = [(0x100, struct.pack("<H", kind)), (0x110, b"\7\0"), (0x800, b"\0\0" if has_data else b"\1\1")]
    said += [(element, uid.encode() + b"\0" * (len(uid) % 2)) for element, uid in ((2, sop_class), (0x1000, instance))]
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in sorted(said) if value)
    return values(context, 3, body)


def object_sent(data: bytes, instance: str, *, sop_class: str = CAPTURE, context: int = 1) -> bytes:
    """A whole C-STORE: command and data set."""
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    said = [values(context, 2 if place == len(pieces) - 1 else 0, piece) for place, piece in enumerate(pieces)]
    return command(1, sop_class=sop_class, instance=instance, context=context) + b"".join(said)


ECHO = command(0x30, sop_class=VERIFICATION, has_data=False, context=3)
RELEASE = messages.encode_pdu(RELEASE_RQ, bytes(4))


class Talk:
    """A connection to a receiver."""

    def __init__(self, port: int, *, seconds: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def hear(self) -> tuple[int, bytes]:
        """(kind, body) of the next PDU; kind 0 where the other side has ended."""
        head = self._exactly(HEAD.size)
        if len(head) < HEAD.size:
            return 0, b""
        kind, length = HEAD.unpack(head)
        return kind, self._exactly(length)

    def status(self) -> int:
        """Of the next answer."""
        kind, body = self.hear()
        assert kind == 4, kind
        return int.from_bytes(messages.parse_command(body[6:])[0x900], "little")

    def associate(self, **words: object) -> int:
        """Ask for an association; the kind of the answer: 2 accepted, 3 rejected."""
        self.say(request(**words))
        return self.hear()[0]

    def _exactly(self, count: int) -> bytes:
        got = b""
        try:
            while len(got) < count and (more := self.socket.recv(count - len(got))):
                got += more
        except ConnectionResetError:
            pass
        return got

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
