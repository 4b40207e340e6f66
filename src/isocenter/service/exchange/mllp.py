"""HL7 v2 messages to a receiver by MLLP, each with its acknowledgement."""

from __future__ import annotations

import socket
import time

import hl7

from isocenter.errors import FormatError
from isocenter.service.dicom.sending import PeerError

BEGIN, END = b"\x0b", b"\x1c\r"
LARGEST = 1 << 20  # bytes of an acknowledgement
TAKEN, WRONG = ("AA", "CA"), ("AE", "CE")


def send(host: str, port: int, message: bytes, control_id: str, *, idle_s: float) -> None:
    """Send a message, and wait until the receiver has taken it.

    Raises FormatError where it finds the message wrong (AE): another try would be the same. PeerError where it does not
    answer in time, answers something else, or cannot take it now (AR).
    """
    place, until = f"{host}:{port}", time.monotonic() + idle_s
    try:
        with socket.create_connection((host, port), timeout=idle_s) as connection:
            connection.sendall(BEGIN + message + END)
            answer = _answer(connection, until)
    except OSError as error:
        problem = f"does not acknowledge ({type(error).__name__})"
        raise PeerError(problem, place, "Check that it is running") from error
    try:
        acknowledged = hl7.parse(answer.decode(errors="replace").strip("\r\n"))
        code, about = str(acknowledged["MSA.1"]), str(acknowledged["MSA.2"])
    except Exception as error:  # the library raises what it likes for what is no HL7
        raise PeerError("answers with something that is no acknowledgement", place, "See what its log says") from error
    if about != control_id:
        raise PeerError("acknowledges another message", place, "See what its log says")
    if code in WRONG:
        raise FormatError(f"it finds an error in the message ({code})", place, "See what its log says")
    if code not in TAKEN:
        raise PeerError(f"does not take the message ({code or 'no code'})", place, "See what its log says")


def _answer(connection: socket.socket, until: float) -> bytes:
    """The first block that comes. Raises OSError where it does not come in time, or is none."""
    taken = b""
    while END[:1] not in taken:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(1 << 16)
        if not piece or len(taken) > LARGEST:
            raise ConnectionError
        taken += piece
    return taken.partition(BEGIN)[2].partition(END[:1])[0]
