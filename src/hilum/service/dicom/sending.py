"""C-STORE and C-ECHO to a peer: bytes go from the file into the socket, without being decoded.

Only what a peer does not take as it is is decoded: explicit VR becomes implicit VR, and a report another class.

pynetdicom does the rest of what is asked of peers. Where several messages follow each other on one association it may
take an answer for a request, and lose it (its issue 875): nothing that is sent depends on that.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from hilum.errors import FormatError, HilumError
from hilum.files.dicom import header_reading, object_identity
from hilum.files.dicom.object_identity import ObjectIdentity
from hilum.files.dicom.writing import new_object, report_changes
from hilum.files.dicom.writing.report_changes import COMPREHENSIVE, COMPREHENSIVE_3D
from hilum.service.dicom import messages
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.dimse_statuses import DUPLICATE

IDLE_S = 30.0
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2
WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, with something changed or odd: PS3.4 B.2.3


class PeerError(HilumError):
    """A peer that cannot be reached, refuses, or ends before it has answered."""


@dataclass(frozen=True)
class SendOutcome:
    """The outcome of one file.

    instance, sop_class: of the object as it was sent, which is not always that of the file
    status: the peer's, None where it gave none
    """

    path: Path
    instance: str
    status: int | None
    problem: str = ""
    sop_class: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether the peer has it, and be it from a try whose answer was lost."""
        return self.status in (messages.SUCCESS, DUPLICATE, *WARNINGS)


@dataclass(frozen=True)
class OpenAssociation:
    """An association that a peer has accepted. contexts: {(class, syntax): number}; most: bytes of a PDU's data."""

    connection: messages.Connection
    contexts: Mapping[tuple[str, str], int]
    most: int

    def ask(self, command: bytes, data: BinaryIO | None = None, *, context: int = 1) -> tuple[int, str]:
        """(status, comment) of the answer to a command, with what a file holds from where it is."""
        self.connection.send(command)
        if data is not None:
            self._send(data, context)
        answer = messages.parse_command(self._answer())
        comment = answer.get(messages.COMMENT, b"").decode("ascii", "replace").strip(" \0")
        return messages.command_number(answer, messages.STATUS), comment

    def _send(self, file: BinaryIO, context: int) -> None:
        start = file.tell()
        left = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        while left > 0 and (piece := file.read(min(left, self.most - messages.VALUE_HEAD))):
            left -= len(piece)
            self.connection.send(messages.data_pdu(piece, context, messages.LAST_DATA if left <= 0 else 0))

    def _answer(self) -> bytes:
        buffer, command = memoryview(bytearray(messages.LARGEST_DATA)), b""
        while True:
            kind, length = self.connection.head(buffer, messages.LARGEST_DATA)
            self.connection.fill(buffer[:length])
            if kind != messages.P_DATA or length < messages.VALUE_HEAD:
                raise messages.ProtocolError("the association was ended")
            command += buffer[messages.VALUE_HEAD : length]
            if buffer[messages.VALUE_HEAD - 1] & messages.LAST_DATA:
                return bytes(command)


def send_echo(us: str, peer: DicomPeer, *, idle_s: float = IDLE_S) -> None:
    """Ask whether a peer is there. Raises PeerError."""
    with _open_association(us, peer, [(messages.VERIFICATION, messages.IMPLICIT)], idle_s) as opened:
        status, _ = opened.ask(messages.command_pdu(messages.C_ECHO, 1, messages.VERIFICATION))
    if status != messages.SUCCESS:
        raise PeerError(f"answers with status {status:04X}", peer.place, "See what its log says")


def send_files(us: str, peer: DicomPeer, paths: Sequence[Path], *, idle_s: float = IDLE_S) -> list[SendOutcome]:
    """Send files as they are, in their own syntaxes; one row for each, in their order.

    What is in explicit VR is put into implicit VR for a peer that takes nothing else, PS3.5 10.1. A Comprehensive 3D SR
    becomes a Comprehensive SR under a UID of its own for a peer that refuses that class, in its association or by the
    status 0122.
    Raises PeerError where no association comes about.
    """
    rows: dict[Path, SendOutcome] = {}
    identities: dict[Path, ObjectIdentity] = {}
    for path in paths:
        try:
            identities[path] = object_identity.read_identity(path)
        except (FormatError, OSError) as error:
            problem = error.problem if isinstance(error, FormatError) else f"cannot be read: {error.strerror}"
            rows[path] = SendOutcome(path, "", None, problem)
    for some in _few_contexts(identities):
        pairs = sorted(set[tuple[str, str]]().union(*map(_pairs, some.values())))
        while left := {path: one for path, one in some.items() if path not in rows}:
            is_open = False
            try:
                with _open_association(us, peer, pairs, idle_s) as opened:
                    is_open = True
                    for path, identity in left.items():
                        rows[path] = _send_file(opened, path, identity)
            except PeerError as error:
                unsent = [path for path in left if path not in rows]
                # A peer may end an association because of one object: the others are sent on another.
                for path in unsent[:1] if is_open else unsent:
                    rows[path] = SendOutcome(path, left[path].instance, None, error.problem)
                if not any(one.status is not None for one in rows.values()) and rows.keys() >= some.keys():
                    raise
    return [rows[path] for path in paths]


def _send_file(opened: OpenAssociation, path: Path, identity: ObjectIdentity) -> SendOutcome:
    """The outcome of one file, in the first class that the peer takes: it may accept a class and then refuse it."""
    pairs = dict[str, tuple[str, str]]()
    for pair in _pairs(identity):
        if pair in opened.contexts:
            pairs.setdefault(pair[0], pair)
    row = SendOutcome(path, identity.instance, None, "the peer takes no such class in this syntax")
    for pair in pairs.values():
        row = _stored_as(pair, opened, path, identity)
        if row.status != messages.CLASS_NOT_SUPPORTED:
            break
    return row


def _stored_as(pair: tuple[str, str], opened: OpenAssociation, path: Path, identity: ObjectIdentity) -> SendOutcome:
    """The outcome of one file in a class and a syntax."""
    (sop_class, syntax), context, instance = pair, opened.contexts[pair], identity.instance
    is_own = pair == (identity.sop_class, identity.syntax)
    try:
        if is_own:
            data: BinaryIO = path.open("rb", buffering=0)
        else:
            dataset = header_reading.read_object(path)
            if sop_class != identity.sop_class:
                instance = str(report_changes.as_comprehensive(dataset, str(path)).SOPInstanceUID)
            data = BytesIO(new_object.encode_dataset(dataset, syntax, str(path)))
    except FormatError as error:
        return SendOutcome(path, identity.instance, None, error.problem)
    with data:
        data.seek(identity.offset if is_own else 0)
        command = messages.command_pdu(messages.C_STORE, context, sop_class, instance)
        status, comment = opened.ask(command, data, context=context)
    return SendOutcome(path, instance, status, comment, sop_class)


def _pairs(identity: ObjectIdentity) -> list[tuple[str, str]]:
    """(class, syntax) in which an object can be sent, the one that it has first."""
    syntaxes = [identity.syntax, *([messages.IMPLICIT] if identity.syntax == messages.EXPLICIT else [])]
    classes = [identity.sop_class]
    if identity.sop_class == COMPREHENSIVE_3D and identity.syntax in (messages.EXPLICIT, messages.IMPLICIT):
        classes.append(COMPREHENSIVE)
    return [(sop_class, syntax) for sop_class in classes for syntax in syntaxes]


@contextmanager
def _open_association(
    us: str, peer: DicomPeer, pairs: Sequence[tuple[str, str]], idle_s: float
) -> Iterator[OpenAssociation]:
    """An association for classes, each with a syntax. Raises PeerError for whatever ends it."""
    proposals = [
        messages.PresentationContext(2 * place + 1, sop_class, (syntax,))
        for place, (sop_class, syntax) in enumerate(pairs)
    ]
    remedy = "Check its address and both AE titles, and that each knows the other"
    try:
        with ExitStack() as open_now:
            transport = open_now.enter_context(socket.create_connection((peer.host, peer.port), timeout=idle_s))
            if peer.tls is not None:
                secured = peer.tls.context.wrap_socket(transport, server_hostname=peer.host)
                transport = open_now.enter_context(secured)
            connection = messages.Connection(transport, idle_s)
            connection.send(messages.association_pdu(us, peer.ae_title, proposals))
            kind, body = connection.first()
            if kind == messages.ASSOCIATE_RJ:
                raise PeerError("rejects the association", peer.place, remedy)
            if kind != messages.ASSOCIATE_AC:
                raise messages.ProtocolError("the association was ended")
            numbers, most = messages.parse_acceptance(body)
            contexts = {(one.sop_class, one.syntaxes[0]): one.number for one in proposals if one.number in numbers}
            yield OpenAssociation(connection, contexts, min(most or messages.LARGEST_DATA, messages.LARGEST_DATA))
            connection.send(messages.encode_pdu(messages.RELEASE_RQ, bytes(4)))
            connection.first()
    except (OSError, EOFError, messages.ProtocolError, struct.error) as error:
        raise PeerError(f"cannot be reached ({str(error) or type(error).__name__})", peer.place, remedy) from error


def _few_contexts(identities: Mapping[Path, ObjectIdentity]) -> Iterator[dict[Path, ObjectIdentity]]:
    """The files in portions whose classes and syntaxes fit into an association."""
    some: dict[Path, ObjectIdentity] = {}
    pairs: set[tuple[str, str]] = set()
    for path, identity in identities.items():
        if len(pairs.union(_pairs(identity))) > MOST_CONTEXTS:
            yield some
            some, pairs = {}, set()
        some[path] = identity
        pairs.update(_pairs(identity))
    if some:
        yield some
