"""Commands of DIMSE as bytes, PS3.7 6.3 and E.1, and the services that they belong to, PS3.4 B.5 and PS3.6 A.

Also the head of a file for a data set that came without one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from isocenter.service.dicom.pdus import HEAD, IMPLEMENTATION, P_DATA, VERSION, ProtocolError

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


def number(command: Mapping[int, bytes], element: int) -> int:
    """A number of a command. Raises ProtocolError where it is absent."""
    value = command.get(element, b"")
    if len(value) != 2:
        raise ProtocolError("a command without a number that it needs")
    return int.from_bytes(value, "little")


def answer(command: Mapping[int, bytes], context: int, status: int, comment: str = "") -> bytes:
    """The P-DATA PDU that answers a command."""
    elements = {
        SOP_CLASS: command.get(SOP_CLASS),
        COMMAND: _short(number(command, COMMAND) | ANSWER),
        ANSWERS: command[MESSAGE],
        DATA_SET: _short(NO_DATA_SET),
        STATUS: _short(status),
        COMMENT: _even(comment.encode("ascii", "replace")[:LONGEST_COMMENT], b" ") or None,
        INSTANCE: command.get(INSTANCE),
    }
    return _command(elements, context)


def request(kind: int, context: int, sop_class: str, instance: str = "") -> bytes:
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


def data_value(data: bytes, context: int, bits: int) -> bytes:
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
    return data_value(_element(0, struct.pack("<I", len(body))) + body, context, WHOLE_COMMAND)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def _even(value: bytes, filler: bytes) -> bytes:
    return value + filler * (len(value) % 2)
